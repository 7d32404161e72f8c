"""Small models whose decoder has random weights, for particles of 32 px of 6 Å."""
import numpy as np

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.settings import NETWORKS


def untrained(symmetry="c1", whole_unit=True, latent_dim=2, amplitude=300.0, **settings):
    """A model of 40 Gaussians, of which half may vary; their amplitude (each) says how much an image tells."""
    rng = np.random.default_rng(0)
    neutral = Mixture(np.float32(rng.normal(0, 25, (40, 3))), np.full(40, amplitude, np.float32), np.full(40, 8, np.float32))
    likelihood = Agreement(FourierGrid.to_resolution(32, 6.0), "likelihood", 150.0, np.ones(17), 1.0)
    model = HeterogeneityModel(neutral, np.arange(40) < 20, {
        **NETWORKS["default"], **dict(hidden=[8], columns=["amplitude", "position"], smoothness=15.0, latent_dim=latent_dim,
                                      latent_noise=0.1, seed=1, symmetry=symmetry, whole_unit=whole_unit, particles="p.star",
                                      likelihood=likelihood.state()), **settings})
    for variable in model.decoder.variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return model
