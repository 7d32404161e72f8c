"""What is inferred of each particle given a decoder: latent posterior, pose and its error, cluster."""
