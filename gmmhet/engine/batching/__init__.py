"""Batches of particles and the devices that share them."""
