"""Start an entry: parse its arguments, open its log, check its code and inputs, record its outputs.

Every script that a rule calls has a `main(job)`, which `start` runs. It imports what it computes
with in `main`, because `--help`, wrong arguments and a job of the fork server need none of it.
"""

import argparse
import csv
import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plasticity import fork_server, log
from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record


@dataclass(frozen=True)
class Job:
    """One call of an entry.

    Attributes:
        paths: files by the name of their argument.
        settings: the part of the config that the rule passes.
        stamp: identifies how the results are computed: entry, settings, code and versions.
        memory: bytes that the job may use. None: all of the machine's.
        inputs: checksum of each input file, by its name in records.
    """

    paths: dict[str, list[Path]]
    settings: Any
    stamp: dict[str, str]
    memory: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> dict[str, str]:
        """Global attributes of result files: the stamp and the inputs.

        The file with the selected arm is left out, because `settings` holds the arm itself.
        """
        choices = {record.portable_name(path) for path in self.paths.get("choice", ())}
        inputs = {name: digest for name, digest in self.inputs.items() if name not in choices}
        return self.stamp | {"inputs": json.dumps(inputs, sort_keys=True)}

    def take(self, paths: Sequence[Path]) -> Sequence[Path]:
        """Add files to the inputs, and return them.

        Raises:
            StudyError: a file is missing, or differs from its record.
        """
        for path in paths:
            self.inputs[record.portable_name(path)] = record.checked_digest(path)
        return paths

    def with_settings(self, **settings: object) -> "Job":
        """Return the same job with more settings, which its stamp includes."""
        combined = self.settings | settings
        stamp = self.stamp | {"settings": json.dumps(combined, sort_keys=True)}
        return replace(self, settings=combined, stamp=stamp)

    def path(self, name: str) -> Path:
        """Return the single file of an argument."""
        return self.paths[name][0]


def start(
    main: Callable[[Job], None],
    description: str | None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    optional: Sequence[str] = (),
    others: Sequence[str] = (),
) -> None:
    """Run an entry, as a rule does or by hand, and record its outputs and what it cost.

    Args:
        main: body of the entry.
        description: for ``--help``.
        inputs: names of the arguments for files to read.
        outputs: names of the arguments for files to write.
        optional: names of the arguments for files to read that may be absent.
        others: names of the arguments for folders, of which there may be none.

    Raises:
        SystemExit: with status 1 after an error, whose message is in the log and on the terminal.
    """
    parser = _create_parser(description, [*inputs, *outputs], [*optional, *others])
    arguments = parser.parse_args()
    status = fork_server.run(sys.argv)
    if status is not None:
        sys.exit(status)
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_signal)
    try:
        log.open_log(arguments.log)
        code_digest.check_code_unchanged(arguments.code)
        job = _create_job(arguments, [*inputs, *outputs, *optional, *others])
        for name in [*inputs, *optional]:
            job.take(job.paths[name])
        main(job)
        written = [path for name in outputs for path in job.paths[name]]
        record.write(written, job.stamp, job.inputs)
        if arguments.log:
            _write_benchmark(benchmark_file(arguments.log), time.monotonic() - started)
    except StudyError as error:
        log.log.error("%s", error)
        if arguments.log:
            print(error, file=sys.stderr)
        sys.exit(1)
    except Exception:  # noqa: BLE001 - the log has the traceback, the terminal one line
        log.log.exception("This is a bug in the code, not a mistake in your config:")
        if arguments.log:
            print(f"unexpected error; its traceback is in {arguments.log}", file=sys.stderr)
        sys.exit(1)


def benchmark_file(log_file: Path) -> Path:
    """Return the path of a job's benchmark: `logs/{name}.log` → `benchmarks/{name}.tsv`."""
    folders = list(log_file.parts)
    if "logs" in folders:
        last = len(folders) - 1 - folders[::-1].index("logs")
        folders[last] = "benchmarks"
    return Path(*folders).with_suffix(".tsv")


def _write_benchmark(path: Path, seconds: float) -> None:
    """Write time and memory of this process, in columns of Snakemake's benchmark files.

    Snakemake itself would measure the process that waits for the fork server.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime
    megabytes = max(used.ru_maxrss, children.ru_maxrss) / 1024
    with (
        explain_write_errors(path),
        atomic_write(path) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["s", "cpu_time", "max_rss"])
        writer.writerow([f"{seconds:.4f}", f"{cpu_seconds:.2f}", f"{megabytes:.2f}"])


def _create_parser(
    description: str | None, required: Sequence[str], optional: Sequence[str]
) -> argparse.ArgumentParser:
    """Create the parser of an entry's arguments."""
    parser = argparse.ArgumentParser(description=description)
    for name in required:
        parser.add_argument(f"--{name}", nargs="+", type=Path, required=True)
    for name in optional:
        parser.add_argument(f"--{name}", nargs="*", type=Path, default=[])
    parser.add_argument(
        "--settings",
        type=_read_json,
        default={},
        help="settings as JSON, or a file with them, as the rule passes them",
    )
    parser.add_argument(
        "--code",
        type=_read_json,
        default={},
        help="digest of the code with which the job was planned, as JSON or a file with it",
    )
    parser.add_argument("--log", type=Path, help="log file (default: the terminal)")
    parser.add_argument(
        "--memory", type=int, help="MB that the job may use (default: all of the machine's)"
    )
    return parser


def _read_json(text: str) -> Any:
    """Read an argument that is JSON, or the path of a file with JSON."""
    try:
        if not text.startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no file with JSON: {error}") from None


def _create_job(arguments: argparse.Namespace, names: Sequence[str]) -> Job:
    """Create the job that the command line describes."""
    stamp = code_digest.stamp(Path(sys.argv[0]).stem, arguments.settings, arguments.code)
    paths = {name: getattr(arguments, name) for name in names}
    memory = arguments.memory * 10**6 if arguments.memory else None
    return Job(paths, arguments.settings, stamp, memory)


def _exit_at_signal(number: int, _: object) -> None:
    """Exit after a signal; finished tasks stay on disk, and files in progress are removed."""
    for other in (signal.SIGTERM, signal.SIGINT):
        # a second signal must not interrupt the clean-up
        signal.signal(other, lambda *_: None)
    log.log.warning(
        "stopped by %s; finished tasks are saved: start snakemake again to continue",
        signal.Signals(number).name,
    )
    sys.exit(128 + number)
