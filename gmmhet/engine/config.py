"""Every parameter of every stage, defined once: name, default, range, choices and help.

The command-line flags, the JSON of ``--config`` and the Scipion forms are all made from these dataclasses. This module runs on
Python 3.8 with the standard library alone, because Scipion imports it.
"""
import dataclasses
import json
import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List

STAGES: Dict[str, Any] = {}
COLUMNS = ("amplitude", "position", "width")


#: a training to a finer resolution begins with the rings up to this one, Å
FIRST_ANGST = 12.0
#: most particles of a half set that the network of the other judges
MOST_JUDGED = 5000
#: most symmetry-related places of a particle: the points of them all are found together
MOST_COPIES = 100
#: target resolution of a fit where none is given, in pixels (the Nyquist limit is 2), and the Gaussians that are enough then
DEFAULT_RESOLUTION_PX, MOST_BY_DEFAULT = 2.05, 8192

#: errors of poses that refine expects where nobody has estimated any: degrees and Å
POSE_ERROR = 3.0, 3.0


class ConfigError(ValueError):
    """A parameter is unknown, has the wrong type or lies outside its range; the message says which and what to do."""


def param(default, help, low=None, high=None, choices=None, unit="", expert=False, path=False, needed=False, label=""):
    """One parameter: a dataclass field whose metadata make its flag, its JSON entry and its form field.

    Parameters
    ----------
    default : the default value; its type is the parameter's type.
    help : str, one or two sentences with a rule of thumb.
    low, high : inclusive range, or None.
    choices : tuple of allowed values, or None.
    unit : str, shown behind the label.
    expert : bool, True hides the field behind "Advanced" and lists the flag last.
    path : bool, True where the value names a file or folder that must exist when it is not empty.
    needed : bool, True where the stage cannot do without, so that the value must not be empty.
    label : str, the form's label; made from the name when empty.
    """
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices, unit=unit,
                                                expert=expert, path=path, needed=needed, label=label))


def stage(name, summary):
    """Class decorator: register a frozen dataclass as the parameters of a stage."""
    def register(cls):
        cls = dataclass(frozen=True)(cls)
        cls.stage, cls.summary = name, summary
        STAGES[name] = cls
        return cls
    return register


@dataclass(frozen=True)
class Common:
    """Parameters that every stage has."""

    out: str = param("", "Folder that receives the results. A folder that already holds a run is refused unless --resume is given.",
                     needed=True)
    seed: int = param(1, "Seed of every random choice; the same seed on the same machine gives the same result.", low=0, high=2**31 - 1)
    resume: bool = param(False, "Continue the run in --out from its last checkpoint.")
    threads: int = param(0, "CPU threads; 0 takes all cores.", low=0, high=1024, expert=True)
    gpus: str = param("auto", "GPUs to use: 'auto' takes all that are visible, 'none' none, or ids such as '0,1'.", expert=True)


@stage("simulate", "Make a set of particles with known heterogeneity, its consensus map, and the oracle's score.")
class SimulateConfig(Common):
    kind: str = param("hinge", "hinge: one domain turns continuously; assembly: discrete states with unequal populations; mixed: two "
                      "parts that can be absent, one of which turns where it is present; c3: one subunit of three moves; d2: one of four; "
                      "null: every particle is the same.", choices=("hinge", "assembly", "mixed", "c3", "d2", "null"))
    n: int = param(16000, "Number of particles.", low=2, high=10**8)
    box: int = param(64, "Box of the particles.", low=16, high=1024, unit="px")
    pixel_size: float = param(4.0, "Pixel size.", low=0.1, high=50.0, unit="Å/px")
    snr: float = param(0.05, "Signal to noise: variance of the CTF-multiplied projections over the variance of the noise.",
                       low=1e-5, high=1e6)
    angle: float = param(20.0, "Largest rotation of the moving domain to either side (hinge, mixed, c3, d2).", low=0.0, high=90.0, unit="°")
    shift: float = param(4.0, "Standard deviation of the particles' offsets from the box centre.", low=0.0, unit="Å", expert=True)


