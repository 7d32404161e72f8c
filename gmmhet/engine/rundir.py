"""Names and contents of every file a run leaves, and the rules of a run folder.

Standard library only and Python 3.8, because Scipion reads run folders too.
"""
import csv
import errno
import json
import os
from contextlib import contextmanager
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional

#: errors of the system when a disk, a quota or the largest size of a file is reached
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# every stage
CONFIG, SUMMARY, LOG = "config.json", "summary.json", "log.txt"
# fit, decode, and every trajectory of analyze
SHOW = "show.cxc"
# simulate
STAR, STACK, MAP, TRUTH, ORACLE = "particles.star", "particles.mrcs", "map.mrc", "truth.npz", "oracle.json"
# fit
GMM, GMM_CIF, GMM_MAP, FSC = "gmm.npz", "gmm.cif", "gmm.mrc", "fsc.csv"
# train
LATENTS, MODEL, HISTORY, WORK, EVIDENCE = "latents.npz", "model", "history.csv", "work", "evidence.png"
NULL, HALF_SETS = "null", ("half1", "half2")     # folders of the controls
# refine
POSES = "poses.npz"
# analyze
EMBEDDING, DIRECTIONS, LANDSCAPE = "embedding.npz", "directions.npz", "landscape.png"
# reconstruct
HALF1, HALF2 = "half1.mrc", "half2.mrc"

#: what a finished run of a stage must hold
FILES = {
    "simulate": (STAR, STACK, MAP, TRUTH, ORACLE),
    "fit": (GMM, GMM_CIF, GMM_MAP, FSC),
    "train": (LATENTS, MODEL, HISTORY),
    "refine": (STAR, POSES),
    "analyze": (EMBEDDING, DIRECTIONS, LANDSCAPE),
    "decode": (),
    "reconstruct": (MAP, HALF1, HALF2, FSC, STAR),
    "score": (),
}


#: parameters that do not change a run's result
MAY_DIFFER = ("out", "resume", "threads", "gpus", "pause_after_epoch")
#: parameters that may be larger when a run is resumed, to take it further, or switched on
MAY_GROW = ("epochs", "patience", "null", "half_sets")


class RunDirError(ValueError):
    """The run folder cannot be used as asked; the message says why and what to do."""


def cluster_ids(label: int) -> str:
    """File of the particle ids of cluster `label` (from 1)."""
    return "cluster_%02d_ids.txt" % label


def cluster_map(label: int) -> str:
    """File of the decoded map at the centre of cluster `label` (from 1)."""
    return "cluster_%02d.mrc" % label


def trajectory(name: str) -> str:
    """Folder of a trajectory: point_01.mrc ..., point_01.npz ..., point_01_ids.txt ..., motion.bild,
    motion.cif, z.txt and show.cxc."""
    return "trajectory_%s" % name


def point(i: int, ending: str) -> str:
    """File of point `i` (from 1) of a trajectory or of a decode run: ``.mrc``, ``.npz``, ``.cif`` or
    ``_ids.txt``."""
    return "point_%02d%s" % (i, ending)


