"""Small inputs for the forms, and what validation says of them."""
import os
from typing import Any, List, Type

import numpy as np
import pytest
import synthetic
from pwem.objects import (
    CTFModel,
    Particle,
    ParticleFlex,
    SetOfParticles,
    SetOfParticlesFlex,
    Transform,
    Volume,
)

from gmmhet.engine import rundir
from gmmhet.protocols import (
    GmmHetProtAnalyze,
    GmmHetProtFit,
    GmmHetProtReconstruct,
    GmmHetProtRefine,
    GmmHetProtTrain,
)

PROTOCOLS: List[Type] = [GmmHetProtFit, GmmHetProtTrain, GmmHetProtRefine, GmmHetProtAnalyze,
                         GmmHetProtReconstruct]
NAMES = [cls.__name__ for cls in PROTOCOLS]
each_protocol = pytest.mark.parametrize("cls", PROTOCOLS, ids=NAMES)


def finished_run(folder: str, stage: str) -> str:
    """A folder that looks like a finished run of a stage."""
    os.makedirs(folder, exist_ok=True)
    for name in (*rundir.FILES[stage], rundir.SUMMARY):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write('{"figure": 1}')
    return folder


def particle_set(path: str, cls: Type = SetOfParticles, number: int = 3) -> SetOfParticles:
    """A small set with alignment, CTF and acquisition."""
    particles = cls(filename=path)
    particles.setSamplingRate(2.0)
    particles.setHasCTF(True)
    particles.setAlignmentProj()
    particles._firstDim.set((64, 64, 1))
    transform = Transform()
    transform.setMatrix(np.eye(4))
    for i in range(number):
        item = (ParticleFlex if cls is SetOfParticlesFlex else Particle)()
        item.setLocation(i + 1, "stack.mrcs")
        ctf = CTFModel()
        ctf.setStandardDefocus(12000.0, 11000.0, 10.0)
        item.setCTF(ctf)
        item.setTransform(transform)
        SetOfParticles.__base__.__base__.append(particles, item)     # SetOfImages would open the stack
    particles.write()
    return particles


def volume(path: str, pixel_size: float = synthetic.PIXEL_SIZE, cls: Type = Volume) -> Volume:
    """The synthetic molecule as a volume or mask."""
    synthetic.write_map(path, pixel_size)
    result = cls(location=path)
    result.setSamplingRate(pixel_size)
    return result


def problems_of(cls: Type, **values: Any) -> str:
    """What validation says; pointers are set to objects."""
    protocol = cls()
    for name, value in values.items():
        getattr(protocol, name).set(value)
    return " ".join(protocol.validate())
