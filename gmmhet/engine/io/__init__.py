"""Files in, arrays out: maps, image stacks, arrays, scripts for ChimeraX."""
