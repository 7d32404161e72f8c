"""Gaussian mixtures: the model itself, where to seed it, which part of it may vary."""
