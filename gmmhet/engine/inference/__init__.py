"""What is inferred of each particle once the decoder is fixed: latent posterior, pose, cluster."""
