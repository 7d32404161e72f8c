"""Particles and volumes: files in, arrays out."""
