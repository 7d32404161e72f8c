"""Image formation: Fourier grids, poses, contrast transfer, projection of Gaussian mixtures."""
