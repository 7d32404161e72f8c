"""Which epoch is kept, and when training stops: by held-out particles."""
import numpy as np

#: standard errors by which held-out particles have to be better explained with the base, by an epoch than by the start, and by an earlier
#: epoch than by a later one
SURE = 2.0


def standard_errors(differences):
    """Mean of differences [n], in its standard errors."""
    return float(np.mean(differences) / max(np.std(differences) / np.sqrt(len(differences)), np.finfo(float).tiny))


def surely(differences):
    """Whether the mean of differences [n] is above 0 by SURE standard errors."""
    return standard_errors(differences) > SURE
