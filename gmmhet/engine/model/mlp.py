"""Fully connected networks, in Keras."""
from typing import Any

import tensorflow as tf

from gmmhet.engine.model.settings import NetworkSettings

keras = tf.keras


def mlp(inputs: int, outputs: int, network: NetworkSettings, seed: int, last_scale: float) -> Any:
    """A fully connected ReLU network, its last layer linear.

    Parameters
    ----------
    inputs, outputs : sizes.
    network : its hidden layers, dropout and batch normalisation before the last layer, and weight decay.
    seed : of the initial weights and of the dropout.
    last_scale : size of the last layer's initial weights over the usual ones; 0 for zeros.

    Returns
    -------
    keras.Sequential
    """
    decay = keras.regularizers.L2(network.l2) if network.l2 > 0 else None
    stack = [keras.layers.Input((inputs,))]
    for i, width in enumerate(network.hidden):
        stack.append(keras.layers.Dense(width, activation="relu", kernel_regularizer=decay,
                                        kernel_initializer=keras.initializers.HeNormal(seed=seed + i)))
    if network.dropout > 0:
        stack.append(keras.layers.Dropout(network.dropout, seed=seed))
    if network.batch_norm:
        stack.append(keras.layers.BatchNormalization())
    last = keras.initializers.VarianceScaling(last_scale**2, seed=seed + 100) if last_scale > 0 else "zeros"
    stack.append(keras.layers.Dense(outputs, kernel_initializer=last, kernel_regularizer=decay))
    return keras.Sequential(stack)


def named_weights(network: Any) -> dict[str, Any]:
    """Every variable of a network, in its own order, by layer and name, such as 'layer2.kernel'."""
    return {"layer%d.%s" % (i, variable.name): variable for i, layer in enumerate(network.layers)
            for variable in layer.variables}