class RunDir:
    """One run's folder.

    Parameters
    ----------
    path : str
    resume : bool, True accepts a folder that already holds a run.
    is_worker : bool, True for a process that works on the run of another one, the chief, which alone writes
        into the folder.

    Raises
    ------
    RunDirError
        when `path` is empty, is a file or lies below one, or holds another run and `resume` is False.
    """

    def __init__(self, path: str, resume: bool = False, is_worker: bool = False):
        if not path:
            raise RunDirError("--out is missing: name the folder that receives the results")
        above = path
        while above and not os.path.exists(above):
            above = os.path.dirname(above)
        if above and not os.path.isdir(above):
            where = "is a file" if above == path else "lies below %s, which is a file" % above
            raise RunDirError("--out %s %s, expected a folder: choose another name" % (path, where))
        if os.path.exists(os.path.join(path, CONFIG)) and not (resume or is_worker):
            raise RunDirError("--out %s already holds a run: choose another folder, or add --resume to "
                              "continue that run" % path)
        self.path, self.is_worker = path, is_worker
        self.begin: Optional[Callable[[], None]] = None

    def __call__(self, *names: str) -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, *names)

    def create(self) -> "RunDir":
        """Make the folder and start its log; a stage calls it when every check of its input has passed.

        Raises
        ------
        RunDirError
            when the folder cannot be made.
        """
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise RunDirError("--out %s cannot be made: %s" % (self.path, error.strerror)) from None
        if self.begin is not None:
            self.begin()
        return self

    def withdraw(self) -> None:
        """Give up a run that was refused before it wrote more than parameters and log: the same --out can be
        given again."""
        left = {name for _, _, files in os.walk(self.path) for name in files}
        if CONFIG in left and left <= {CONFIG, LOG} and not self.is_worker:
            os.remove(self(CONFIG))

    def check_same(self, config: Any) -> bool:
        """Refuse to resume a run with other parameters than it was started with.

        Returns
        -------
        bool, whether the parameters take the run further than it was to go.

        Raises
        ------
        RunDirError
            naming the parameters that differ (those that only say how to run may differ), or when the run is
            of another stage.
        """
        stored = read_json(self(CONFIG))
        foreign = [k for k in stored if k not in vars(config)]
        if foreign:
            raise RunDirError("--resume: %s holds a run of another stage or version (its parameters include "
                              "%s, which '%s' does not have): choose another --out" % (
                                  self.path, ", ".join(foreign), config.stage))
        new = {k: v for k, v in vars(config).items() if k not in MAY_DIFFER}
        changed = [k for k, v in new.items() if k in stored and stored[k] != v]
        grown = [k for k in changed if k in MAY_GROW and new[k] > stored[k]]
        other = ["%s (%s in the run, %s now)" % (k, stored[k], new[k]) for k in changed if k not in grown]
        if other:
            raise RunDirError("--resume: %s was started with other parameters: %s; give the same, or another "
                              "--out" % (self.path, ", ".join(other)))
        return bool(grown)

    def reopen(self) -> None:
        """A finished run goes on: it counts as unfinished until it has written its summary again."""
        if os.path.exists(self(SUMMARY)):
            os.remove(self(SUMMARY))

    def write_summary(self, values: Dict[str, Any]) -> None:
        """Write summary.json in one step, so that a reader never sees half of it."""
        with whole_file(self(SUMMARY)) as f:
            f.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))

    def read_summary(self) -> Dict[str, Any]:
        """summary.json as a dict; empty when the run has not finished."""
        return read_json(self(SUMMARY))


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` in one step: a reader, also after a crash, finds all of
    the old file or all of the new one.

    Raises
    ------
    OSError
        when the disk (or a quota) is full; `path` is then as it was before.
    """
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        if not isinstance(error, OSError) or error.errno not in DISK_FULL:
            raise
        raise OSError("'%s' cannot be written: %s. The run is kept as it was before: make room and continue "
                      "it with --resume" % (path, error.strerror)) from None


def read_columns(path: str) -> Dict[str, List[float]]:
    """The columns of a CSV file of numbers with a header (history.csv, fsc.csv), by name."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(header)}


def read_json(path: str) -> Dict[str, Any]:
    """A JSON file as a dict; empty when it does not exist.

    Raises
    ------
    RunDirError
        when the file is damaged.
    """
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as f:
            values: Dict[str, Any] = json.load(f)
    except ValueError as error:
        raise RunDirError("%s is not readable JSON (%s): the run is damaged, make it again in another folder"
                          % (path, error)) from None
    return values


def is_finished(path: str, stage: str) -> bool:
    """Whether `path` holds a finished run of `stage`."""
    if not read_json(os.path.join(path, SUMMARY)):
        return False
    return all(os.path.exists(os.path.join(path, name)) for name in FILES[stage])


def missing_run(path: str, stage: str) -> str:
    """A sentence when `path` is not a finished run of `stage`, else an empty string."""
    if not os.path.isdir(path):
        return "'%s' is not a folder: expected the --out folder of a '%s' run" % (path, stage)
    lacking = [f for f in FILES[stage] + (SUMMARY,) if not os.path.exists(os.path.join(path, f))]
    if lacking:
        return "'%s' is not a finished '%s' run: it lacks %s" % (path, stage, ", ".join(lacking))
    return ""
