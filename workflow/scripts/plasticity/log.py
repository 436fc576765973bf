"""What a job says while it runs: plain lines in its log, a bar on a terminal."""

import functools
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger("plasticity")
Item = TypeVar("Item")


def open_log(path: Path | None) -> None:
    """Send plain lines to a file, after those of former attempts, or to the terminal where a job is started by hand without one."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = (
        logging.FileHandler(path, mode="a", encoding="utf-8") if path else logging.StreamHandler()
    )
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[handler],
        force=True,
    )
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = (
        False  # a line that finds no space is lost, without a traceback in its place
    )
    # where and when belong here, never into a result
    log.info("%s", " ".join(sys.argv[:1]))
    job, node = (os.environ.get(name, "none") for name in ("SLURM_JOB_ID", "SLURMD_NODENAME"))
    log.info(
        "python %s, host %s, slurm job %s on node %s",
        platform.python_version(),
        platform.node(),
        job,
        node,
    )


@functools.cache
def warn_once(said: str) -> None:
    """Warn; of what is the same for every run and task, once."""
    log.warning("%s", said)


def progress(what: str) -> Callable[[Collection[Item]], Iterator[Item]]:
    """A wrapper for a long loop: a bar where there is a terminal, and a line in the log at every tenth of the way."""

    def loop(items: Collection[Item]) -> Iterator[Item]:
        start, said = time.monotonic(), 0
        for done, item in enumerate(
            tqdm(
                items, desc=what, leave=False, disable=not sys.stderr.isatty(), dynamic_ncols=True
            ),
            start=1,
        ):
            yield item
            if (tenth := 10 * done // len(items)) > said:
                said = tenth
                log.info("%s: %d of %d, %.0f s", what, done, len(items), time.monotonic() - start)

    return loop
