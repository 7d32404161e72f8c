"""Errors of files that cannot be used; each message says which file, what was expected, what came and what to
do."""
from typing import Any, Iterable

#: values that a message lists
MOST_LISTED = 5


class ParticleError(ValueError):
    """A particle file or an image stack cannot be used."""


class MapError(ValueError):
    """A map cannot be used."""


def listing(values: Iterable[Any], most: int = MOST_LISTED) -> str:
    """``a, b, c, ... (12 in all)``: the first values for a message."""
    values = list(values)
    text = ", ".join(str(v) for v in values[:most])
    return text if len(values) <= most else "%s, ... (%d in all)" % (text, len(values))
