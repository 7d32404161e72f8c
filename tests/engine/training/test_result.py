"""What a training leaves: latent points of every particle, how sure they are, and the better single model."""
from types import SimpleNamespace

import numpy as np
import pytest
from commands import latents
from scipy.stats import spearmanr
from tiny_training import tiny_model, tiny_staged, tiny_trainer

from gmmhet.engine.inference.latent_posterior import gaussian_prior, unit_prior
from gmmhet.engine.latents import Latents
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.continuation import EarlierLatents
from gmmhet.engine.training.result import SingleOfStage, Trained, infer_result

# ---- of a whole run

def test_latent_points_say_how_sure_they_are(hinge_run):
    found = latents(hinge_run)
    assert found.z_covariance.shape == (1000, 4, 4) and np.all(np.linalg.eigvalsh(found.z_covariance) > 0)
    np.testing.assert_allclose(np.sqrt(np.einsum("ndd->nd", found.z_covariance)), found.z_std, rtol=1e-5)
    assert found.z.shape == found.z_std.shape == (1000, 4) and np.all(found.z_std > 0)
    to_trained = load_model(str(hinge_run)).latent_scales.inverse
    as_trained = to_trained.rescale_covariance(found.z, found.z_covariance)
    assert np.all(np.einsum("ndd->nd", as_trained) < 1.5**2)      # there the prior is 1 wide
    assert found.agreement.mean() > found.neutral_agreement.mean()
    assert abs(spearmanr(found.z[:, 0], np.arange(1000))[0]) < 0.1


def test_z_is_on_a_uniform_scale_and_names_the_same_conformations_as_what_was_trained(hinge_run):
    model, z = load_model(str(hinge_run)), latents(hinge_run).z
    trained = model.latent_scales.inverse.rescale(z)
    for a, b in zip(model.decode(z[:50]), model.as_trained().decode(trained[:50])):
        np.testing.assert_allclose(a, b, atol=1e-3)

    def unevenness(model, z):
        """Largest over smallest rms step of the decoded centers, between equal steps along the axis that
        varies most."""
        axis = z.std(0).argmax()
        line = np.zeros((9, z.shape[1]))
        line[:, axis] = np.linspace(*np.quantile(z[:, axis], [0.02, 0.98]), 9)
        steps = np.sqrt((np.diff(model.decode(line).centers, axis=0) ** 2).sum(2).mean(1))
        return steps.max() / steps.min()
    assert unevenness(model, z) < unevenness(model.as_trained(), trained)


# ---- latent points of a training

def earlier_latents(views, dimension):
    """Latent points of earlier stages, made up."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(views, dimension)).astype(np.float32)
    return EarlierLatents(z, np.tile(0.1 * np.eye(dimension, dtype=np.float32), (views, 1, 1)))


@pytest.fixture(scope="module")
def one_parameter(small, tmp_path_factory):
    """A training of positions that keeps the encoder's z."""
    model, folder = tiny_model(parameters=["position"]), tmp_path_factory.mktemp("one")
    trainer = tiny_trainer(small, folder, model, particles=12)
    return infer_result(trainer, earlier_latents(12, 0), 0)


def test_without_steps_z_is_what_the_encoder_says_on_the_scale_of_the_model(one_parameter):
    trained, model = one_parameter, one_parameter.model
    encoded = model.encode(trained.trainer.data.inputs.features).mean.numpy()
    np.testing.assert_allclose(trained.as_trained.z, encoded, atol=1e-5)
    np.testing.assert_allclose(trained.latents.z, model.latent_scale.rescale(encoded), atol=1e-4)
    np.testing.assert_array_equal(trained.latents.encoded, trained.latents.z)
    np.testing.assert_array_equal(trained.latents.ids, trained.views.ids)
    np.testing.assert_array_equal(trained.latents.held_out, trained.trainer.data.held_out)
    assert trained.latents.z.dtype == trained.latents.encoded.dtype == np.float32


def test_the_prior_of_a_variational_training_is_the_unit_normal(one_parameter):
    expected = unit_prior(2)
    for ours, theirs in zip(one_parameter.prior, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_of_networks_without_a_posterior_the_prior_is_the_spread_of_what_was_learned_from(small, tmp_path):
    trainer = tiny_trainer(small, tmp_path, tiny_model(dict(variational=False)), particles=12)
    found = infer_result(trainer, earlier_latents(12, 0), 0)
    assert found.model.latent_scale is None
    expected = gaussian_prior(found.latents.encoded[~trainer.data.held_out])
    for ours, theirs in zip(found.prior, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


# ---- the better single model

def trained_with(model, neutral_evidence, static_evidence, held_out, prior=None):
    """What a training of four particles would leave."""
    views = SimpleNamespace(of=lambda rows: rows[:, None])
    latents = Latents(np.arange(4), np.zeros(4, int), np.zeros((4, model.latent_dim), np.float32),
                      held_out=np.array(held_out))
    as_trained = SimpleNamespace(neutral_evidence=np.array(neutral_evidence, float),
                                 static_evidence=np.array(static_evidence, float))
    trainer = SimpleNamespace(model=model, data=SimpleNamespace(inputs=SimpleNamespace(views=views)))
    return Trained(trainer, latents, as_trained, prior or unit_prior(model.n_stage))


@pytest.mark.parametrize("held_out,stays", [
    ([True, False, False, True], True), ([False, True, True, False], False)])
def test_the_single_model_is_what_explains_held_out_particles_better(held_out, stays):
    model = tiny_model()
    found = trained_with(model, [5, 1, 1, 5], [2, 3, 3, 2], held_out).single_model()
    assert isinstance(found, SingleConformation)
    expected = model.neutral if stays else model.decode(np.zeros((1, 2)))
    for name, at in (("centers", (0, slice(None))), ("amplitudes", 0), ("widths", 0)):
        wanted = np.asarray(getattr(expected, name))
        np.testing.assert_allclose(getattr(found.mixture, name), wanted if stays else wanted[0], atol=1e-5)


def test_the_prior_s_mean_is_that_of_the_scale_that_is_trained():
    model, prior = tiny_model(), gaussian_prior(np.random.default_rng(0).normal(1, 1, (50, 2)))
    model.latent_scale = None
    found = trained_with(model, [0] * 4, [1] * 4, [True] * 4, prior).single_model()
    np.testing.assert_allclose(found.mixture.centers, model.decode(prior.mean[None]).centers[0], atol=1e-4)


@pytest.mark.parametrize("stays", [True, False])
def test_in_a_further_stage_every_particle_keeps_its_earlier_conformation(stays):
    model = tiny_staged()
    trained = trained_with(model, [1.0 * stays] * 4, [0.5] * 4, [True] * 4)
    trained.latents.z[:, :3] = np.random.default_rng(0).normal(size=(4, 3))
    found = trained.single_model()
    assert isinstance(found, SingleOfStage) and found.stays == stays
    rows = np.array([3, 1])
    mixtures, earlier = found.at(rows), model.earlier.decode(trained.latents.z[rows, :3])
    np.testing.assert_allclose(mixtures.amplitudes[:, 15:], earlier.amplitudes[:, 15:], rtol=1e-5)
    moved = np.abs(np.asarray(mixtures.centers) - model.neutral.centers).max((0, 2))
    assert np.all((moved > 1e-4) == (model.free & (not stays)))
