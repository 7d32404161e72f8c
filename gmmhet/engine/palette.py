"""What the figures of all stages and viewers share: their colours, and from which motion on they speak of
motion.

Standard library only and Python 3.8, because Scipion draws too.
"""

#: text and main lines; secondary text and axes; background; rules
INK, FAINT, PAPER, RULE = "#22303c", "#8795a1", "#ffffff", "#d5dbe1"
#: of two kinds: the plain one and the one to look at
BLUE, RED = "#2e6f9e", "#c8443c"
#: clusters, classes and curves, by number
CLASSES = ("#d1495b", "#00798c", "#edae49", "#5f4b8b", "#3a7d44", "#e07a1f", "#2e86ab", "#9b5094", "#7a5c3e",
           "#6b7280")
#: colour maps: of densities of points and other values, of maps, of lengths, of what is above and below 0
VALUES, GREYS, LENGTHS, SIGNED = "viridis", "Greys", "plasma_r", "RdBu_r"
#: points of no class
NO_CLASS = "#b4bec6"
#: bars of motion, of amplitude changes, of explained variance
MOTION, AMPLITUDE, VARIANCE = "#3a7d44", "#8a6d9f", "#5b7c99"
#: particles and controls; what speaks for heterogeneity and against it
REAL, SPURIOUS, FOR, AGAINST = "#00798c", "#b9c2ca", "#3a7d44", "#b3432f"
#: Å rms, below which a model counts as one in which only amplitudes vary
LEAST_MOTION_ANGST = 0.02


def class_colour(number: int) -> str:
    """Colour of class, cluster or curve `number`, from 1."""
    return CLASSES[(int(number) - 1) % len(CLASSES)]
