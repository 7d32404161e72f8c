"""Description length of the decoder: automatic relevance determination and minimum description length."""
import tensorflow as tf

#: errors that an output makes, which is a curve over latent points: of its mean, its slope and its bend
ERRORS = 3
#: variance, in errors of estimation, below which nothing is told from 0
LEAST_VARIANCE = 0.01


def told(squares):
    """What it takes to tell an output, of many whose mean square is x in errors of estimation: ``min_t 3 x / t + log(1 + t)`` half nats.

    t is the variance that their prior has, and 1 + t that of what is estimated of them: the cost of automatic relevance determination
    (MacKay 1992; Tipping 2001), which brings to 0 what is no larger than its error, and hardly changes what is much larger. x counts
    three times because what follows noise alone has three errors (ERRORS), not one, and is to come to nothing.
    """
    squares = ERRORS * squares
    variance = 0.5 * (squares + tf.sqrt(squares * (squares + 4) + LEAST_VARIANCE**2))
    return squares / variance + tf.math.log1p(variance) - tf.math.log1p(0.5 * LEAST_VARIANCE)


def told_together(squares, members):
    """`told` of all numbers where groups share a variance: squares [M, C] of C numbers of each of M things, members [M, K] of groups."""
    size = members.sum(0)
    mean = tf.matmul(members, tf.reduce_mean(squares, 1, keepdims=True), transpose_a=True)[:, 0] / size
    return squares.shape[1] * tf.reduce_sum(size * told(mean))
