"""From a posed mixture to the likelihood of an image: forward model, agreement, noise, homogeneous images."""
