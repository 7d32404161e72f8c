"""How images and maps are sampled, and whether two of them are sampled alike.

Standard library only and Python 3.8, because Scipion compares samplings too.
"""
from typing import NamedTuple

#: pixel sizes of a map and of particles that differ by less than this fraction are one: headers are rounded
SAME_PIXEL_SIZE = 1e-3


class Sampling(NamedTuple):
    """Box L (px) and pixel size (Å/px) of an image or a cubic map; written ``64 px of 1.5000 Å``."""

    box: int
    pixel_size: float

    def __str__(self) -> str:
        return "%d px of %.4f Å" % self

    @property
    def extent_angst(self) -> float:
        """Side of the field of view, Å."""
        return self.box * self.pixel_size

    def agrees(self, other: "Sampling", tolerance: float = SAME_PIXEL_SIZE) -> bool:
        """Whether both have one box, and pixel sizes that differ by at most a fraction `tolerance` of the
        other's."""
        same_pixel_size = abs(self.pixel_size - other.pixel_size) <= tolerance * other.pixel_size
        return self.box == other.box and bool(same_pixel_size)

    def difference(self, name: str, other: "Sampling", other_name: str) -> str:
        """``map.mrc has 32 px of 6.0000 Å, the particle set has 36 px of 6.0000 Å``, for a message."""
        return "%s has %s, %s has %s" % (name, self, other_name, other)
