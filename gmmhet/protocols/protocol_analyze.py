"""Phase 4: embedding, clusters and trajectories of the conformational landscape."""
import os
import re
from typing import Any, ClassVar, Dict, List, NamedTuple, Optional

import numpy as np
from pwem.objects import ClassFlex, ParticleFlex, SetOfClassesFlex, SetOfVolumesFlex, VolumeFlex
from pyworkflow.object import CsvList, Float
from pyworkflow.protocol import Form, params

from gmmhet import convert
from gmmhet.constants import COPIES_IN_CLASS, PROBABILITY, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, mark_flex, run_folder_of, run_problem


class Membership(NamedTuple):
    """Cluster of one symmetry copy of a particle: copy from 0, label (0 or less: no cluster), coordinates xy
    [2] in the embedding, and probability of the label where it was assigned by image."""

    copy: int
    label: int
    xy: np.ndarray
    probability: Optional[float]


class TrajectoryPoint(NamedTuple):
    """One point of a trajectory: name of the trajectory, number from 1, map file and latent point z [D]."""

    trajectory: str
    number: int
    path: str
    z: np.ndarray


class GmmHetProtAnalyze(GmmHetProtBase):
    """Analyse the conformational landscape of trained particles: embedding, clusters, trajectories and
    localised motion.

    Outputs: classes of particles with their original ids and their coordinates in the embedding (zRed), and
    the maps along the trajectories. With a symmetry above c1 a particle is in the class of each of its
    symmetry-related orientations; the attribute _gmmCopiesInClass lists which of them are in that class.
    Where particles are assigned to classes by image, _gmmProbability is the probability of its class for a
    particle.
    """

    _label = "analyze landscape"
    _config = config.AnalyzeConfig
    _fromInputs = ("model", "particles")
    _summaryTexts: ClassVar = {
        "clusters": "Particles per class: *%s*",
        "certainty": "Mean probability of a particle's class by its image: *%.2f*",
        "unassigned": "Particles in no class: *%d*", "motion_rms_angst": "Decoded motion: *%.2f Å* rms"}
    _possibleOutputs: ClassVar = {"outputClasses": SetOfClassesFlex, "outputVolumes": SetOfVolumesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form: Form) -> None:
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticlesFlex",
                      important=True, label="Trained particles",
                      help="Particles of 'train heterogeneity' or 'refine orientations', or a subset of "
                           "them: the landscape is that of the whole training, the classes hold these "
                           "particles.")
        self._addMask(form, "inputMotionRegion", label="Motion region mask (optional)",
                      help="Localised motion: latent directions that move the inside of this mask most and "
                           "the rest of the molecule least. Give this or the text field *Motion region* "
                           "below.")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        convert.write_particles(self.inputParticles.get(), self._starFile())
        self._mapOf(self.inputMotionRegion, "motion_region")

    def createOutputStep(self, settings: str) -> None:
        outputs = {"outputClasses": self._makeClasses()}
        volumes = self._makeVolumes()
        if volumes is not None:
            outputs["outputVolumes"] = volumes
        self._defineOutputs(**outputs)
        for output in outputs.values():
            self._defineSourceRelation(self.inputParticles, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self) -> List[str]:
        problems = [run_problem(self.inputParticles.get(), "train")]
        problems += self._regionProblems("motion_region", "inputMotionRegion")
        lacks_region = not self.motionRegion.get("").strip() and self.inputMotionRegion.get() is None
        if "motion" in self.line.get("") and lacks_region:
            problems.append("*Trajectories* asks for a localised motion ('%s'), which needs a motion region: "
                            "give a mask or a region." % self.line.get())
        return [problem for problem in problems if problem]

    def _citations(self) -> List[str]:
        return ["Chen2021"] + (["McInnes2018"] if self.getEnumText("embedding") == "umap" else [])

    def _methods(self) -> List[str]:
        if not self.getSummary():
            return []
        return ["The latent points of the particles were embedded in two dimensions by %s, and the particles "
                "were divided into clusters, with gmmhet [Chen2021]." % self.getEnumText("embedding").upper()]

    # ------------------------------------------------------------------ UTILS
    def _inputValues(self) -> Dict[str, Any]:
        values = {"model": run_folder_of(self.inputParticles.get()), "particles": self._starFile()}
        if self.inputMotionRegion.get() is not None:
            values["motion_region"] = self._mapOf(self.inputMotionRegion, "motion_region")
        return values

    def _makeClasses(self) -> SetOfClassesFlex:
        """Classes by cluster label; particles in no cluster (label 0 or less) are left out."""
        source = self.inputParticles.get()
        members = read_memberships(self.getRunFile(rundir.EMBEDDING))
        classes = SetOfClassesFlex.create(self._getPath())
        classes.setImages(self.inputParticles)
        by_label = {}
        for label, center in enumerate(read_centers(self.getRunFile(rundir.EMBEDDING)), 1):
            by_label[label] = self._newClass(source, label, center)
            classes.append(by_label[label])
        for item, copies in convert.join(source.iterItems(), members, "place in the landscape"):
            for label in sorted({one.label for one in copies if one.label > 0}):
                by_label[label].append(self._classItem(item, label, copies))
        for item in by_label.values():
            classes.update(item)
        return classes

    def _newClass(self, source: Any, label: int, center: np.ndarray) -> ClassFlex:
        """Class of a cluster, without particles: its representative is the decoded map at `center` [D]."""
        item = ClassFlex(objId=label)
        item.copyInfo(source)
        item.setAcquisition(source.getAcquisition())
        item.setHasCTF(source.hasCTF())
        item.setRepresentative(self._newVolume(self.getRunFile(rundir.cluster_map(label)), center))
        return item

    def _newVolume(self, path: str, z: np.ndarray) -> VolumeFlex:
        """The decoded map at a latent point."""
        volume = VolumeFlex(progName=PROGRAM, location=path)
        volume.setSamplingRate(convert.pixel_size_of(path))
        volume.setZFlex([float(value) for value in z])
        mark_flex(volume, run_folder_of(self.inputParticles.get()))
        return volume

    def _classItem(self, item: Any, label: int, copies: List[Membership]) -> ParticleFlex:
        """A particle in class `label`, of which `copies` are the memberships of all its symmetry copies."""
        inside = [one for one in copies if one.label == label]
        copy = self._flexItem(item, run_folder_of(self.inputParticles.get()))
        copy.setClassId(int(label))
        copy.setZRed([float(number) for number in inside[0].xy])
        if len(copies) > 1:
            setattr(copy, COPIES_IN_CLASS, CsvList(pType=int))
            getattr(copy, COPIES_IN_CLASS).set([int(one.copy) for one in inside])
        if inside[0].probability is not None:
            setattr(copy, PROBABILITY, Float(max(one.probability for one in inside)))
        return copy

    def _makeVolumes(self) -> Optional[SetOfVolumesFlex]:
        """Maps along the trajectories, in order; None when there are none."""
        points = read_trajectories(self.getRunFolder())
        if not points:
            return None
        volumes = SetOfVolumesFlex.create(self._getPath(), progName=PROGRAM)
        volumes.setSamplingRate(convert.pixel_size_of(points[0].path))
        mark_flex(volumes, run_folder_of(self.inputParticles.get()))
        for point in points:
            volume = self._newVolume(point.path, point.z)
            volume.setObjLabel("%s, point %d" % (point.trajectory, point.number))
            volumes.append(volume)
        return volumes


