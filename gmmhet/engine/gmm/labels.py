"""Which chain and residues of an atomic model each Gaussian stands for."""
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

#: what chooses Gaussians: their numbers from 0, bool [N], or a slice
Choice = Union[np.ndarray, slice, Sequence[int]]


@dataclass(frozen=True)
class Labels:
    """Chains and residues of N Gaussians.

    Attributes
    ----------
    chain : str array [N], author's chain names; empty for a Gaussian that no atom stands behind.
    gaussian : int32 [E], Gaussian (from 0) of each entry of the table that follows: one entry per Gaussian
        and residue.
    residue : int32 [E], residue number in the Gaussian's chain.
    mass : float32 [E], atomic mass of that residue in that Gaussian.
    """

    chain: np.ndarray
    gaussian: np.ndarray
    residue: np.ndarray
    mass: np.ndarray

    def __len__(self) -> int:
        return len(self.chain)

    def names(self) -> List[str]:
        """Chain names, in the order in which they appear."""
        return list(dict.fromkeys(name for name in self.chain.tolist() if name))

    def residue_range(self, chain: str) -> Tuple[int, int]:
        """First and last residue number of a chain."""
        residues = self.residue[self.chain[self.gaussian] == chain]
        return int(residues.min()), int(residues.max())

    def within(self, chain: str, first: int, last: int) -> np.ndarray:
        """Gaussians of a chain that have at least half of their mass in residues first to last: bool [N]."""
        in_chain = self.chain == chain
        total = np.bincount(self.gaussian, self.mass, len(self))
        in_range = (self.residue >= first) & (self.residue <= last)
        mass = np.bincount(self.gaussian, self.mass * in_range, len(self))
        return np.asarray(in_chain & (mass >= 0.5 * total) & (total > 0))

    def select(self, choice: Choice) -> "Labels":
        """The labels of the chosen Gaussians."""
        rows = np.arange(len(self))[choice]
        new_number = np.full(len(self), -1)
        new_number[rows] = np.arange(len(rows))
        entry = new_number[self.gaussian] >= 0
        gaussian = new_number[self.gaussian][entry].astype(np.int32)
        return Labels(self.chain[rows], gaussian, self.residue[entry], self.mass[entry])

    def extend(self, count: int) -> "Labels":
        """The same labels followed by `count` Gaussians that no atom stands behind."""
        chain = np.concatenate([self.chain, np.full(count, "", self.chain.dtype)])
        return Labels(chain, self.gaussian, self.residue, self.mass)

    def arrays(self) -> Dict[str, np.ndarray]:
        """The arrays under the names that they have in gmm.npz."""
        return dict(chain=self.chain, residue_gaussian=self.gaussian, residue=self.residue,
                    residue_mass=self.mass)

    @classmethod
    def from_arrays(cls, data: Mapping[str, np.ndarray]) -> Optional["Labels"]:
        """What `arrays` gave, from an npz; None where it holds no labels."""
        if "chain" not in data:
            return None
        return cls(data["chain"], data["residue_gaussian"], data["residue"], data["residue_mass"])
