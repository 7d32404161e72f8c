"""The whole chain on simulated particles, in a real Scipion project: import, RELION, and the five phases of
gmmhet.

Run by ``make demo``. The particles are simulated because only then is the truth known: the last lines compare
what was recovered with it, and with the oracle, the physical limit of such a set.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Tuple

import environment

OUT = os.path.join(environment.ROOT, "demo_out")
DATA = os.path.join(OUT, "simulated")
SCORE = os.path.join(OUT, "score")
USER_DATA = os.path.join(OUT, "scipion")
PROJECT = "GmmHetDemo"
PIXEL_SIZE = 4.0
START = time.time()
#: colours of Scipion's log, and lines that say nothing here: TensorFlow's search for a GPU, Scipion's
#: house-keeping
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NOISE = re.compile(
    r"^\s*$|^WARNING: All log messages|^[IWE]0000 |TensorFlow binary is optimized|"
    r"^To enable the following instr|Running command: \*\*|^\s*PYTHONPATH=|temp folder|Nothing to clean|"
    r"PROTOCOL FINISHED|Last status is|Getting the dimensions")


class DemoError(RuntimeError):
    """A step of the demo failed; the message says which and where its log is."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=3000, help="particles (default 3000)")
    parser.add_argument("--snr", type=float, default=0.05, help="signal to noise (default 0.05)")
    parser.add_argument("--epochs", type=int, default=40, help="most training epochs (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default 1)")
    parser.add_argument("--controls", action="store_true",
                        help="train also on homogeneous images and on half sets (three times as long)")
    return parser.parse_args()


