"""Which epoch is kept, and when training stops: by what held-out particles gain."""
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: standard errors by which held-out particles have to be better explained with the consensus shift, by an
#: epoch than by the start, and by an earlier epoch than by a later one
SURE = 2.0


def standard_errors(differences: np.ndarray) -> float:
    """Mean of differences [n], in its standard errors."""
    error = max(float(np.std(differences)) / math.sqrt(len(differences)), sys.float_info.min)
    return float(np.mean(differences)) / error


def surely(differences: np.ndarray) -> bool:
    """Whether the mean of differences [n] is above 0 by SURE standard errors."""
    return standard_errors(differences) > SURE


@dataclass
class EarlyStopping:
    """What is known so far of the epochs of a training.

    Attributes
    ----------
    patience : epochs in a row that may be worse explained than the best one.
    best : row of the history of the epoch that is kept so far, of which epoch 0 is the start; None before
        anything was judged.
    peak : [n_held], the held-out particles' gains at the epoch with the highest mean; empty before.
    """

    patience: int
    best: "dict[str, Any] | None" = None
    peak: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def best_gain(self) -> float:
        """Mean gain of the epoch that is kept so far; -inf before."""
        return float(self.best["held_out_gain"]) if self.best else -np.inf

    def behind(self, gains: np.ndarray) -> float:
        """By how many standard errors held-out particles [n_held] gain less than at the best epoch so far; 0
        before."""
        return standard_errors(self.peak - gains) if len(self.peak) else 0.0

    def start(self, gains: np.ndarray) -> None:
        """Count what training starts from as its best epoch so far, number 0."""
        self.peak, self.best = gains, dict(epoch=0, held_out_gain=float(np.mean(gains)))

    def judge(self, row: dict[str, Any], gains: np.ndarray) -> bool:
        """Whether the networks of this row of the history, by which held-out particles [n_held] gain this,
        count from now on.

        A later epoch counts unless an earlier one was surely better: held-out particles are few, and the
        luckiest epoch of many that are alike may be one that had learned little yet. Than the start an epoch
        has to be surely better: from a weak signal many epochs learn mostly noise.
        """
        if self.best is None:
            kept = True
        elif self.best["epoch"] == 0:
            kept = surely(gains - self.peak)
        else:
            kept = not surely(self.peak - gains)
        if kept:
            self.best = row
            if not len(self.peak) or np.mean(gains) > np.mean(self.peak):
                self.peak = gains
        return kept

    def measured_again(self, gains: np.ndarray) -> None:
        """The gains of the best networks so far, by a tighter bound that counts from now on."""
        self.peak = gains
        if self.best is not None:
            self.best = dict(self.best, held_out_gain=float(np.mean(gains)))

    def out_of_patience(self, done: int, not_before: int) -> bool:
        """Whether after `done` epochs the best one is `patience` epochs ago, of those after epoch
        `not_before`."""
        return self.best is not None and done - max(self.best["epoch"], not_before) >= self.patience
