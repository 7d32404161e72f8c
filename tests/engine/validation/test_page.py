"""The evidence page says the verdict and the figures, and which controls were not run."""
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gmmhet.engine.validation.page import Page, draw_history, evidence_figure
from gmmhet.engine.validation.verdict import verdict

FOUND = dict(particles=1000, held_out=100, seed=1, best_epoch=2, held_out_evidence=2.0,
             held_out_evidence_interval=[1.5, 2.5], landscape_weight=0.93, motion_rms_angst=2.0, warnings=[],
             predicts={"viewing direction": dict(r2=0.3, chance=0.01, p=0.005),
                       "defocus": dict(r2=-0.01, chance=0.002, p=0.4)})
NULL = dict(held_out_evidence=0.0, held_out_evidence_interval=[-0.1, 0.1], motion_rms_angst=0.02,
            share_of_motion=0.01)
HALVES = dict(displacement_correlation=0.8, shuffled=[0.01, 0.05])


@pytest.fixture
def page(tmp_path):
    rows = "epoch,training_gain,held_out_gain\n1,1.0,0.8\n2,2.0,1.5\n3,2.6,1.4\n"
    (tmp_path / "history.csv").write_text(rows)
    rng = np.random.default_rng(0)
    return Page(str(tmp_path / "history.csv"), rng.normal(2, 1, 100), rng.normal(size=(50, 2)),
                rng.uniform(-1, 1, (2, 50)))


@pytest.fixture
def without_controls(page):
    return replace(page, variates=None, correlations=None)


@pytest.mark.parametrize("best,gain,marked,label", [
    (2, 1.5, (2, 1.5), "epoch kept"), (0, 1.7, (0, 1.7), "start kept: none surely better")])
def test_the_epoch_that_was_kept_is_marked(page, best, gain, marked, label):
    axes = Figure().subplots()
    draw_history(axes, page.history, dict(FOUND, best_epoch=best, held_out_gain=gain))
    kept, = (line for line in axes.lines if line.get_label() == label)
    assert (kept.get_xdata()[0], kept.get_ydata()[0]) == marked


def words(found, page):
    figure = evidence_figure(dict(found, verdict=verdict(found)), page)
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_page_says_the_verdict_and_the_figures_of_every_control(page):
    text = words(dict(FOUND, null=NULL, half_sets=HALVES), page)
    for expected in ("Heterogeneity supported", "mean 2 nats\n1.5 to 2.5 (95 %)", "same particle: 0.80",
                     "weight of the landscape 0.93", "R² 0.300; chance reaches 0.010", "0.02 Å: 1 % of that",
                     "R² 0.000; chance reaches 0.002", "1,000 particles, 100 of them held out"):
        assert expected in text
    assert "not run" not in text and "of each other" not in text
    for name in ("n_cross_validated", "judged"):      # as it is called now, and as older versions called it
        halves = dict(HALVES, held_out_evidence=1.8, held_out_evidence_interval=[1.6, 2.0], **{name: 900})
        assert "half sets of each other (○)\n1.8 (1.6 to 2)" in words(dict(FOUND, half_sets=halves), page)


def test_the_page_says_what_warnings_say_and_what_the_evidence_is_over(without_controls):
    doubt, over = "The neutral model does not look d2", "the earlier stage alone"
    text = words(dict(FOUND, warnings=[doubt], evidence_over=over), without_controls)
    assert "does not look d2" in text and "Over the earlier stage alone (nats)" in text
    assert "Over a single model (nats)" in words(FOUND, without_controls)


def test_controls_that_were_not_run_are_named_with_what_adds_them(without_controls):
    text = words(FOUND, without_controls)
    assert text.count("not run") == 3 and "--null --resume\nadds it" in text
    assert text.count("--half-sets --resume\nadds it") == 2


def test_a_set_of_particles_that_are_all_alike_has_a_page_too(page):
    alike = dict(FOUND, held_out_evidence=0.0, held_out_evidence_interval=[0.0, 0.0], landscape_weight=0.0,
                 motion_rms_angst=0.0, null=dict(NULL, share_of_motion=None))
    text = words(alike, replace(page, gain=np.zeros(100), variates=None))
    assert "Heterogeneity not supported" in text and "Evidence against the null" in text
