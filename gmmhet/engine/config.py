"""Every parameter of every stage, defined once: name, default, range, choices and help.

The command-line flags, the JSON of ``--config`` and the Scipion forms are all made from these dataclasses.
This module runs on Python 3.8 with the standard library alone, because Scipion imports it.
"""
import dataclasses
import json
import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any, Callable, ClassVar, Dict, List, Optional, Tuple, Type, TypeVar

#: what `--vary` may name: the parameters of a Gaussian that can differ between particles
VARIABLE_PARAMETERS = ("amplitude", "position", "width")
#: training to a finer resolution begins with the coarse rings up to this one, Å
COARSE_ANGST = 12.0
#: most particles of a half set that the network trained on the other half set is tested on
MOST_CROSS_VALIDATED = 5000
#: most asymmetric units of a point group: the latent points of them all are found together
MOST_SYMMETRY_COPIES = 100
#: target resolution of a fit where none is given, in pixels (the Nyquist limit is 2)
DEFAULT_RESOLUTION_PX = 2.05
#: where no resolution is given either, one that needs at most so many Gaussians
MOST_DEFAULT_GAUSSIANS = 8192
#: standard deviation of pose errors that refine expects where nobody has estimated any: degrees and Å
DEFAULT_POSE_ERROR = (3.0, 3.0)
#: training whose length is not given aims at so many optimizer steps, within these numbers of epochs
TRAINING_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 12000, 10, 100

#: stages by name, in the order of the command line's help
STAGES: "Dict[str, Type[Common]]" = {}


class ConfigError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message says which and what to do."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a stage: all that its flag, its JSON entry and its form field are made from.

    Attributes
    ----------
    name : str, as in the JSON.
    default : the default value; its type is the parameter's type.
    help : str, one or two sentences with a rule of thumb.
    low, high : inclusive range, or None.
    choices : allowed values, or None.
    units : str, shown behind the label.
    expert : bool, True hides the form field behind "Advanced" and lists the flag last.
    path : bool, True where the value names a file or folder that must exist when it is not empty.
    required : bool, True where the value must not be empty.
    label : str, the form's label; made from the name when empty.
    """

    name: str
    default: Any
    help: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Optional[Tuple[str, ...]] = None
    units: str = ""
    expert: bool = False
    path: bool = False
    required: bool = False
    label: str = ""

    @property
    def flag(self) -> str:
        """The parameter's flag on the command line."""
        return flag(self.name)

    @property
    def kind(self) -> type:
        """Type of the values: bool, int, float or str."""
        return type(self.default)


