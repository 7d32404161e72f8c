"""Models as they were saved before weights had names (format 1), and what they then gave.

`format_1.json` holds the answers of the last version that wrote this format, 9e2603f. With a checkout of it,

    PYTHONPATH=CHECKOUT python tests/engine/model/format_1.py

asks it again.
"""
import json
import os

import numpy as np

#: anchors are 12 Å apart where parts move and 8 Å where they come and go
SMOOTHNESS, AMPLITUDE_SHARE = 12.0, 2 / 3
#: what that version wrote into model.json of either preset
DEFAULT = dict(hidden=[256, 256], dropout=0.0, batch_norm=False, l2=0.0, variational=True, encoder_scale=0.3,
               subspace=256, ahead=True, amplitude_share=AMPLITUDE_SHARE, description=1.5, draws=4, looks=0,
               base=True,
               averaged=True, unblurred=True)
PAPER = dict(hidden=[512, 512, 512, 512], dropout=0.3, batch_norm=True, l2=1e-3, variational=False,
             encoder_scale=0.1,
             subspace=0, ahead=False, amplitude_share=1.0, description=0.0, draws=1, looks=1, base=False,
             averaged=False, unblurred=False)
#: what the first versions wrote, which had no more than that
FIRST = {name: DEFAULT[name] for name
         in ("hidden", "dropout", "batch_norm", "l2", "variational", "encoder_scale")}
#: frozen by NumPy's policy, unlike default_rng
RNG = np.random.RandomState


