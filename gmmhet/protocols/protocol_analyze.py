"""Phase 4: embedding, clusters and trajectories of the landscape."""
import os
import re
from typing import ClassVar

import numpy as np
from pwem.objects import ClassFlex, SetOfClassesFlex, SetOfVolumesFlex, VolumeFlex
from pyworkflow.object import CsvList, Float
from pyworkflow.protocol import params

from gmmhet import convert
from gmmhet.constants import COPIES_IN_CLASS, PROBABILITY, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, flexFolder, markFlex


class GmmHetProtAnalyze(GmmHetProtBase):
    """Read the landscape of trained particles: embedding, clusters, trajectories and localised motion.

    Outputs: classes of particles with their original ids and the embedding as zRed, and the maps along the trajectories. With a symmetry
    above c1 a particle is in every class that one of its orientations fell into; the attribute _gmmCopiesInClass lists which. Where classes
    are told by image, _gmmProbability is how probable its class is for a particle.
    """

    _label = "analyze landscape"
    _config = config.AnalyzeConfig
    _fromInputs = ("model", "particles")
    _figures: ClassVar = {"clusters": "Particles per class: *%s*", "certainty": "By its image, a particle's class is certain to "
                          "*%.2f* on average", "unassigned": "Particles in no class: *%d*",
                          "motion_rms_angst": "Decoded motion: *%.2f Å* rms"}
    _possibleOutputs: ClassVar = {"outputClasses": SetOfClassesFlex, "outputVolumes": SetOfVolumesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form):
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticlesFlex", important=True, label="Trained particles",
                      help="Particles of 'train heterogeneity' or 'refine orientations', or a subset of them: the landscape is that of the "
                           "whole training, the classes hold these particles.")
        self._addMask(form, "inputMotionRegion", "Motion is maximised inside this mask and minimised outside. Give this or the text field "
                      "'Motion region' below.", label="Motion region mask")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        convert.writeParticles(self.inputParticles.get(), self._starFile())
        self._mapOf(self.inputMotionRegion, "motion_region")

    def _inputValues(self):
        values = {"model": flexFolder(self.inputParticles.get(), "train")[0], "particles": self._starFile()}
        if self.inputMotionRegion.get() is not None:
            values["motion_region"] = self._mapOf(self.inputMotionRegion, "motion_region")
        return values

    def createOutputStep(self, settings):
        outputs = {"outputClasses": self._makeClasses()}
        volumes = self._makeVolumes()
        if volumes is not None:
            outputs["outputVolumes"] = volumes
        self._defineOutputs(**outputs)
        for output in outputs.values():
            self._defineSourceRelation(self.inputParticles, output)

    def _makeClasses(self):
        """Classes by cluster label; particles that no cluster holds (label 0 or less) are left out."""
        folder = self._inputValues()["model"]
        members = readEmbedding(self.getRunFile(rundir.EMBEDDING))
        classes = SetOfClassesFlex.create(self._getPath())
        classes.setImages(self.inputParticles)
        source = self.inputParticles.get()
        byLabel = {label: self._newClass(classes, source, label, folder, z) for label, z in enumerate(self._classCenters(), 1)}
        for item, found in convert.join(source.iterItems(), members, "place in the landscape"):
            for label in sorted({label for _, label, *_ in found if label > 0}):
                copies = [(copy, xy, probability) for copy, its, xy, probability in found if its == label]
                byLabel[label].append(self._classItem(item, label, copies, len(found), folder))
        for item in byLabel.values():
            classes.update(item)
        return classes

    def _newClass(self, classes, source, label, folder, z):
        item = ClassFlex(objId=label)
        item.copyInfo(source)
        item.setAcquisition(source.getAcquisition())
        item.setHasCTF(source.hasCTF())
        path = self.getRunFile(rundir.cluster_map(label))
        representative = VolumeFlex(progName=PROGRAM, location=path)
        representative.setSamplingRate(convert.pixelSizeOf(path))
        representative.setZFlex([float(value) for value in z])
        markFlex(representative, folder)
        item.setRepresentative(representative)
        classes.append(item)
        return item

    def _classItem(self, item, label, copies, number, folder):
        copy = self._flexItem(item, folder)
        copy.setClassId(int(label))
        copy.setZRed([float(number) for number in copies[0][1]])
        if number > 1:
            setattr(copy, COPIES_IN_CLASS, CsvList(pType=int))
            getattr(copy, COPIES_IN_CLASS).set([int(index) for index, *_ in copies])
        if copies[0][2] is not None:
            setattr(copy, PROBABILITY, Float(max(probability for *_, probability in copies)))
        return copy

    def _makeVolumes(self):
        """Maps along the trajectories, in order; None when there are none."""
        points = trajectoryPoints(self.getRunFolder())
        if not points:
            return None
        folder = self._inputValues()["model"]
        volumes = SetOfVolumesFlex.create(self._getPath(), progName=PROGRAM)
        volumes.setSamplingRate(convert.pixelSizeOf(points[0][2]))
        markFlex(volumes, folder)
        for name, number, path, z in points:
            volume = VolumeFlex(progName=PROGRAM, location=path)
            volume.setZFlex([float(value) for value in z])
            volume.setObjLabel("%s, point %d" % (name, number))
            markFlex(volume, folder)
            volumes.append(volume)
        return volumes

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self):
        problems = [flexFolder(self.inputParticles.get(), "train")[1]] + self._regionProblems("motion_region", "inputMotionRegion")
        if "motion" in self.line.get("") and not self.motionRegion.get("").strip() and self.inputMotionRegion.get() is None:
            problems.append("*Line* asks for a localised motion ('%s'), which needs a motion region: give a mask or a region." % (
                self.line.get()))
        return [problem for problem in problems if problem]

    def _citations(self):
        return ["Chen2021"] + (["McInnes2018"] if self.getEnumText("embedding") == "umap" else [])

    def _methods(self):
        if not self.getSummary():
            return []
        return ["The landscape was drawn by %s and its particles were divided into clusters with gmmhet [Chen2021]." %
                self.getEnumText("embedding").upper()]

    # ------------------------------------------------------------------ UTILS
    def _classCenters(self):
        """Mean latent point of each class, [classes, D]; row 0 is class 1."""
        with np.load(self.getRunFile(rundir.EMBEDDING), allow_pickle=False) as file:
            return np.atleast_2d(file["centers"])


