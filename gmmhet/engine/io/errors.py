"""Errors of files that cannot be used; each message says which file, what was expected, what came and what to do."""


class ParticleError(ValueError):
    """A star file or an image stack cannot be used."""


class MapError(ValueError):
    """A map cannot be used."""


def listing(values, most=5):
    """``a, b, c, ... (12 in all)`` for a message."""
    values = list(values)
    text = ", ".join(str(v) for v in values[:most])
    return text if len(values) <= most else "%s, ... (%d in all)" % (text, len(values))
