"""The commands of README.md and docs/, executed as they stand there.

The folder that they are executed in looks like a RELION project; its particles are tiny.
"""
import csv
import re
import shutil
import subprocess

import documents
import gemmi
import numpy as np
import pandas as pd
import pytest
import starfile
from commands import gmmhet
from documents import FILES, KEYS, OUTPUTS, commands, pages, spans, text_of, words_of

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture

#: what is added to the commands of a stage, so that they take seconds: a flag that is given again counts
SMALLER = {
    "simulate": "--n 60 --box 32 --pixel-size 6 --snr 0.5",
    "fit": "--n-gaussians 60 --steps 60",
    "train": "--epochs 2 --latent-steps 0",
    "refine": "--steps 2",
}
#: and to the trainings of other pages than README.md, as long as poses have been inferred once
SHORTER = "--epochs 1 --pose-errors none"
#: pages whose commands are executed without asking for slow tests
QUICK_PAGES = ("README.md", "docs/install.md")
WITH_COMMANDS = [page for page in pages() if page not in documents.FOR_DEVELOPERS and commands(text_of(page))]


class Project:
    """A folder in which the documents' commands are executed, each once."""

    def __init__(self, folder):
        self.folder, self.done = folder, set()

    def walk(self, page):
        """Execute the commands of a page that have not been executed yet."""
        for line in commands(text_of(page)):
            if line not in self.done:
                # what goes on was begun by the README
                self.execute(line, SHORTER if page != "README.md" and "--resume" not in line else "")
                self.done.add(line)

    def execute(self, line, shorter):
        words = words_of(line)
        if words[0] != "gmmhet":
            subprocess.run(["sh", "-c", line], check=True, cwd=str(self.folder))
            return
        if "--help" in words or "--version" in words:
            with pytest.raises(SystemExit) as ended:
                gmmhet(*words[1:])
            assert ended.value.code == 0
            return
        smaller = SMALLER.get(words[1], "").split() + (shorter.split() if words[1] == "train" else [])
        assert gmmhet(*words[1:], *smaller) == 0, line
        check_outputs(words[1], self.folder / words[words.index("--out") + 1])


@pytest.fixture(scope="module")
def project(small, tmp_path_factory):
    """A RELION project: `small` as a refinement in two optics groups, and an atomic model."""
    folder = tmp_path_factory.mktemp("project")
    refinement, stacks = folder / "Refine3D" / "job010", folder / "Extract" / "job007"
    for made in (refinement, stacks):
        made.mkdir(parents=True)
    shutil.copy(small / "set" / rundir.STACK, stacks)
    shutil.copy(small / "set" / rundir.MAP, refinement / "run_class001.mrc")
    star = starfile.read(small / "set" / rundir.STAR)
    particles, optics = star["particles"], star["optics"]
    names = ["%06d@Extract/job007/%s" % (number, rundir.STACK) for number in range(1, 1 + len(particles))]
    particles["rlnImageName"] = names
    particles["rlnOpticsGroup"] = 1 + np.arange(len(particles)) % 2
    optics = pd.concat([optics, optics.assign(rlnOpticsGroup=2, rlnOpticsGroupName="opticsGroup2")])
    starfile.write(dict(optics=optics, particles=particles), refinement / "run_data.star", float_format=None)
    write_atoms(folder / "model.cif", Mixture.load(str(small / "fit" / rundir.GMM)).centers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Project(folder)


def write_atoms(path, places):
    """An atomic model of one chain, a residue at each place [N, 3], Å from the box centre."""
    chain = gemmi.Chain("A")
    for number, place in enumerate(places, 1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(str(number))
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*map(float, place))
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))


def check_outputs(stage, folder):
    """Everything that a run left is in docs/outputs.md: files, arrays, columns, keys of the summary."""
    left = {documents.numbered(path.name) for path in folder.iterdir()}
    trajectories = {name for name in left if name.startswith(rundir.trajectory(""))}
    left = left - trajectories | {rundir.trajectory("NAME") for _ in trajectories}
    assert sorted(left - set(FILES[stage])) == []
    explained = set(re.findall(r"[\w]+", " ".join(spans(OUTPUTS[stage]))))
    for path in folder.rglob("*.npz"):
        if rundir.WORK not in path.parts and rundir.MODEL not in path.relative_to(folder).parts:
            with np.load(path) as arrays:
                assert sorted(set(arrays.files) - explained) == [], path
    for path in folder.glob("*.csv"):
        with open(path, newline="") as file:
            assert sorted(set(next(csv.reader(file))) - explained) == [], path
    for path in folder.glob(rundir.trajectory("*") + "/*"):
        assert documents.numbered(path.name) in FILES[stage]
    summary = rundir.read_json(str(folder / rundir.SUMMARY))
    assert documents.unknown_keys(summary, set(KEYS[stage])) == []


@pytest.mark.parametrize("page", [page if page in QUICK_PAGES else pytest.param(page, marks=pytest.mark.slow)
                                  for page in WITH_COMMANDS])
def test_the_commands_of_a_page_run_and_what_they_leave_is_explained(project, page):
    project.walk("README.md")       # whose runs the other pages use
    project.walk(page)


def test_a_file_that_is_not_explained_is_noticed(tmp_path):
    (tmp_path / "novel.txt").write_text("")
    with pytest.raises(AssertionError, match=r"novel\.txt"):
        check_outputs("score", tmp_path)
