"""The encoder: from standardised gradients to the latent posterior."""

#: log standard deviation of the latent posterior stays in this range
LOG_STD_RANGE, LOG_STD_OFFSET = (-5.0, 1.0), 1.0


def kept_axes(most, sizes):
    """Axes of every column's subspace that the encoder is given, of columns of these sizes; none where `most` is 0."""
    return [min(most // len(sizes), size) for size in sizes]