@stage("fit", "Fit the neutral Gaussian model to a map, or straight to posed particles.")
class FitConfig(Common):
    map: str = param("", "Consensus map (MRC). Give this or --particles.", path=True)
    particles: str = param("", "Posed particles: a RELION star file or an EMAN2 list (.lst), used when there is no map.", path=True)
    atoms: str = param("", "Atomic model (PDB or mmCIF) that lies in the map, to start the Gaussians from; each then remembers its chain "
                       "and residues, which regions can name. Density that it does not explain gets Gaussians too.", path=True,
                       label="Atomic model")
    resolution: float = param(0.0, "Target resolution: details finer than this are ignored. 0 takes %g pixels, or what %d Gaussians "
                              "(or those of --n-gaussians) can hold; a coarser one takes less time." % (
                                  DEFAULT_RESOLUTION_PX, MOST_BY_DEFAULT), low=0.0, high=200.0, unit="Å")
    n_gaussians: str = param("auto", "Number of Gaussians, or 'auto': the molecule's volume over the cube of 0.8 times the target "
                             "resolution, and more until the mean FSC with the map reaches 0.95. Probes in weak density come on top.")
    mask: str = param("", "Mask map (MRC, 0 to 1): Gaussians outside it are dropped.", path=True)
    threshold: float = param(0.0, "Density level above which Gaussians are seeded; 0 finds it from the map.", expert=True)
    probes: str = param("auto", "Gaussians in weak density beside the molecule, for a domain that few particles have or that turns far: "
                        "'auto' finds it, 'none', or the density level above which they are seeded (below the threshold).", expert=True)
    steps: int = param(400, "Optimizer steps, spread over coarse to fine resolution.", low=1, high=100000, expert=True)


