"""What the tests of the Scipion side do often: run RELION, import a star file, launch a protocol."""
import os
import subprocess

import pytest
import synthetic


def run_relion(command, folder):
    """Run a RELION program in `folder`."""
    done = subprocess.run(command.split(), check=False, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def import_star(project, star, label, pixel_size=synthetic.PIXEL_SIZE):
    """Import a star file through Scipion and the RELION plugin."""
    from pwem.protocols import ProtImportParticles
    protocol = project.newProtocol(ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION, starFile=star,
                                   voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=10000,
                                   samplingRate=pixel_size)
    protocol.setObjLabel(label)
    return launched(project, protocol)


def launched(project, protocol):
    """Run a protocol to its end; fails with the end of its log."""
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        logs = [open(path, errors="replace").read()[-4000:] for path in protocol.getLogPaths()[:2] if os.path.exists(path)]
        pytest.fail("%s: %s\n%s" % (protocol.getObjLabel(), protocol.getErrorMessage(), "\n".join(logs)))
    return protocol
