"""A step of the optimizer: which way it goes, what counts in it, and the running averages of the weights."""
from types import SimpleNamespace

import numpy as np
from tiny_training import tiny_batch, tiny_model

from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.model.saved import values_of
from gmmhet.engine.objective.description_length import DescriptionLength
from gmmhet.engine.objective.elbo import Elbo
from gmmhet.engine.training.optimizer_step import LAST_RATE, Objective, OptimizerStep, StepKind

ONE_DRAW = StepKind(coarse=False, several_draws=False, with_poses=False)
SEVERAL_DRAWS = ONE_DRAW._replace(several_draws=True)


def optimizer_step(model, objective="likelihood", description_weight=0.0, **config):
    """The steps of a training of a model, of four steps an epoch."""
    elbo = Elbo(model, model.likelihood.by(objective), 0.0)
    described = Objective(elbo, elbo, DescriptionLength(model), description_weight, 100)
    asked = SimpleNamespace(**{**dict(seed=1, learning_rate=0.01, epochs=25), **config})
    return OptimizerStep(model, described, None, asked, 4, Devices())


def changed(model, before):
    """Names of the weights that are not what they were."""
    return {name for name, value in values_of(model.named_weights()).items()
            if not np.array_equal(value, before[name])}


def test_steps_raise_the_bound_of_what_they_learn_from_and_only_by_what_is_trained():
    model = tiny_model(amplitude=100.0)
    step, batch, before = optimizer_step(model), tiny_batch(model, 6), values_of(model.named_weights())
    terms = [step(ONE_DRAW, 6, batch, 1.0) for _ in range(30)]
    assert terms[0].bound.shape == terms[0].kl.shape == (6,) and terms[0].pose_change.shape == (6, 0)
    assert np.mean(terms[-1].bound) > np.mean(terms[0].bound) + 1
    trained = {id(variable) for variable in model.trainable}
    assert changed(model, before) == {n for n, v in model.named_weights().items() if id(v) in trained}


def test_particles_that_fill_a_batch_up_do_not_count():
    models = [tiny_model() for _ in range(2)]
    whole = tiny_batch(models[0], 6)
    filled = type(whole)(*(None if part is None else np.resize(part, (8, *part.shape[1:])) for part in whole))
    filled.images[6:] *= -50
    filled = filled._replace(weight=np.float32([1 / 6] * 6 + [0, 0]))
    for model, batch in zip(models, (whole, filled)):
        terms = optimizer_step(model)(ONE_DRAW, 6, batch, 1.0)
        assert terms.bound.shape == (6,)
    first, second = (values_of(model.named_weights()) for model in models)
    for name, value in first.items():      # Adam's first step is of the rate's length whatever the gradient's
        np.testing.assert_allclose(value, second[name], atol=2e-3, err_msg=name)
    assert changed(models[0], values_of(tiny_model().named_weights()))


def test_averages_are_of_the_weights_after_every_step_and_of_an_epoch_once_there_were_more():
    model = tiny_model()
    step, batch, kernels = optimizer_step(model), tiny_batch(model, 4), []
    kernel, average = model.trainable[0], step.averages[0]
    for count in range(1, 7):
        step(ONE_DRAW, 4, batch, 1.0)
        kernels.append(kernel.numpy())
        expected = np.mean(kernels[:4], 0)
        for later in kernels[4:]:      # four steps an epoch
            expected = expected + (later - expected) / 4
        np.testing.assert_allclose(average, expected, atol=1e-6)
    assert len(step.averages) == len(model.trainable)
    step.exchange_averages()
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    np.testing.assert_array_equal(average, kernels[-1])
    step.exchange_averages()
    np.testing.assert_array_equal(kernel, kernels[-1])
    step.restart_averages()
    np.testing.assert_array_equal(average, kernel)


def test_networks_without_averages_are_exchanged_for_nothing():
    model = tiny_model(dict(averages_weights=False))
    step, before = optimizer_step(model), values_of(model.named_weights())
    step.exchange_averages()
    assert step.averages == [] and not changed(model, before)


def test_the_learning_rate_falls_along_a_cosine_to_its_last_share():
    model = tiny_model()
    step = optimizer_step(model, learning_rate=0.02, epochs=2)      # eight steps
    rates = []
    for count in range(10):
        step.optimizer.iterations.assign(count)
        rates.append(step.learning_rate)
    wave = 0.5 * (1 + np.cos(np.pi * np.minimum(np.arange(10) / 8, 1)))
    np.testing.assert_allclose(rates, 0.02 * (LAST_RATE + (1 - LAST_RATE) * wave), rtol=1e-5)


def test_without_a_likelihood_nothing_is_learned_of_the_consensus():
    model = tiny_model()
    step, before = optimizer_step(model, "frc"), values_of(model.named_weights())
    step(ONE_DRAW, 4, tiny_batch(model, 4), 1.0)
    assert model.consensus_shift is not None and "consensus_shift" not in changed(model, before)
    assert {"encoder", "decoder"} <= {name.split(".")[0] for name in changed(model, before)}
    assert len(step.averages) == len(model.trainable) - 1


def test_several_draws_teach_encoder_and_decoder_too():
    model = tiny_model()
    step, batch, before = optimizer_step(model), tiny_batch(model, 4), values_of(model.named_weights())
    draws = np.random.default_rng(0).normal(size=(4, 1, 3, model.n_stage + 1)).astype(np.float32)
    terms = step(SEVERAL_DRAWS, 4, batch._replace(noise=draws), 1.0)
    assert terms.bound.shape == (4,) and np.all(np.isfinite(terms.bound))
    parts = {name.split(".")[0] for name in changed(model, before)}
    assert parts == {"encoder", "decoder", "consensus_shift"}


def test_what_a_nat_of_description_costs_makes_the_decoder_shorter_as_far_as_it_counts():
    nats = []
    for warmth in (0.0, 1.0):
        model = tiny_model()
        step, batch = optimizer_step(model, description_weight=1e4), tiny_batch(model, 4)
        for _ in range(20):
            step(ONE_DRAW, 4, batch, warmth)
        points = np.random.default_rng(0).normal(size=(32, model.n_stage)).astype(np.float32)
        nats.append(float(DescriptionLength(model)(points, 100)))
    assert nats[1] < 0.9 * nats[0]


def test_what_is_kept_of_the_steps_has_names():
    step = optimizer_step(tiny_model())
    named = step.named_weights()
    assert len(named) == len(step.optimizer.variables) + len(step.averages)
    assert set(named) == {"optimizer.%d" % i for i in range(len(step.optimizer.variables))} | {
        "average.%d" % i for i in range(len(step.averages))}
    assert named["average.1"] is step.averages[1]