@stage("train", "Learn the heterogeneity: one latent point per particle and a decoder from latent points to Gaussian models.")
class TrainConfig(Common):
    particles: str = param("", "Posed particles: a RELION star file or an EMAN2 list (.lst).", path=True, needed=True)
    gmm: str = param("", "Folder of a 'fit' run: the neutral model.", path=True, needed=True)
    ids: str = param("", "Text file of the ids of the particles to train on (rlnImageId, or row number from 1), such as a cluster of "
                     "'analyze'. Empty: all.", path=True)
    vary: str = param("amplitude,position", "What may vary between particles, comma-separated: amplitude, position, width. Of several, "
                      "what explains most goes first, and those that held-out particles agree no better with stay neutral.")
    region: str = param("", "Gaussians that may vary: a mask map (MRC), 'sphere:x,y,z,radius' in Å from the box centre, "
                        "'chain:A,B/120-240' (whole chains, or residues of a chain, of a model that was fitted with --atoms), or a text "
                        "file of Gaussian numbers from 1; several joined by ';'. Empty: all.")
    rigid: bool = param(False, "Every part of --region, as they are joined by ';', moves as one rigid body instead of bending: six numbers "
                        "for each, so that small motions of a domain stand out of the noise. Its shape is learned, the same for all "
                        "particles; a part that moves so far that the consensus shows a smear is told better without. Amplitudes "
                        "change as without it.",
                        label="Rigid bodies", expert=True)
    symmetry: str = param("c1", "Point group of the consensus (cN or dN). Above c1 one asymmetric unit varies, in each symmetry-related "
                          "place of a particle by itself: a particle has a latent point for each.")
    pose_errors: str = param("auto", "auto: how wrong the given poses may be is estimated from the images, and each particle's pose "
                             "along with its conformation, so that a wrong pose is not taken for motion; none: the given poses are "
                             "exact.", choices=("auto", "none"), expert=True)
    latent_dim: int = param(4, "Dimension of the latent space.", low=1, high=64)
    objective: str = param("likelihood", "likelihood: whitened images, CTF-multiplied model; frc: Fourier ring correlation as in the "
                           "paper.", choices=("likelihood", "frc"))
    preset: str = param("default", "paper: networks, objective, learning rate and batch of Chen & Ludtke, for the parameters that you "
                        "leave at their default; default: what measured best.", choices=("default", "paper"))
    continue_from: str = param("", "Folder of an earlier 'train' run to go on from. With the same --vary, --region and --latent-dim its "
                               "networks are trained further. With others this is a further stage: every particle keeps the conformation "
                               "that the earlier run gave it, and this run learns what comes on top, in latent dimensions of its own; "
                               "for example amplitudes first, then the motion of one domain in the particles that have it (--ids).",
                               path=True)
    null: bool = param(False, "Also train in the same way on homogeneous images, simulated as they are read (nothing goes to the disk) "
                       "with the particles' own orientations, CTF, noise and density scale: the motion and the gain that it finds are "
                       "spurious. Takes as long again.", label="Null control")
    half_sets: bool = param(False, "Also train one network on each half set (rlnRandomSubset where known, else random halves), ask "
                            "whether the two agree on what each particle does, and let each judge the other's particles: up to %s, more "
                            "than are held out. Takes as long again." % "{:,}".format(2 * MOST_JUDGED), label="Half-set control")
    resolution: float = param(0.0, "Target resolution; 0 takes the neutral model's. Where it is finer than %g Å, training begins at "
                              "that." % FIRST_ANGST, low=0.0, high=200.0, unit="Å")
    min_resolution: float = param(0.0, "Ignore details coarser than this; 0 uses all. It must be coarser than the target resolution.",
                                  low=0.0, high=10000.0, unit="Å", expert=True)
    rescale_map: bool = param(False, "Use the neutral model although its pixel size is not the particles'.", expert=True)
    epochs: int = param(0, "Most passes through the particles; 0 chooses it from their number, more for small sets. Training stops "
                        "earlier when held-out particles are explained worse. More of them, or more patience, with --resume take a run "
                        "further.", low=0, high=10000)
    patience: int = param(0, "Epochs in a row that explain held-out particles worse than the best one, by two standard errors, before "
                          "training stops; 0 takes a third of --epochs, for the agreement rises most when the learning rate falls, at "
                          "the end.", low=0, high=10000, expert=True)
    batch_size: int = param(64, "Particles per optimizer step.", low=1, high=4096)
    learning_rate: float = param(1e-3, "ADAM learning rate at the start.", low=1e-7, high=1.0, expert=True)
    held_out: float = param(0.1, "Fraction of the particles the networks never see; they measure agreement honestly. A run that goes "
                            "on from an earlier one keeps those of that run.",
                            low=0.01, high=0.9, expert=True)
    smoothness: float = param(12.0, "Distance over which neighbouring Gaussians move together, and two thirds of it over which "
                              "their amplitudes change together; 0 leaves each free.",
                              low=0.0, high=200.0, unit="Å", expert=True)
    amplitude_cost: float = param(10.0, "What it costs to change amplitudes where positions vary too, for the molecule's whole mass: "
                                  "motion is then explained by moving Gaussians and not by fading them here and there. 0 makes both "
                                  "alike.", low=0.0, high=1e6, unit="nats", expert=True)
    latent_noise: float = param(0.1, "Standard deviation of the noise on z while training with the paper's networks; the default learns "
                                "it per particle.", low=0.0, high=10.0, expert=True)
    mask_diameter: float = param(0.0, "Diameter of the soft circular mask on the particles; 0 takes it from the neutral model.",
                                 low=0.0, unit="Å", expert=True)
    latent_steps: int = param(2, "Steps to the posterior of each particle's z after training, with the decoder fixed; 0 keeps the "
                              "encoder's z.", low=0, high=100, expert=True)
    pause_after_epoch: int = param(-1, "End this call after so many epochs in all, to be continued with --resume; 0 only prepares, -1 "
                                   "runs to the end.", low=-1, expert=True)


@stage("refine", "Refine each particle's orientation and shift against its own conformation.")
class RefineConfig(Common):
    particles: str = param("", "Posed particles: a RELION star file or an EMAN2 list (.lst).", path=True)
    model: str = param("", "Folder of a 'train' run.", path=True, needed=True)
    steps: int = param(8, "Gauss-Newton steps per particle; errors of 2° and 2 px need about 8.", low=1, high=100)
    sigma_angle: float = param(0.0, "Expected error of the orientations (standard deviation of the prior along each axis). 0 takes what "
                               "training found, or %g° where it estimated none or the particles have other poses than in training."
                               % POSE_ERROR[0], low=0.0, high=30.0, unit="°")
    sigma_shift: float = param(0.0, "Expected error of the shifts (standard deviation of the prior along each axis). 0 takes what training "
                               "found, or %g Å where --sigma-angle 0 takes %g°." % (POSE_ERROR[1], POSE_ERROR[0]),
                               low=0.0, high=100.0, unit="Å")
    batch_size: int = param(32, "Particles per step.", low=1, high=4096, expert=True)


