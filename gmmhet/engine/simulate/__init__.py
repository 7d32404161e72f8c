"""Particles with known heterogeneity, the best that anybody could recover from them (the oracle), and how to
score a result."""
