"""What a stage says while it works: the logger `log` and the progress of long loops."""
import logging
import sys
import time
from logging.handlers import MemoryHandler
from typing import Iterable, Iterator, Optional, TypeVar

from tqdm import tqdm

#: messages that are kept for a log file which does not exist yet
MOST_BUFFERED = 10**6

Item = TypeVar("Item")


class _Console(logging.Handler):
    """Messages on stderr, above a progress bar where one is drawn; warnings and errors say so."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname + ": " if record.levelno >= logging.WARNING else ""
        tqdm.write("%s %s%s" % (time.strftime("%H:%M:%S"), level, record.getMessage()), file=sys.stderr)


log = logging.getLogger("gmmhet")
if not log.handlers:
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_Console())


def buffer_log() -> None:
    """Keep messages from now on for the file that the next `log_to` names: a run's folder is made only when
    the checks of its input have passed."""
    log.addHandler(MemoryHandler(MOST_BUFFERED, flushLevel=logging.CRITICAL + 1))


def log_to(path: Optional[str]) -> None:
    """Also append every message to the file `path`, those of `buffer_log` first; a second call with another
    path moves there.

    Parameters
    ----------
    path : str or None, None ends the writing to a file and drops the buffered messages.
    """
    file = None
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in [h for h in log.handlers if isinstance(h, (logging.FileHandler, MemoryHandler))]:
        log.removeHandler(handler)
        if isinstance(handler, MemoryHandler) and file:
            handler.setTarget(file)
        handler.close()
    if file:
        log.addHandler(file)


def progress(iterable: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Iterate and say how far it is: a bar in a terminal, else a line about every tenth with the time left.

    Parameters
    ----------
    iterable : the items.
    total : int, how many there will be.
    label : str, what is being done.

    Yields
    ------
    the items, unchanged.
    """
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=label, file=sys.stderr, dynamic_ncols=True)
        return
    start, reported_tenth = time.monotonic(), 0
    for done, item in enumerate(iterable, 1):
        yield item
        tenth = 10 * done // max(total, 1)
        if tenth > reported_tenth:
            reported_tenth = tenth
            spent = time.monotonic() - start
            left = spent / done * max(total - done, 0)
            log.info("%s: %d of %d (%d %%), %s spent, %s left", label, done, total,
                     100 * done // max(total, 1),
                     tqdm.format_interval(spent), tqdm.format_interval(left))
