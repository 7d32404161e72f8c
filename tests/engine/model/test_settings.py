"""What a run asked its model to be: frozen, written and read, and the presets."""
import dataclasses
import json

import pytest
from untrained import plain_likelihood, settings

from gmmhet.engine.config import TrainConfig
from gmmhet.engine.model.settings import PRESETS, ModelSettings, NetworkSettings, with_preset


@pytest.mark.parametrize("preset", list(PRESETS))
def test_settings_come_back_from_their_json(preset):
    made = settings(["position", "width"], plain_likelihood(24, 5.0), preset, network=dict(draws=7),
                    latent_dim=3,
                    rigid=True, symmetry="c3")
    again = ModelSettings.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and isinstance(again.parameters, tuple) and isinstance(again.network.hidden, tuple)


def test_settings_of_a_name_that_is_not_known_are_refused():
    values = settings(["position"], None).to_json()
    for wrong in (dict(values, colour="red"), dict(values, network=dict(values["network"], colour="red"))):
        with pytest.raises(TypeError, match="colour"):
            ModelSettings.from_json(wrong)


def test_settings_never_change():
    made = settings(["position"], None)
    for owner, name in ((made, "latent_dim"), (made.network, "draws")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(owner, name, 2)


def test_every_network_has_the_default_preset_s_values_where_it_says_nothing_else():
    assert PRESETS["default"].network == NetworkSettings() and not PRESETS["default"].flags


def test_the_paper_s_preset_has_the_paper_s_networks_and_rates():
    paper = with_preset(TrainConfig(preset="paper"))
    network = PRESETS["paper"].network
    assert (network.hidden, network.dropout, network.batch_norm, network.l2) == ((512,) * 4, 0.3, True, 1e-3)
    assert not (network.variational or network.n_axes or network.linear_decoder or network.consensus_shift)
    assert (paper.objective, paper.learning_rate, paper.batch_size, paper.smoothness) == ("frc", 1e-4, 8, 0.0)


def test_a_preset_sets_what_was_left_at_its_default_and_nothing_else():
    asked = TrainConfig(preset="paper", batch_size=12, epochs=7)
    found = with_preset(asked)
    assert (found.batch_size, found.epochs, found.latent_steps) == (12, 7, 0) and asked.latent_steps != 0
    assert with_preset(TrainConfig(epochs=7)) == TrainConfig(epochs=7)
