"""Run a study: check its config file, remove the lock of a killed run, and start Snakemake.

python workflow/scripts/run.py [options and targets of snakemake]
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity.config.files import check_config_file, check_temporary_folder
from plasticity.config.targets import check_targets
from plasticity.errors import StudyError
from plasticity.provenance import launcher

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"
COMMAND = ("snakemake", "--snakefile", str(SNAKEFILE), "--cores", "all", "--rerun-incomplete")


def check_arguments(arguments: Sequence[str]) -> None:
    """Check the config files and the targets among the arguments of snakemake."""
    config_files, targets = [Path("config.yaml")], []
    if arguments:
        from snakemake.cli import parse_args  # it takes a second

        _, options = parse_args([*arguments, "--workflow-profile", "none"])  # else it says which
        config_files, targets = options.configfile or config_files, options.targets
    for path in config_files:
        check_config_file(path)
    check_targets(targets)


def main(arguments: Sequence[str]) -> None:
    check_temporary_folder()
    check_arguments(arguments)
    message = launcher.release_lock_of_dead_process(Path.cwd())
    if message:
        print(message, file=sys.stderr)
    os.execvp(COMMAND[0], [*COMMAND, *arguments])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
