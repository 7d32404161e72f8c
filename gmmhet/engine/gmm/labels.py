"""Which chain and residues of an atomic model each Gaussian stands for."""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Labels:
    """Chains and residues of N Gaussians.

    Attributes
    ----------
    chain : str array [N], author's chain names; empty for a Gaussian that no atom stands behind.
    gaussian : int32 [E], Gaussian (from 0) of each entry of the table that follows: one entry per Gaussian and residue.
    residue : int32 [E], residue number in the Gaussian's chain.
    mass : float32 [E], atomic mass of that residue in that Gaussian.
    """

    chain: np.ndarray
    gaussian: np.ndarray
    residue: np.ndarray
    mass: np.ndarray

    def __len__(self):
        return len(self.chain)

    def names(self):
        """Chain names, in the order in which they appear."""
        return list(dict.fromkeys(name for name in self.chain.tolist() if name))

    def residue_range(self, chain):
        """First and last residue number of a chain."""
        found = self.residue[self.chain[self.gaussian] == chain]
        return int(found.min()), int(found.max())

    def within(self, chain, first, last):
        """Gaussians of a chain that have at least half of their mass in residues first to last: bool [N]."""
        ours = self.chain == chain
        total = np.bincount(self.gaussian, self.mass, len(self))
        chosen = np.bincount(self.gaussian, self.mass * ((self.residue >= first) & (self.residue <= last)), len(self))
        return ours & (chosen >= 0.5 * total) & (total > 0)

    def select(self, chosen):
        """The labels of the chosen Gaussians (index or bool array)."""
        kept = np.arange(len(self))[chosen]
        place = np.full(len(self), -1)
        place[kept] = np.arange(len(kept))
        entry = place[self.gaussian] >= 0
        return Labels(self.chain[kept], place[self.gaussian][entry].astype(np.int32), self.residue[entry], self.mass[entry])

    def extended(self, count):
        """The same labels followed by `count` Gaussians that no atom stands behind."""
        return Labels(np.concatenate([self.chain, np.full(count, "", self.chain.dtype)]), self.gaussian, self.residue, self.mass)

    def arrays(self):
        """The arrays under the names that they have in gmm.npz."""
        return dict(chain=self.chain, residue_gaussian=self.gaussian, residue=self.residue, residue_mass=self.mass)

    @classmethod
    def from_arrays(cls, data):
        """What `arrays` gave, from an npz; None where it holds no labels."""
        if "chain" not in data:
            return None
        return cls(data["chain"], data["residue_gaussian"], data["residue"], data["residue_mass"])