@stage("analyze", "Read the landscape: embedding, clusters, trajectories, localised motion.")
class AnalyzeConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, needed=True)
    embedding: str = param("pca", "How z is drawn in two dimensions.", choices=("pca", "umap"))
    clusters: int = param(4, "Number of clusters; 0 finds them by density (HDBSCAN).", low=0, high=1000)
    assign_by: str = param("image", "What tells the cluster of a particle. image: how well its image agrees with the model at each "
                           "cluster's centre, and how many particles each holds; clusters that no particle fits best vanish. latent: "
                           "which centre its z is nearest to (k-means), which needs no images. Clusters by density are always by z.",
                           choices=("image", "latent"))
    particles: str = param("", "Particles with other poses than in training: a RELION star file or an EMAN2 list (.lst), such as that of "
                           "'refine'. Particles that it does not hold are as they were in training.", path=True, expert=True)
    line: str = param("", "Trajectories to write, comma-separated: 'pc1', 'pc2', ..., 'motion1', ... (needs --motion-region), or "
                      "'from:1-to:3' between two clusters. Empty: pc1 and pc2.")
    points: int = param(7, "Points along each trajectory.", low=2, high=200)
    neighbours: int = param(2000, "Particles nearest to each point of a trajectory, listed for reconstruction.", low=1)
    motion_region: str = param("", "Region (as train's --region) inside which motion is maximised and outside which it is minimised.")
    umap_neighbours: int = param(15, "UMAP: neighbours per particle; larger shows more global structure.", low=2, high=1000, expert=True)


@stage("decode", "Gaussian models and maps at given latent points.")
class DecodeConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, needed=True)
    z: str = param("", "Text file, one latent point per row.", path=True, needed=True)


@stage("reconstruct", "Plain reconstruction of a subset of the original particles, with half maps and FSC.")
class ReconstructConfig(Common):
    particles: str = param("", "Posed particles: a RELION star file or an EMAN2 list (.lst). With --model alone, the particles it was "
                           "trained on.", path=True)
    ids: str = param("", "Text file of particle ids (rlnImageId, or row number from 1). Empty: all particles.", path=True)
    model: str = param("", "Folder of a 'train' run: for --near, for lists of symmetry copies, and to invert optics groups that it found "
                       "to be black.", path=True)
    near: str = param("", "Latent point z as comma-separated numbers: reconstruct the --k particles nearest to it.")
    k: int = param(2000, "Particles nearest to --near.", low=2)
    symmetry: str = param("c1", "Point group imposed on the map (cN or dN).")
    padding: int = param(2, "Fourier padding.", low=1, high=4, expert=True)
    mask: str = param("", "Mask map (MRC, 0 to 1) for the FSC; empty: a soft sphere.", path=True)


@stage("score", "Compare latents with a simulated truth and with the oracle.")
class ScoreConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, needed=True)
    truth: str = param("", "Folder of the 'simulate' run that made the particles.", path=True, needed=True)
    analysis: str = param("", "Folder of an 'analyze' run, whose clusters are scored too.", path=True)


#: what a preset of the train stage sets, unless the parameter was changed from its default; networks are in training.heterogeneity
PRESETS = {"default": {}, "paper": dict(objective="frc", learning_rate=1e-4, batch_size=8, smoothness=0.0, latent_noise=0.01,
                                        amplitude_cost=0.0, latent_steps=0)}


#: a training whose length is not given aims at so many optimizer steps, within these numbers of epochs
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 12000, 10, 100


