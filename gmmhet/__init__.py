"""gmmhet: Gaussian-mixture heterogeneity analysis of cryo-EM particles, on the command line and in Scipion.

Importing ``gmmhet.engine`` never imports Scipion: the class of the Scipion plugin is imported only when
somebody asks for it (PEP 562).
"""
from typing import Any

__version__ = "0.1.0"
_logo = "logo.png"
_references = ["Chen2021", "McInnes2018"]

_FROM_PLUGIN = ("Plugin",)


def __getattr__(name: str) -> Any:
    """Import ``gmmhet.Plugin`` (which needs Scipion) on first use only."""
    if name in _FROM_PLUGIN:
        from gmmhet.plugin import Plugin
        return Plugin
    raise AttributeError("module 'gmmhet' has no attribute %r" % name)
