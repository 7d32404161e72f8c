"""Fitting: the neutral model to a map, the networks to particles, each particle's latent point to its
image."""