def with_length(config, particles):
    """The parameters of the train stage with epochs and patience in numbers, for a set of so many particles."""
    epochs = config.epochs or min(max(round(STEPS * config.batch_size / particles), FEWEST_EPOCHS), MOST_EPOCHS)
    return dataclasses.replace(config, epochs=epochs, patience=config.patience or max(3, epochs // 3))


def with_preset(config):
    """The parameters of the train stage with those of its preset in place of defaults."""
    defaults = {f.name: f.default for f in fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in PRESETS[config.preset].items() if getattr(config, k) == defaults[k]})


def parameters(cls) -> List[dataclasses.Field]:
    """The parameters of a stage: usual ones first, then the common ones, then the expert ones."""
    common = {f.name for f in fields(Common)}
    own = [f for f in fields(cls) if f.name not in common]
    rest = [f for f in fields(cls) if f.name in common]
    return sorted(own + rest, key=lambda f: f.metadata["expert"])


def flag(name: str) -> str:
    """``n_gaussians`` -> ``--n-gaussians``."""
    return "--" + name.replace("_", "-")


def problems(config) -> List[str]:
    """Sentences about every value outside its range or choices; empty when the parameters are sound."""
    found = []
    if not re.fullmatch(r"auto|none|\d+(,\d+)*", config.gpus.replace(" ", "")):
        found.append("--gpus must be 'auto', 'none' or ids such as '0,1', got '%s'." % config.gpus)
    group = re.fullmatch(r"([cd])([1-9]\d*)", getattr(config, "symmetry", "c1").strip().lower())
    copies = int(group[2]) * (2 if group[1] == "d" else 1) if group else 0
    if not group:
        found.append("--symmetry must be cN or dN (such as c3 or d2), got '%s'." % config.symmetry)
    if copies > MOST_COPIES:
        found.append("--symmetry %s has %d places in a particle, expected at most %d." % (config.symmetry, copies, MOST_COPIES))
    for f in fields(config):
        value, m = getattr(config, f.name), f.metadata
        unit = " " + m["unit"] if m["unit"] else ""
        if isinstance(value, float) and not math.isfinite(value):
            found.append("%s must be a finite number, got %s." % (flag(f.name), value))
            continue
        if m["choices"] and value not in m["choices"]:
            found.append("%s must be one of %s, got '%s'." % (flag(f.name), ", ".join(m["choices"]), value))
        if m["low"] is not None and value < m["low"]:
            found.append("%s must be at least %s%s, got %s." % (flag(f.name), m["low"], unit, value))
        if m["high"] is not None and value > m["high"]:
            found.append("%s must be at most %s%s, got %s." % (flag(f.name), m["high"], unit, value))
    return found


def missing_files(config) -> List[str]:
    """Sentences about files and folders that a parameter names and that do not exist."""
    named = [(flag(f.name), getattr(config, f.name)) for f in fields(config) if f.metadata["path"]]
    return ["%s %s does not exist." % (name, value) for name, value in named if value and not os.path.exists(value)]


def check_resolution(resolution_angst, pixel_size):
    """Refuse a --resolution (Å) finer than pixels (Å/px) can hold; 0 stands for none.

    Raises
    ------
    ConfigError
        naming both.
    """
    if 0 < resolution_angst < 1.999 * pixel_size:
        raise ConfigError("--resolution %.4g Å is finer than pixels of %.4g Å hold: give %.4g Å (two pixels) or more" % (
            resolution_angst, pixel_size, 2 * pixel_size))


def lacking(config) -> List[str]:
    """A sentence about the parameters that the stage cannot do without and that are empty; none when all are there."""
    names = [flag(f.name) for f in parameters(type(config)) if f.metadata["needed"] and not getattr(config, f.name)]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return ["%s needs %s; see gmmhet %s --help" % (config.stage, listed, config.stage)] if names else []


def from_dict(cls, values: Dict[str, Any]):
    """Parameters of a stage from a dict (a JSON file), with types checked.

    Raises
    ------
    ConfigError
        for an unknown key (with the nearest known one) or a value of the wrong type.
    """
    import difflib
    known = {f.name: f for f in fields(cls)}
    clean = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            raise ConfigError("unknown parameter '%s' for stage '%s'%s" % (
                key, cls.stage, "; did you mean '%s'?" % near[0] if near else "; see gmmhet %s --help" % cls.stage))
        kind = type(known[key].default)
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value, right = float(value), True
        if not right:
            raise ConfigError("parameter '%s' of stage '%s' must be %s, got %r" % (key, cls.stage, kind.__name__, value))
        clean[key] = value
    return cls(**clean)


def to_json(config) -> str:
    """The JSON that repeats a run with ``gmmhet STAGE --config``."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"
