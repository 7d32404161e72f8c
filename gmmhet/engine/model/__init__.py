"""The networks and the geometry between them: encoder, decoder, deformation, symmetry."""