def readEmbedding(path):
    """Where each particle lies.

    Returns
    -------
    dict id -> list of (copy, label, xy, probability of the label by the image, or None), in the order of the symmetry copies.
    """
    members = {}
    with np.load(path, allow_pickle=False) as file:
        ids, labels, xy = file["id"], file["label"], file["xy"]
        copies = file["copy"] if "copy" in file.files else np.zeros(len(ids), int)
        known = file["probability"][np.arange(len(ids)), labels - 1].tolist() if "probability" in file.files else [None] * len(ids)
    for number, copy, label, point, probability in zip(ids.tolist(), copies.tolist(), labels.tolist(), xy, known):
        members.setdefault(number, []).append((copy, label, point, probability))
    return {number: sorted(found, key=lambda one: one[0]) for number, found in members.items()}


def trajectoryPoints(folder):
    """(trajectory, number from 1, map, z) of every point of every trajectory of an analyze run."""
    found = []
    prefix = rundir.trajectory("")
    for name in sorted(os.listdir(folder)):
        if not name.startswith(prefix):
            continue
        z = np.loadtxt(os.path.join(folder, name, "z.txt"), ndmin=2)
        matches = [re.match(r"point_(\d+)\.mrc$", file) for file in os.listdir(os.path.join(folder, name))]
        numbers = [int(match.group(1)) for match in matches if match]
        found += [(name[len(prefix):], number, os.path.join(folder, name, rundir.point(number, ".mrc")), z[number - 1])
                  for number in sorted(numbers)]
    return found
