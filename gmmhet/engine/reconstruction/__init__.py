"""Plain reconstruction of particles: the evidence for what a model claims."""
