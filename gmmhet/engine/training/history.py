"""The history of a training: one row an epoch, in history.csv."""
import csv
import io
from typing import Any

from gmmhet.engine import rundir


def history_row(epoch: int, training_gain: float, held_out_gain: float, kl: float, seconds: float,
                behind: float) -> dict[str, Any]:
    """One row.

    Parameters
    ----------
    epoch : from 1.
    training_gain, held_out_gain : of the particles learned from and of those held out, over the neutral model
        or the earlier stage (nats, or FRC). While coarse rings alone are learned, the former is nan: at other
        rings the comparison says nothing.
    kl : mean divergence of the latent posterior from the prior, nats.
    seconds : that the epoch took.
    behind : by how many standard errors of the difference held-out particles are worse explained than by the
        best epoch before.
    """
    return dict(epoch=epoch, training_gain=training_gain, held_out_gain=held_out_gain, divergence=kl,
                seconds=seconds, behind_best=behind)


def write_history(path: str, rows: list[dict[str, Any]]) -> None:
    """Write history.csv in one step."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with rundir.whole_file(path) as file:
        file.write(text.getvalue().encode("utf-8"))
