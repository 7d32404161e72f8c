"""Is the heterogeneity real? Held-out evidence, controls, leakage, the verdict and its page."""