def announce(text: str) -> None:
    """A line that starts a step, with the time since the demo began."""
    seconds = int(time.time() - START)
    print("\n== %02d:%02d  %s" % (seconds // 60, seconds % 60, text), flush=True)


def engine(*arguments: str) -> None:
    """Run one stage of the engine from the command line, as a user would."""
    command = [sys.executable, "-m", "gmmhet.engine.cli"] + list(arguments)
    print("   gmmhet " + " ".join(arguments), flush=True)
    with subprocess.Popen(command, cwd=OUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as running:
        for line in running.stdout:
            if not NOISE.search(line):
                print("   | " + line.rstrip(), flush=True)
    if running.returncode:
        raise DemoError("'gmmhet %s' failed; what it said stands above" % arguments[0])


class Follow(threading.Thread):
    """Prints what a protocol writes into its logs, while the main thread waits for it."""

    def __init__(self, folder: str) -> None:
        super().__init__(daemon=True)
        self.files = dict.fromkeys((os.path.join(folder, "logs", name)
                                    for name in ("run.stdout", "run.stderr")), 0)
        self.end = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.join()

    def run(self) -> None:
        while not self.end.wait(1):
            self.show()
        self.show()

    def show(self) -> None:
        for path, offset in self.files.items():
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as f:
                    f.seek(offset)
                    text = f.read()
                whole, newline, _ = text.rpartition("\n")
                self.files[path] += len((whole + newline).encode("utf-8"))
                for line in COLOUR.sub("", whole).splitlines():
                    if not NOISE.search(line):
                        print("   | " + line[:180], flush=True)


def launch(project: Any, protocol: Any, label: str) -> Any:
    """Run a protocol to its end and follow its logs.

    Raises
    ------
    DemoError
        when it is not accepted or does not finish; names its log.
    """
    announce("%s  (%s)" % (label, type(protocol).__name__))
    protocol.setObjLabel(label)
    project.saveProtocol(protocol)
    problems = protocol.validate()
    if problems:
        raise DemoError("%s was refused: %s" % (label, " ".join(problems)))
    folder = os.path.join(project.path, protocol.getWorkingDir())
    with Follow(folder):
        project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        raise DemoError("%s did not finish: %s\nIts log: %s" % (
            label, protocol.getErrorMessage(), os.path.join(folder, "logs", "run.stdout")))
    for name, output in protocol.iterOutputAttributes():
        print("   -> %s: %s" % (name, output), flush=True)
    return protocol


def connect(protocol: Any, **inputs: Tuple[Any, str]) -> Any:
    """Point inputs of a protocol at outputs of others: ``name=(protocol, "outputName")``."""
    for name, (source, output) in inputs.items():
        pointer = getattr(protocol, name)
        pointer.set(source)
        pointer.setExtended(output)
    return protocol


def make_project() -> Any:
    """A new Scipion project, in place of an earlier demo's."""
    from pyworkflow.project import Manager
    manager = Manager()
    if manager.hasProject(PROJECT):
        manager.deleteProject(PROJECT)
    return manager.createProject(PROJECT)


def import_particles(project: Any) -> Any:
    from pwem.protocols import ProtImportParticles
    return launch(project, project.newProtocol(
        ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION,
        starFile=os.path.join(DATA, "particles.star"), samplingRate=PIXEL_SIZE, magnification=50000,
        voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1, haveDataBeenPhaseFlipped=False),
                  "Import the particles of a RELION refinement")


def reconstruct_with_relion(project: Any, particles: Any) -> Any:
    from pyworkflow.plugin import Domain
    reconstruct = Domain.importFromPlugin("relion.protocols", "ProtRelionReconstruct", doRaise=True)
    protocol = connect(project.newProtocol(reconstruct, doCTF=True),
                       inputParticles=(particles, "outputParticles"))
    return launch(project, protocol, "Consensus map with relion_reconstruct")


def run_phases(project: Any, particles: Any, consensus: Any, options: argparse.Namespace) -> Dict[str, Any]:
    """The five protocols of gmmhet; returns them by phase."""
    from gmmhet import protocols as gmm
    runs = {}
    fit = connect(project.newProtocol(gmm.GmmHetProtFit, resolution=16.0),
                  inputVolume=(consensus, "outputVolume"))
    runs["fit"] = launch(project, fit, "Fit: the neutral Gaussian model")
    controls = dict(null=options.controls, halfSets=options.controls)
    train = connect(project.newProtocol(gmm.GmmHetProtTrain, epochs=options.epochs, **controls),
                    inputParticles=(particles, "outputParticles"),
                    inputGaussians=(runs["fit"], "outputPseudoAtoms"))
    runs["train"] = launch(project, train, "Train: one latent point per particle, and the decoder")
    refine = connect(project.newProtocol(gmm.GmmHetProtRefine),
                     inputParticles=(runs["train"], "outputParticles"))
    runs["refine"] = launch(project, refine, "Refine: each pose against its own conformation")
    analyze = connect(project.newProtocol(gmm.GmmHetProtAnalyze, clusters=3),
                      inputParticles=(runs["refine"], "outputParticles"))
    runs["analyze"] = launch(project, analyze, "Analyze: landscape, clusters, trajectories")
    reconstruct = connect(project.newProtocol(gmm.GmmHetProtReconstruct),
                          inputParticles=(runs["analyze"], "outputClasses"))
    runs["reconstruct"] = launch(project, reconstruct,
                                 "Reconstruct: the particles of each cluster, with half maps")
    return runs


def report(project: Any, runs: Dict[str, Any]) -> None:
    """Score the result against the truth and say where everything is."""
    from gmmhet.engine import rundir
    training, analysis = [os.path.join(project.path, runs[name].getRunFolder())
                          for name in ("train", "analyze")]
    announce("Compare with the truth")
    engine("score", "--model", training, "--truth", DATA, "--analysis", analysis, "--out", SCORE)
    scores = rundir.read_json(os.path.join(SCORE, rundir.SUMMARY))
    announce("Done")
    print(json.dumps(scores, indent=2, ensure_ascii=False))
    print("Landscape picture: %s" % os.path.join(analysis, rundir.LANDSCAPE))
    print("Scipion project:   %s" % project.path)
    print("Open it:           cd %s && eval \"$(.venv/bin/python tools/environment.py)\" && "
          "scipion project %s" % (environment.ROOT, PROJECT))


def main() -> None:
    options = parse_arguments()
    os.makedirs(OUT, exist_ok=True)
    for folder in (DATA, SCORE):
        shutil.rmtree(folder, ignore_errors=True)
    environment.apply(USER_DATA)
    announce("Simulate %d particles of a molecule whose domain turns on a hinge" % options.n)
    engine("simulate", "--kind", "hinge", "--n", str(options.n), "--box", "64", "--pixel-size",
           str(PIXEL_SIZE), "--snr", str(options.snr),
           "--seed", str(options.seed), "--out", DATA)
    project = make_project()
    os.chdir(project.path)
    particles = import_particles(project)
    consensus = reconstruct_with_relion(project, particles)
    report(project, run_phases(project, particles, consensus, options))


if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        sys.exit("\nThe demo stopped: %s" % error)
