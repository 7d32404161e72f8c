"""What the tests of the Scipion side do often: run RELION, import a star file, launch a protocol."""
import os
import subprocess
from typing import Any, Iterable, List, Type

import pytest
import synthetic


def run_relion(command: str, folder: str) -> None:
    """Run a RELION program in `folder`."""
    done = subprocess.run(command.split(), check=False, cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def import_star(project: Any, star: str, label: str, pixel_size: float = synthetic.PIXEL_SIZE) -> Any:
    """Import a star file through Scipion and the RELION plugin."""
    from pwem.protocols import ProtImportParticles
    return launched(project, connected(
        project, ProtImportParticles, label, importFrom=ProtImportParticles.IMPORT_FROM_RELION, starFile=star,
        voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=10000,
        samplingRate=pixel_size))


def connected(project: Any, cls: Type, label: str, **values: Any) -> Any:
    """A new protocol; a value (protocol, output name) becomes a pointer."""
    pointers = {name: value for name, value in values.items() if isinstance(value, tuple)}
    protocol = project.newProtocol(cls,
                                   **{name: value for name, value in values.items() if name not in pointers})
    for name, (source, output) in pointers.items():
        getattr(protocol, name).set(source)
        getattr(protocol, name).setExtended(output)
    protocol.setObjLabel(label)
    return protocol


def launched(project: Any, protocol: Any) -> Any:
    """Run a protocol to its end; fails with the end of its log."""
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        paths = [path for path in protocol.getLogPaths()[:2] if os.path.exists(path)]
        logs = [open(path, errors="replace").read()[-4000:] for path in paths]
        pytest.fail("%s: %s\n%s" % (protocol.getObjLabel(), protocol.getErrorMessage(), "\n".join(logs)))
    return protocol


def ids_of(items: Iterable[Any]) -> List[int]:
    return sorted(item.getObjId() for item in items)
