"""Run a study: check its config file, remove the lock of a killed run, and start Snakemake.

python workflow/scripts/run.py [--study mnist] [options and targets of snakemake]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity.config import layers, names
from plasticity.config.files import check_config_file, check_temporary_folder
from plasticity.config.targets import check_targets
from plasticity.errors import StudyError
from plasticity.provenance import launcher

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"
COMMAND = ("snakemake", "--snakefile", str(SNAKEFILE), "--cores", "all", "--rerun-incomplete")


def check_arguments(arguments: Sequence[str]) -> list[str]:
    """Check the config files and the targets among the arguments of snakemake.

    Returns:
        The arguments, in a form that snakemake reads.
    """
    config_files = [Path("config.yaml")]
    targets: list[str] = []
    assignments: list[str] = []
    if arguments:
        from snakemake.cli import parse_args  # it takes a second

        _, options = parse_args([*arguments, "--workflow-profile", "none"])  # else it says which
        config_files, targets = options.configfile or config_files, options.targets
        assignments = options.config or []
    for path in config_files:
        check_config_file(path)
    check_targets(targets)
    return [
        layers.without_dots(argument) if argument in assignments else argument
        for argument in arguments
    ]


def study_option(study: str | None, arguments: Sequence[str]) -> list[str]:
    """Return the option of snakemake that names a study, if there is one.

    Raises:
        StudyError: the study is unknown, or the arguments name another one.
    """
    if not study:
        return []
    if any(argument.startswith("--configfile") for argument in arguments):
        raise StudyError(
            f"STUDY={study} and --configfile both name a study. Remove STUDY, and write all config "
            "files after --configfile."
        )
    return [f"--configfile={names.find(study)}"]


def main(study: str | None, arguments: Sequence[str]) -> None:
    check_temporary_folder()
    arguments = check_arguments([*study_option(study, arguments), *arguments])
    message = launcher.release_lock_of_dead_process(Path.cwd())
    if message:
        print(message, file=sys.stderr)
    os.execvp(COMMAND[0], [*COMMAND, *arguments])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--study")
    known, others = parser.parse_known_args()
    try:
        main(known.study, others)
    except StudyError as error:
        sys.exit(str(error))