def _neutral():
    """Eight groups of three Gaussians, each well inside a cube of 24 Å."""
    corners = np.stack(np.meshgrid(*[[-30.0, 30.0]] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    centers = (corners + RNG(1).uniform(-2, 2, (8, 3, 3))).reshape(-1, 3)
    return dict(centers=np.float32(centers), amplitudes=np.float32(RNG(2).uniform(50, 100, 24)),
                widths=np.float32(RNG(3).uniform(4, 6, 24)))


NEUTRAL = _neutral()


def _settings(network, columns, pixel_size=6.0, **others):
    """model.json."""
    likelihood = dict(box=24, pixel_size=pixel_size, m=11, objective="likelihood", mask_diameter_angst=100.0,
                      noise_power=[[1.0] * 13], scale=[1.0], groups=[], first_ring=1)
    return dict(network, columns=columns, smoothness=SMOOTHNESS, latent_dim=2, latent_noise=0.1, seed=1,
                symmetry="c1",
                particles="p.star", likelihood=likelihood, **others)


#: what that version said of every model, whatever its preset
PLAIN = dict(rigid=False, at_rest=False, whole_unit=True)
#: cases by name: for every stage, the first one first, settings and the Gaussians that may vary, or their
# bodies
CASES = {
    "default": [(_settings(DEFAULT, ["amplitude", "position"], **dict(PLAIN, at_rest=True)),
                 np.ones(24, int))],
    "fine": [(_settings(DEFAULT, ["amplitude", "position"], 4.0, **PLAIN), np.arange(24) < 12)],
    "paper": [(_settings(PAPER, ["amplitude", "position", "width"], **PLAIN), np.ones(24, int))],
    "staged": [(_settings(DEFAULT, ["amplitude"], **dict(PLAIN, at_rest=True)), np.ones(24, int)),
               (_settings(DEFAULT, ["position"], **PLAIN), np.arange(24) < 9)],
    "bodies": [(_settings(DEFAULT, ["position"], **dict(PLAIN, rigid=True, at_rest=True)),
                np.repeat([0, 1, 2], 8))],
    "paced": [(_settings(DEFAULT, ["position"], **dict(PLAIN, at_rest=True)), np.ones(24, int))],
    "first": [(_settings(FIRST, ["amplitude", "position"]), np.ones(24, int))],
}


def _sizes(settings, body):
    """Numbers of each column."""
    def anchors(edge):
        return len(np.unique(np.floor(NEUTRAL["centers"][np.asarray(body, bool)] / edge), axis=0))
    by_name = dict(amplitude=anchors(SMOOTHNESS * settings.get("amplitude_share", 1.0)),
                   width=anchors(SMOOTHNESS),
                   position=6 * int(np.max(body)) if settings.get("rigid") else 3 * anchors(SMOOTHNESS))
    return [by_name[name] for name in settings["columns"]]


def n_features(stages):
    """Numbers that the encoder of the last stage is given, of an image and of the earlier stages."""
    settings, body = stages[-1]
    looks = settings.get("looks", 1) or (1 if settings["likelihood"]["pixel_size"] > 5 else 2)
    return looks * sum(_sizes(settings, body)), 2 * (len(stages) - 1)


def _arrays(stages, seed):
    """weights.npz of the last stage: arr_0 and so on, in the order of that version."""
    (settings, body), (gradients, earlier) = stages[-1], n_features(stages)
    rng, sizes, arrays = RNG(seed), _sizes(settings, body), []
    outputs, looks = sum(sizes), gradients // sum(sizes)
    kept = sum(min(settings.get("subspace", 0) // (looks * len(sizes)), size) for size in sizes * looks)

    def network(inputs, last):
        widths = [inputs, *settings["hidden"]]
        for rows, columns in zip(widths, widths[1:]):
            arrays.extend([rng.uniform(-1, 1, (rows, columns)) / np.sqrt(rows / 3),
                           rng.uniform(-0.1, 0.1, columns)])
        if settings["dropout"]:
            arrays.append(np.array([settings["seed"], 0], np.int64))
        if settings["batch_norm"]:
            arrays.extend([rng.uniform(0.5, 1.5, widths[-1]), rng.uniform(-0.1, 0.1, widths[-1]),
                           rng.uniform(0, 0.5, widths[-1]), rng.uniform(0.5, 1.5, widths[-1])])
        arrays.extend([rng.uniform(-1, 1, (widths[-1], last)) / np.sqrt(widths[-1] / 3),
                       rng.uniform(-0.1, 0.1, last)])
    network((kept or gradients) + earlier, 2 * (1 + settings["variational"]))
    network(2, outputs)
    arrays += [rng.uniform(-1, 1, gradients + earlier), rng.uniform(0.5, 2, gradients + earlier)]
    moves = "position" in settings["columns"]
    if kept:
        arrays += [rng.uniform(-0.3, 0.3, (gradients, kept)), rng.uniform(-0.3, 0.3, (kept, 2))]
        if settings.get("ahead") and moves:
            # the linear part of the decoder, whether it counts, whether motion is faint
            arrays += [rng.uniform(-0.5, 0.5, (2, outputs)), np.float32(1), np.float32(settings["unblurred"])]
        arrays.append(np.linspace(0.25, 1, len(sizes)))
    if settings.get("base") and moves:
        arrays += [rng.uniform(-0.2, 0.2, (24, 4)), np.float32(1)]
    return [values if values.dtype == np.int64 else np.float32(values) for values in map(np.asarray, arrays)]


def write(folder, name):
    """A run's folder "model" as that version would have left it."""
    os.makedirs(folder, exist_ok=True)
    model, stages = os.path.join(folder, "model"), CASES[name]
    for count in range(len(stages), 0, -1):
        settings, body = stages[count - 1]
        os.makedirs(model)
        np.savez(os.path.join(model, "neutral.npz"), **NEUTRAL, free=body)
        np.savez(os.path.join(model, "weights.npz"), *_arrays(stages[:count], count))
        with open(os.path.join(model, "model.json"), "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=2)
        if name == "paced":
            knots = np.tile(np.linspace(-2, 2, 145), (2, 1))
            np.savez(os.path.join(model, "pace.npz"), pace=np.float32([knots, knots + 0.2 * knots**3]))
        model = os.path.join(model, "earlier")


def asked(name):
    """Latent points [3, D] and features [3, F] that the answers are of."""
    gradients, earlier = n_features(CASES[name])
    features = RNG(8).uniform(-2, 2, (3, gradients + earlier))
    return np.float32(RNG(7).uniform(-1.5, 1.5, (3, 2 + earlier))), np.float32(features)


def _main():
    import tempfile

    from gmmhet.engine.training.model import load_model
    answers = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write(folder, name)
            model, (z, features) = load_model(folder), asked(name)
        parts = [*model.decode(z), *(values.numpy() for values in model.encode(features))]
        names = "centers", "amplitudes", "widths", "mean", "log_std"
        answers[name] = {part: np.round(values.astype(float), 4).tolist() for part,
                         values in zip(names, parts)}
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "format_1.json"), "w",
              encoding="utf-8") as file:
        json.dump(answers, file, separators=(",", ":"))


if __name__ == "__main__":
    _main()