def read_centers(path: str) -> np.ndarray:
    """Latent points [clusters, D] at the centres of the clusters of an analyze run; row 0 is cluster 1."""
    with np.load(path, allow_pickle=False) as file:
        return np.atleast_2d(file["centers"])


def read_memberships(path: str) -> Dict[int, List[Membership]]:
    """Clusters of the particles of an analyze run, by particle id, in the order of the symmetry copies."""
    members: Dict[int, List[Membership]] = {}
    with np.load(path, allow_pickle=False) as file:
        ids, labels, xy = file["id"], file["label"], file["xy"]
        copies = file["copy"] if "copy" in file.files else np.zeros(len(ids), int)
        probabilities = [None] * len(ids)
        if "probability" in file.files:
            probabilities = file["probability"][np.arange(len(ids)), labels - 1].tolist()
    for row, number in enumerate(ids.tolist()):
        one = Membership(int(copies[row]), int(labels[row]), xy[row], probabilities[row])
        members.setdefault(number, []).append(one)
    return {number: sorted(group, key=lambda one: one.copy) for number, group in members.items()}


def read_trajectories(folder: str) -> List[TrajectoryPoint]:
    """Every point of every trajectory of an analyze run."""
    points = []
    prefix = rundir.trajectory("")
    for name in sorted(os.listdir(folder)):
        if not name.startswith(prefix):
            continue
        z = np.loadtxt(os.path.join(folder, name, "z.txt"), ndmin=2)
        matches = [re.match(r"point_(\d+)\.mrc$", file) for file in os.listdir(os.path.join(folder, name))]
        for number in sorted(int(match.group(1)) for match in matches if match):
            path = os.path.join(folder, name, rundir.point(number, ".mrc"))
            points.append(TrajectoryPoint(name[len(prefix):], number, path, z[number - 1]))
    return points
