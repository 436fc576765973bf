"""How every entry starts and ends: arguments in, a log, the code checked, and a sentence instead of a traceback."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plasticity import log
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record


@dataclass(frozen=True)
class Job:
    """One call of an entry.

    Attributes:
        paths: files by the name of their argument.
        settings: what the rule's params hold of the config.
        stamp: what results of this job are made with: its entry, settings, code and versions.
        memory: bytes that it was granted, if that was said.
        inputs: checksum of each file that it was given, by name.
    """

    paths: dict[str, list[Path]]
    settings: Any
    stamp: dict[str, str]
    memory: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> dict[str, str]:
        """Global attributes for the results of this job: its stamp and its inputs, but not a choice, whose arm is in the settings."""
        chosen = {record.name(path) for path in self.paths.get("choice", ())}
        inputs = {name: digest for name, digest in self.inputs.items() if name not in chosen}
        return self.stamp | {"inputs": json.dumps(inputs, sort_keys=True)}

    def take(self, paths: Sequence[Path]) -> Sequence[Path]:
        """Files as inputs: each must be what its record says.

        Raises:
            StudyError: one is missing, or was altered.
        """
        self.inputs.update({record.name(path): record.checked(path) for path in paths})
        return paths

    def knowing(self, **settings: object) -> "Job":
        """The same job with more settings, which its stamp names, too."""
        known = self.settings | settings
        return replace(
            self, settings=known, stamp=self.stamp | {"settings": json.dumps(known, sort_keys=True)}
        )

    def path(self, name: str) -> Path:
        """The one file of that argument."""
        return self.paths[name][0]


def start(
    main: Callable[[Job], None],
    description: str | None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    optional: Sequence[str] = (),
    others: Sequence[str] = (),
) -> None:
    """Run an entry as a rule does, or by hand; its outputs are recorded.

    Args:
        main: what the entry does.
        description: for ``--help``.
        inputs: names of the arguments that take files to read.
        outputs: of those that take files to write.
        optional: of those that take files to read, or none.
        others: of those that take folders.

    Raises:
        SystemExit: 1 after a `StudyError`, whose sentence goes to the terminal and to the log.
    """
    parser = argparse.ArgumentParser(description=description)
    for name in [*inputs, *outputs, *others]:
        parser.add_argument(f"--{name}", nargs="+", type=Path, required=True)
    for name in optional:
        parser.add_argument(f"--{name}", nargs="*", type=Path, default=[])
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON, as the rule's params give it"
    )
    parser.add_argument(
        "--code",
        type=json.loads,
        default={},
        help="digest of the code that the job was planned with, as JSON",
    )
    parser.add_argument("--log", type=Path, help="file for the log (default: the terminal)")
    parser.add_argument(
        "--memory", type=int, help="MB that the job was granted (default: all of the machine's)"
    )
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        log.open_log(given.log)
        code_digest.check_code_unchanged(given.code)
        stamp = code_digest.stamp(Path(sys.argv[0]).stem, given.settings, given.code)
        paths = {name: getattr(given, name) for name in [*inputs, *outputs, *optional, *others]}
        job = Job(paths, given.settings, stamp, given.memory and given.memory * 10**6)
        for name in [*inputs, *optional]:
            job.take(paths[name])
        main(job)
        record.write([path for name in outputs for path in paths[name]], stamp, job.inputs)
    except StudyError as mistake:
        log.log.error("%s", mistake)
        if given.log:
            print(mistake, file=sys.stderr)
        sys.exit(1)
    except Exception:  # noqa: BLE001 - whatever it is, the log has it, and a person gets a sentence
        log.log.exception("This is a mistake in the code, not in your config:")
        if given.log:
            print(f"unexpected error, with its traceback in {given.log}", file=sys.stderr)
        sys.exit(1)


def _leave(number: int, _: object) -> None:
    """Leave at a signal: what is whole stays, what is half is removed on the way out."""
    for another in (signal.SIGTERM, signal.SIGINT):
        signal.signal(another, lambda *_: None)  # nothing shall disturb the way out
    log.log.warning(
        "told to stop (%s); what is finished stays: start snakemake again",
        signal.Signals(number).name,
    )
    sys.exit(128 + number)
