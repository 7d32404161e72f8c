"""What training starts from: encoder input, probabilistic PCA of it, and the linear start."""
