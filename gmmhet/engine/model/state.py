"""What training finds out about a model, beside its weights: which parameters vary, and which extra terms are
on."""
from typing import Any

import numpy as np
import tensorflow as tf


class ModelState:
    """Switches of the decoder that training sets; its settings are what was asked for.

    Attributes
    ----------
    gates : tf.Variable [parameters], from 0 to 1: how much of what the decoder says of each parameter counts.
    linear_on : tf.Variable, 1 where encoder and decoder began with the linear answer (see `initialization`).
    consensus_shift_on : tf.Variable, 1 where the learned consensus counts.
    low_signal : whether the linear answer says little of any one particle.
    removes_rigid_motion : whether the overall rigid motion is taken out of every displacement.
    sharpens : whether the consensus is sharpened by what the motion blurs.
    """

    def __init__(self, parameters: int, removes_rigid_motion: bool, sharpens: bool) -> None:
        self.gates = tf.Variable(tf.ones([parameters]), trainable=False)
        self.linear_on = tf.Variable(0.0, trainable=False)
        self.consensus_shift_on = tf.Variable(1.0, trainable=False)
        self.low_signal = False
        self.removes_rigid_motion, self.sharpens = removes_rigid_motion, sharpens

    @property
    def linear(self) -> bool:
        """Whether encoder and decoder began with the linear answer."""
        return bool(self.linear_on.numpy())

    def set_gates(self, leading: int, share: float) -> None:
        """Let parameter number `leading` vary, and this share of what the decoder says of the others."""
        self.gates.assign(np.where(np.arange(self.gates.shape[0]) == leading, 1.0, share))

    def named_weights(self) -> dict[str, Any]:
        """The variables by name."""
        return dict(gates=self.gates, linear_on=self.linear_on, consensus_shift_on=self.consensus_shift_on)

    def to_json(self) -> dict[str, bool]:
        """The other values, by name."""
        return dict(low_signal=self.low_signal, removes_rigid_motion=self.removes_rigid_motion,
                    sharpens=self.sharpens)

    def load_json(self, values: dict[str, bool]) -> None:
        """Take what `to_json` gave."""
        for name in self.to_json():
            setattr(self, name, bool(values[name]))