def param(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that defines a parameter; `details` are attributes of `Parameter`."""
    return field(default=default, metadata=dict(help=help, **details))


@dataclass(frozen=True)
class Common:
    """Parameters that every stage has."""

    #: name of the stage, and what it does in one sentence
    stage: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    out: str = param(
        "", "Folder for the results. A folder that already holds a run is refused unless --resume is given.",
        required=True)
    seed: int = param(
        1, "Seed of all random numbers; the same seed on the same machine gives the same result.",
        low=0, high=2**31 - 1)
    resume: bool = param(False, "Continue the run in --out from its last checkpoint.")
    threads: int = param(0, "CPU threads; 0 uses all cores.", low=0, high=1024, expert=True)
    gpus: str = param(
        "auto", "GPUs to use: 'auto' uses all visible ones, 'none' the CPU, or ids such as '0,1'.",
        expert=True)


def parameters(cls: Type[Common]) -> List[Parameter]:
    """The parameters of a stage: usual ones first, then the common ones, then the expert ones."""
    common = {f.name for f in fields(Common)}
    every = [Parameter(f.name, f.default, **f.metadata) for f in fields(cls)]
    return sorted(every, key=lambda p: (p.expert, p.name in common))


def flag(name: str) -> str:
    """``n_gaussians`` -> ``--n-gaussians``."""
    return "--" + name.replace("_", "-")


AnyConfig = TypeVar("AnyConfig", bound=Common)


def stage(name: str, summary: str) -> Callable[[Type[AnyConfig]], Type[AnyConfig]]:
    """Class decorator: register a frozen dataclass as the parameters of a stage."""
    def register(cls: Type[AnyConfig]) -> Type[AnyConfig]:
        cls.stage, cls.summary = name, summary
        parameters(cls)         # refuses details that `Parameter` does not know
        STAGES[name] = cls
        return cls
    return register


@stage("simulate",
       "Simulate particles of known heterogeneity: images, consensus map, truth, and the oracle's score.")
@dataclass(frozen=True)
class SimulateConfig(Common):
    kind: str = param(
        "hinge", "hinge: one domain rotates continuously; assembly: discrete compositional states of unequal "
        "population; mixed: two parts that can be absent, one of which rotates where it is present; c3: one "
        "subunit of three moves; d2: one of four; null: no heterogeneity.",
        choices=("hinge", "assembly", "mixed", "c3", "d2", "null"))
    n: int = param(16000, "Number of particles.", low=2, high=10**8)
    box: int = param(64, "Box size of the particles.", low=16, high=1024, units="px")
    pixel_size: float = param(4.0, "Pixel size.", low=0.1, high=50.0, units="Å/px")
    snr: float = param(
        0.05, "Signal-to-noise ratio: variance of the CTF-multiplied projections over the variance of the "
        "noise.", low=1e-5, high=1e6)
    angle: float = param(
        20.0, "Largest rotation of the moving domain to either side (hinge, mixed, c3, d2).",
        low=0.0, high=90.0, units="°")
    shift: float = param(
        4.0, "Standard deviation of the particles' offsets from the box centre, along x and along y.",
        low=0.0, units="Å", expert=True)


@stage("fit", "Fit the neutral Gaussian model to a consensus map, or directly to particles with known poses.")
@dataclass(frozen=True)
class FitConfig(Common):
    map: str = param("", "Consensus map (MRC). Give this or --particles.", path=True)
    particles: str = param(
        "", "Particles with poses and CTF: a RELION star file or an EMAN2 list (.lst). Without a map the "
        "neutral model is fitted to their reconstruction.", path=True)
    atoms: str = param(
        "", "Atomic model (PDB or mmCIF) that is fitted into the map: Gaussians start from its atoms, and "
        "each is labelled with chain and residues, which regions can name. Density that the model does not "
        "explain gets Gaussians too.", path=True, label="Atomic model")
    resolution: float = param(
        0.0, "Target resolution: finer details are ignored, and a coarser target takes less time. 0 takes %g "
        "pixels, or a coarser one that %d Gaussians (or those of --n-gaussians) can represent."
        % (DEFAULT_RESOLUTION_PX, MOST_DEFAULT_GAUSSIANS), low=0.0, high=200.0, units="Å")
    n_gaussians: str = param(
        "auto", "Number of Gaussians, or 'auto': the molecule's volume over the cube of 0.8 times the target "
        "resolution, and more until the mean FSC with the map reaches 0.95. Gaussians in weak density "
        "(--probes) come on top.", label="Number of Gaussians")
    mask: str = param("", "Mask (MRC, 0 to 1): only density inside it (above 0.5) is modelled.", path=True)
    threshold: float = param(
        0.0, "Density level (contour level) above which Gaussians are seeded; 0 determines it from the map.",
        expert=True)
    probes: str = param(
        "auto", "Gaussians in weak density around the molecule, for a domain that is present in few "
        "particles or moves far: 'auto' finds such density, 'none' seeds none, or the density level (below "
        "the threshold) above which they are seeded.", expert=True)
    steps: int = param(
        400, "Optimizer steps, spread over coarse to fine resolution.", low=1, high=100000, expert=True)


@stage("train",
       "Learn the heterogeneity: a latent point per particle, and a decoder from there to Gaussian models.")
@dataclass(frozen=True)
class TrainConfig(Common):
    particles: str = param(
        "", "Particles with poses and CTF: a RELION star file or an EMAN2 list (.lst).",
        path=True, required=True)
    gmm: str = param("", "Folder of a 'fit' run: the neutral model.", path=True, required=True)
    ids: str = param(
        "", "Text file with the ids of the particles to train on, one per line (rlnImageId, or row number "
        "from 1), such as those of a cluster of 'analyze'. Empty: all.", path=True)
    vary: str = param(
        "amplitude,position", "Parameters of the Gaussians that may vary between particles, comma-separated: "
        "amplitude (occupancy), position (motion), width. Training starts with the one that explains most; "
        "one that does not improve the agreement with held-out particles stays at the neutral model.")
    region: str = param(
        "", "Gaussians that may vary: a mask (MRC), 'sphere:x,y,z,radius' in Å from the box centre, "
        "'chain:A,B/120-240' (whole chains, or residues of a chain, of a model that was fitted with "
        "--atoms), or a text file of Gaussian numbers from 1; several joined by ';'. Empty: all.")
    rigid: bool = param(
        False, "Every part of --region (parts are joined by ';') moves as one rigid body instead of bending: "
        "six parameters for each, so that small motions of a domain stand out from the noise. Its shape is "
        "refined, the same for all particles. A part that moves so far that the consensus map shows it "
        "smeared is described better without. Amplitudes vary as they do without it.",
        label="Rigid bodies", expert=True)
    symmetry: str = param(
        "c1", "Point group of the consensus map (cN or dN). Above c1 one asymmetric unit varies, "
        "independently in each of its symmetry-related positions (as after symmetry expansion): a particle "
        "has a latent point for each.")
    pose_errors: str = param(
        "auto", "auto: the errors of the given poses are estimated from the images, and each particle's pose "
        "is inferred together with its conformation, so that a pose error is not taken for motion; none: the "
        "given poses are exact.", choices=("auto", "none"), expert=True)
    latent_dim: int = param(
        4, "Number of dimensions of the latent space.", low=1, high=64, label="Latent dimensions")
    objective: str = param(
        "likelihood", "likelihood: Gaussian noise of the images' own spectrum (whitened images, "
        "CTF-multiplied model); frc: mean Fourier ring correlation as in Chen & Ludtke.",
        choices=("likelihood", "frc"))
    preset: str = param(
        "default", "paper: networks, objective, learning rate and batch size of Chen & Ludtke, for the "
        "parameters that you leave at their default; default: what performed best in our tests.",
        choices=("default", "paper"))
    continue_from: str = param(
        "", "Folder of an earlier 'train' run to continue from. With the same --vary, --region and "
        "--latent-dim its networks are trained further. With others this is a further stage: every particle "
        "keeps the conformation that the earlier run gave it, and this run learns what comes on top, in "
        "latent dimensions of its own; for example amplitudes first, then the motion of one domain in the "
        "particles that have it (--ids).", path=True)
    null: bool = param(
        False, "Also train in the same way on simulated particles without heterogeneity, which have the "
        "particles' own poses, CTF, noise and density scale (made as they are read; nothing is written): the "
        "motion and the gain that training finds there are spurious. Doubles the time.", label="Null control")
    half_sets: bool = param(
        False, "Also train one network on each half set (rlnRandomSubset; particles without it are drawn at "
        "random), ask whether the two agree on what each particle does, and test each on the particles of "
        "the other: up to %s, more than are held out. Doubles the time."
        % "{:,}".format(2 * MOST_CROSS_VALIDATED), label="Half-set control")
    resolution: float = param(
        0.0, "Target resolution; 0 takes the neutral model's. Where it is finer than %g Å, training begins "
        "at that." % COARSE_ANGST, low=0.0, high=200.0, units="Å")
    min_resolution: float = param(
        0.0, "High-pass limit: details coarser than this are ignored; 0 uses all. It must be coarser than "
        "the target resolution.", low=0.0, high=10000.0, units="Å", expert=True)
    rescale_map: bool = param(
        False, "Use the neutral model although its pixel size or box is not that of the particles: Gaussians "
        "have positions and widths in Å, so that any sampling can show them.", label="Allow other sampling",
        expert=True)
    epochs: int = param(
        0, "Most passes through the particles; 0 chooses from their number, more for small sets. Training "
        "stops earlier when the agreement with held-out particles gets worse. A run that has finished is "
        "taken further by more epochs, or more patience, and --resume.", low=0, high=10000)
    patience: int = param(
        0, "Epochs in a row that agree with held-out particles worse than the best one, by two standard "
        "errors, before training stops; 0 takes a third of --epochs, because agreement rises most at the "
        "end, when the learning rate falls.", low=0, high=10000, expert=True)
    batch_size: int = param(64, "Particles per optimizer step.", low=1, high=4096)
    learning_rate: float = param(1e-3, "Learning rate of Adam at the start.", low=1e-7, high=1.0, expert=True)
    held_out: float = param(
        0.1, "Fraction of the particles that the networks are never trained on, to measure agreement without "
        "overfitting. A run that continues from an earlier one keeps those of that run.",
        low=0.01, high=0.9, expert=True)
    smoothness: float = param(
        12.0, "Correlation length of the motion: Gaussians closer than this move together, and those closer "
        "than two thirds of it change their amplitudes together; 0 leaves each free.",
        low=0.0, high=200.0, units="Å", expert=True)
    amplitude_cost: float = param(
        10.0, "Penalty on amplitude changes where positions vary too, for the molecule's whole mass: motion "
        "is then explained by moving Gaussians and not by fading some out and others in. 0 removes it.",
        low=0.0, high=1e6, units="nats", expert=True)
    latent_noise: float = param(
        0.1, "Standard deviation of the noise added to z while the paper's networks are trained; the default "
        "networks learn it per particle.", low=0.0, high=10.0, expert=True)
    mask_diameter: float = param(
        0.0, "Diameter of the soft circular mask on the particles; 0 takes it from the neutral model.",
        low=0.0, units="Å", expert=True)
    latent_steps: int = param(
        2, "Optimization steps of each particle's z after training, with the decoder fixed, from the "
        "encoder's answer to the posterior mean; 0 keeps the encoder's z.", low=0, high=100, expert=True)
    pause_after_epoch: int = param(
        -1, "Stop after this epoch, to be continued with --resume; 0 only prepares the training, -1 runs to "
        "the end.", low=-1, expert=True)


@stage("refine", "Refine each particle's orientation and shift against its own conformation.")
@dataclass(frozen=True)
class RefineConfig(Common):
    particles: str = param(
        "", "Particles with poses and CTF: a RELION star file or an EMAN2 list (.lst). Empty: those that the "
        "model was trained on.", path=True)
    model: str = param("", "Folder of a 'train' run.", path=True, required=True)
    steps: int = param(
        8, "Levenberg-Marquardt steps per particle; errors of 2° and 2 px need about 8.", low=1, high=100)
    sigma_angle: float = param(
        0.0, "Standard deviation of the prior on orientations, around each axis: the expected error of the "
        "given ones. 0 takes what training estimated, or %g° where it estimated none or the particles have "
        "other poses than in training." % DEFAULT_POSE_ERROR[0], low=0.0, high=30.0, units="°")
    sigma_shift: float = param(
        0.0, "Standard deviation of the prior on shifts, along x and along y: the expected error of the "
        "given ones. 0 takes what training estimated, or %g Å where --sigma-angle 0 takes %g°."
        % (DEFAULT_POSE_ERROR[1], DEFAULT_POSE_ERROR[0]), low=0.0, high=100.0, units="Å")
    batch_size: int = param(
        32, "Particles that are refined together; it changes speed and memory only.",
        low=1, high=4096, expert=True)


@stage("analyze",
       "Analyse the conformational landscape: embedding, clusters, trajectories, localised motion.")
@dataclass(frozen=True)
class AnalyzeConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, required=True)
    embedding: str = param("pca", "How z is shown in two dimensions.", choices=("pca", "umap"))
    clusters: int = param(4, "Number of clusters; 0 finds them by density (HDBSCAN).", low=0, high=1000)
    assign_by: str = param(
        "image", "How particles are assigned to clusters. image: by the agreement of their image with the "
        "model at each cluster's centre, and by how many particles each cluster has; a cluster that is the "
        "best for no particle vanishes. latent: by the nearest centre in latent space (k-means), which needs "
        "no images. Clusters by density are always by z.", choices=("image", "latent"))
    particles: str = param(
        "", "Particles with other poses than in training, such as those of 'refine': a RELION star file or "
        "an EMAN2 list (.lst). Particles that it does not contain keep their poses of training.",
        path=True, expert=True)
    line: str = param(
        "", "Trajectories to write, comma-separated: 'pc1', 'pc2', ... (principal components of z), "
        "'motion1', ... (needs --motion-region), or 'from:1-to:3' between two clusters. Empty: pc1 and pc2.",
        label="Trajectories")
    points: int = param(7, "Points along each trajectory.", low=2, high=200)
    neighbours: int = param(
        2000, "Particles nearest to each point of a trajectory, listed for reconstruction.", low=1)
    motion_region: str = param(
        "", "Region (as --region of 'train') for localised motion: latent directions that move this region "
        "most and the rest of the molecule least.")
    umap_neighbours: int = param(
        15, "UMAP: neighbours per particle; larger shows more of the global structure.",
        low=2, high=1000, expert=True)


@stage("decode", "Gaussian models and maps at given latent points.")
@dataclass(frozen=True)
class DecodeConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, required=True)
    z: str = param("", "Text file, one latent point per row.", path=True, required=True)


@stage("reconstruct", "Plain reconstruction of a subset of the original particles, with half maps and FSC.")
@dataclass(frozen=True)
class ReconstructConfig(Common):
    particles: str = param(
        "", "Particles with poses and CTF: a RELION star file or an EMAN2 list (.lst). With --model alone, "
        "the particles it was trained on.", path=True)
    ids: str = param(
        "", "Text file of particle ids, one per line (rlnImageId, or row number from 1). Empty: all "
        "particles.", path=True)
    model: str = param(
        "", "Folder of a 'train' run: for --near, for lists of symmetry copies, and to invert optics groups "
        "in which training found black contrast.", path=True)
    near: str = param(
        "", "Latent point z as comma-separated numbers: reconstruct the --k particles nearest to it.",
        label="Near latent point")
    k: int = param(2000, "Number of particles nearest to --near.", low=2, label="Number of nearest particles")
    symmetry: str = param("c1", "Point group imposed on the map (cN or dN).")
    padding: int = param(2, "Padding factor of the Fourier transform.", low=1, high=4, expert=True)
    mask: str = param("", "Mask (MRC, 0 to 1) for the FSC; empty: a soft sphere.", path=True)


@stage("score",
       "Compare latent points with a simulated truth and with the oracle, which knows every conformation.")
@dataclass(frozen=True)
class ScoreConfig(Common):
    model: str = param("", "Folder of a 'train' run.", path=True, required=True)
    truth: str = param("", "Folder of the 'simulate' run that made the particles.", path=True, required=True)
    analysis: str = param("", "Folder of an 'analyze' run, whose clusters are scored too.", path=True)


def with_length(config: TrainConfig, particles: int) -> TrainConfig:
    """Parameters of the train stage with epochs and patience as numbers, for so many particles."""
    automatic = round(TRAINING_STEPS * config.batch_size / particles)
    epochs = config.epochs or min(max(automatic, FEWEST_EPOCHS), MOST_EPOCHS)
    return dataclasses.replace(config, epochs=epochs, patience=config.patience or max(3, epochs // 3))


def problems(config: Common) -> List[str]:
    """Sentences about every value outside its range or choices; empty when the parameters are sound."""
    sentences = []
    if not re.fullmatch(r"auto|none|\d+(,\d+)*", config.gpus.replace(" ", "")):
        sentences.append("--gpus must be 'auto', 'none' or ids such as '0,1', got '%s'." % config.gpus)
    sentences += _symmetry_problems(getattr(config, "symmetry", "c1"))
    for p in parameters(type(config)):
        sentences += _value_problems(p, getattr(config, p.name))
    return sentences


def _symmetry_problems(symmetry: str) -> List[str]:
    group = re.fullmatch(r"([cd])([1-9]\d*)", symmetry.strip().lower())
    if not group:
        return ["--symmetry must be cN or dN (such as c3 or d2), got '%s'." % symmetry]
    copies = int(group[2]) * (2 if group[1] == "d" else 1)
    if copies > MOST_SYMMETRY_COPIES:
        return ["--symmetry %s has %d asymmetric units, expected at most %d." % (
            symmetry, copies, MOST_SYMMETRY_COPIES)]
    return []


def _value_problems(parameter: Parameter, value: Any) -> List[str]:
    name, units = parameter.flag, " " + parameter.units if parameter.units else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ["%s must be a finite number, got %s." % (name, value)]
    sentences = []
    if parameter.choices and value not in parameter.choices:
        sentences.append("%s must be one of %s, got '%s'." % (name, ", ".join(parameter.choices), value))
    if parameter.low is not None and value < parameter.low:
        sentences.append("%s must be at least %s%s, got %s." % (name, parameter.low, units, value))
    if parameter.high is not None and value > parameter.high:
        sentences.append("%s must be at most %s%s, got %s." % (name, parameter.high, units, value))
    return sentences


def missing_files(config: Common) -> List[str]:
    """Sentences about files and folders that a parameter names and that do not exist."""
    named = [(p.flag, getattr(config, p.name)) for p in parameters(type(config)) if p.path]
    return ["%s %s does not exist." % (name, path) for name, path in named
            if path and not os.path.exists(path)]


def missing_parameters(config: Common) -> List[str]:
    """A sentence about the required parameters that are empty; no sentence when all are given."""
    names = [p.flag for p in parameters(type(config)) if p.required and not getattr(config, p.name)]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return ["%s needs %s; see gmmhet %s --help" % (config.stage, listed, config.stage)] if names else []


def check_resolution(resolution_angst: float, pixel_size: float) -> None:
    """Refuse a --resolution (Å) beyond the Nyquist limit of pixels (Å/px); 0 stands for none.

    Raises
    ------
    ConfigError
        naming both.
    """
    if 0 < resolution_angst < 1.999 * pixel_size:
        raise ConfigError(
            "--resolution %.4g Å is finer than pixels of %.4g Å hold: give %.4g Å (two pixels) or more" % (
                resolution_angst, pixel_size, 2 * pixel_size))


def from_dict(cls: Type[AnyConfig], values: Dict[str, Any]) -> AnyConfig:
    """Parameters of a stage from a dict (a JSON file), with types checked.

    Raises
    ------
    ConfigError
        for an unknown key (with the nearest known one) or a value of the wrong type.
    """
    import difflib
    kinds = {p.name: p.kind for p in parameters(cls)}
    checked = {}
    for key, value in values.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, list(kinds), 1)
            advice = "did you mean '%s'?" % near[0] if near else "see gmmhet %s --help" % cls.stage
            raise ConfigError("unknown parameter '%s' for stage '%s'; %s" % (key, cls.stage, advice))
        kind = kinds[key]
        is_right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value, is_right = float(value), True
        if not is_right:
            raise ConfigError("parameter '%s' of stage '%s' must be %s, got %r" % (
                key, cls.stage, kind.__name__, value))
        checked[key] = value
    return cls(**checked)


def to_json(config: Common) -> str:
    """The JSON that repeats a run with ``gmmhet STAGE --config``."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"
