"""Run a study: check its config file, remove the lock of a killed run, and start Snakemake.

python workflow/scripts/run.py [options and targets of snakemake]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity.config.files import check_config_file, check_temporary_folder
from plasticity.errors import StudyError
from plasticity.provenance import launcher

COMMAND = ("snakemake", "--cores", "all", "--rerun-incomplete")


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Find the config files among the arguments of snakemake; by default config.yaml."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    known, _ = parser.parse_known_args(arguments)
    return known.configfile or [Path("config.yaml")]


def main(arguments: Sequence[str]) -> None:
    check_temporary_folder()
    for path in config_files(arguments):
        check_config_file(path)
    message = launcher.release_lock_of_dead_process(Path.cwd())
    if message:
        print(message, file=sys.stderr)
    os.execvp(COMMAND[0], [*COMMAND, *arguments])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
