"""The Gaussian mixture: centres, amplitudes, widths; its map and its file formats."""
import os
from dataclasses import dataclass
from typing import Any, Optional, Protocol, Sequence, Tuple, Union

import numpy as np

from gmmhet.engine.gmm.labels import Choice, Labels

#: chain of Gaussians that no atom stands behind, in the mmCIF of a model made from atoms
UNLABELLED = "GMM"
#: columns of the mmCIF loop of atoms
ATOM_SITE = ("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id",
             "label_asym_id", "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y",
             "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num")

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Mixture:
    """A sum of N isotropic Gaussians.

    Attributes
    ----------
    centers : float32 [N, 3], x, y, z in Å from the box centre.
    amplitudes : float32 [N], integral of each Gaussian.
    widths : float32 [N], standard deviation, Å.
    labels : Labels or None, chains and residues of an atomic model that the Gaussians stand for.
    """

    centers: np.ndarray
    amplitudes: np.ndarray
    widths: np.ndarray
    labels: Optional[Labels] = None

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def radius_angst(self) -> float:
        """Distance from the box centre that holds all centres and two widths around them."""
        return float(np.max(np.linalg.norm(self.centers, axis=1) + 2 * self.widths))

    def select(self, choice: Choice) -> "Mixture":
        """The mixture of the chosen Gaussians."""
        labels = self.labels.select(choice) if self.labels else None
        return Mixture(self.centers[choice], self.amplitudes[choice], self.widths[choice], labels)

    def save(self, path: Path, **extra: Any) -> None:
        """Write an npz with centers, amplitudes, widths, the labels' arrays and any `extra` ones."""
        labels = self.labels.arrays() if self.labels else {}
        np.savez(path, centers=np.float32(self.centers), amplitudes=np.float32(self.amplitudes),
                 widths=np.float32(self.widths), **labels, **extra)

    @classmethod
    def load(cls, path: Path) -> "Mixture":
        """Read what `save` wrote."""
        with np.load(path) as data:
            return cls(data["centers"], data["amplitudes"], data["widths"], Labels.from_arrays(data))


class MixtureDecoder(Protocol):
    """What decodes latent points into mixtures of N Gaussians: a trained model, as seen by who only looks at
    what it decodes."""

    @property
    def neutral(self) -> Mixture:
        """The neutral mixture."""
        ...

    @property
    def free(self) -> np.ndarray:
        """Gaussians that may vary, bool [N]."""
        ...

    @property
    def box(self) -> int:
        """Box of the particles, px."""
        ...

    @property
    def pixel_size(self) -> float:
        """Å/px."""
        ...

    def decode(self, z: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centres [B, N, 3], amplitudes [B, N] and widths [B, N] at latent points [B, D]."""
        ...

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        """Derivative of the centres by a latent point [D], [N, 3, D] in Å."""
        ...


def render(mixture: Mixture, box: int, pixel_size: float) -> np.ndarray:
    """Density map of a mixture, float32 [L, L, L] indexed [z, y, x], with the origin at voxel L//2.

    Each Gaussian is the product of three one-dimensional ones, sampled at the voxel centres, as in
    `imaging.projection`. The value is density per Å^3 times the voxel's volume over its depth, so that the
    sum along z is the projection.
    """
    axis = (np.arange(box) - box // 2) * pixel_size
    widths = mixture.widths[:, None]
    norm = 1.0 / (np.sqrt(2 * np.pi) * widths)

    def along(i: int) -> np.ndarray:
        """The Gaussians along one axis, [N, L]."""
        distance = axis[None] - mixture.centers[:, i:i + 1]
        return np.asarray(norm * np.exp(-0.5 * (distance / widths) ** 2)).astype(np.float32)
    x, y, z = (along(i) for i in range(3))
    z = z * (mixture.amplitudes[:, None] * pixel_size).astype(np.float32)
    volume = np.empty((box, box, box), np.float32)
    for row in range(box):
        volume[:, row] = z.T @ (y[:, row:row + 1] * x)
    return volume


def write_cif(path: Path, mixture: Mixture, name: str = "gmm") -> None:
    """Pseudo-atoms as mmCIF: one atom a Gaussian; occupancy is amplitude over the largest, B factor is 8 pi^2
    s^2.

    Residue numbers are the Gaussians' numbers from 1; chains are those of the labels, else all A.
    """
    write_cif_models(path, [mixture], name)


def write_cif_models(path: Path, mixtures: Sequence[Mixture], name: str = "gmm") -> None:
    """Several mixtures of equal length as the models of one mmCIF file (a trajectory)."""
    top = max(float(np.max(np.abs(m.amplitudes))) for m in mixtures)
    with open(path, "w", encoding="ascii") as f:
        f.write("data_%s\n#\nloop_\n" % name + "".join("_atom_site.%s\n" % c for c in ATOM_SITE))
        serial = 0
        for model, mixture in enumerate(mixtures, 1):
            occupancy = mixture.amplitudes / top if top > 0 else mixture.amplitudes
            bfactor = 8 * np.pi**2 * mixture.widths**2
            chains = _cif_chains(mixture)
            for i, (x, y, z) in enumerate(mixture.centers):
                serial += 1
                f.write("HETATM %d C GMM . GMM %s 1 %d ? %.3f %.3f %.3f %.4f %.2f %d %s %d\n" % (
                    serial, chains[i], i + 1, x, y, z, occupancy[i], bfactor[i], i + 1, chains[i], model))
        f.write("#\n")


def _cif_chains(mixture: Mixture) -> Sequence[str]:
    """The chain of each Gaussian as an mmCIF value: quoted where it is not plain letters and digits."""
    if not mixture.labels:
        return ["A"] * len(mixture)
    names = [name or UNLABELLED for name in mixture.labels.chain.tolist()]
    return [name if name.isalnum() else "'%s'" % name for name in names]
