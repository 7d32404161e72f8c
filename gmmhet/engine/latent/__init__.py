"""Reading the landscape: embedding, clusters, trajectories, localised motion."""


class LatentError(ValueError):
    """The latent points, or what was asked of them, cannot be used; the message says why and what to do."""
