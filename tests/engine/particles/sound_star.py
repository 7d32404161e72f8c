"""A sound star file of four particles, and the same with one thing wrong."""
import re

import numpy as np
import pytest

from gmmhet.engine.particles.particle_set import ParticleError, read_particles

N, BOX = 4, 8
OPTICS = ["_rln" + name for name in (
    "OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast", "ImagePixelSize",
    "ImageSize")]
LABELS = ["_rln" + name for name in (
    "ImageName", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "AngleRot", "AngleTilt",
    "AnglePsi", "OriginXAngst", "OriginYAngst", "OpticsGroup", "RandomSubset", "ImageId")]
GROUP = ["1", "og1", "300.0", "2.7", "0.1", "2.5", "8"]


def row(i):
    """Values of particle row i + 1."""
    numbers = [15000 + 10.5 * i, 14000.25, 33.5, -12.5 + i, 100.125, 7.75 * i, 1.5, -2.25]
    return ["%06d@s.mrcs" % (i + 1), "m/%03d.mrc" % i, *("%.6f" % v for v in numbers), "1", str(i % 2 + 1),
            str(10 + i)]


def loop(name, labels, rows):
    """A table as star text."""
    head = "".join("%s #%d\n" % (label, i) for i, label in enumerate(labels, 1))
    return "data_%s\n\nloop_\n%s%s\n\n" % (name, head, "\n".join(" ".join(r) for r in rows))


SOUND = ("# version 30001\n\n" + loop("optics", OPTICS, [GROUP])
         + loop("particles", LABELS, [row(i) for i in range(N)]))
assert SOUND.splitlines()[-4].startswith("000002@")
LAST = " ".join(row(3))


def read(folder, content):
    """The particles of a text, written into the folder as x.star."""
    star = folder / "x.star"
    star.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_particles(str(star))


def arrays(particles):
    """All that is read of particles."""
    return [particles.ids, particles.rotation, particles.shift_angst, particles.ctf, particles.half,
            particles.read(np.arange(len(particles)))]


def changed(label, value, i=2, text=SOUND):
    """The sound file with another value in one column of particle row i + 1."""
    words = row(i)
    words[LABELS.index(label)] = value
    return text.replace(" ".join(row(i)), " ".join(words))


def optics(label, value):
    """The sound file with another value in one column of the optics table."""
    words = list(GROUP)
    words[OPTICS.index(label)] = value
    return SOUND.replace(" ".join(GROUP), " ".join(words))


def without(label):
    """The sound file without a label, its values left."""
    return re.sub(label + r" #\d+\n", "", SOUND)


def wrapped():
    """The sound file with row 2 on two lines."""
    words = row(1)
    return SOUND.replace(" ".join(words), " ".join(words[:6]) + "\n" + " ".join(words[6:]))


#: message about the value of a column in row 3
IN_ROW_3 = r"x.star: column %s of particle row 3 \(000003@s.mrcs\) holds '%s', expected "


def assert_refused(folder, content, message):
    """Reading is refused with one sentence that matches `message` and names the file."""
    assert content != SOUND
    with pytest.raises(ParticleError, match=message) as refusal:
        read(folder, content)
    assert "x.star" in str(refusal.value) and "\n" not in str(refusal.value)
