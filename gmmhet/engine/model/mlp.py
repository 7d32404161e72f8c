"""Fully connected networks, in Keras."""
import tensorflow as tf

keras = tf.keras


def mlp(inputs, hidden, outputs, seed, dropout=0.0, batch_norm=False, zero_last=False, l2=0.0, last_scale=1.0):
    """A ReLU network.

    Parameters
    ----------
    inputs, outputs : int, sizes.
    hidden : sequence of int.
    seed : int, of the initial weights and of the dropout.
    dropout : float, rate before the last layer.
    batch_norm : bool, batch normalisation before the last layer (paper).
    zero_last : bool, the last layer starts at zero.
    l2 : float, weight decay added to the loss.
    last_scale : float, size of the last layer's initial weights against the usual ones.
    """
    decay = keras.regularizers.L2(l2) if l2 > 0 else None
    stack = [keras.layers.Input((inputs,))]
    for i, width in enumerate(hidden):
        stack.append(keras.layers.Dense(width, activation="relu", kernel_regularizer=decay,
                                        kernel_initializer=keras.initializers.HeNormal(seed=seed + i)))
    if dropout > 0:
        stack.append(keras.layers.Dropout(dropout, seed=seed))
    if batch_norm:
        stack.append(keras.layers.BatchNormalization())
    last = "zeros" if zero_last else keras.initializers.VarianceScaling(last_scale**2, seed=seed + 100)
    stack.append(keras.layers.Dense(outputs, kernel_initializer=last, kernel_regularizer=decay))
    return keras.Sequential(stack)
