"""Orientations refined against each particle's own conformation."""
