"""Particle sets: RELION star files and EMAN2 lists in, posed particles with CTF and optics groups out."""
