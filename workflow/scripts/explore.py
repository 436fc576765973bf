"""Explore a study in the browser: choose setting, arms, measure and outcome, and see their plots.

    python workflow/scripts/explore.py [--study mnist]

The page shows the study's netCDF files, also while the study is running. It is served to this
machine only; stop it with Ctrl-C.
"""

import argparse
from pathlib import Path

from plasticity.config import layers, names
from plasticity.config.study import Study, read
from plasticity.errors import StudyError

STYLE = Path(__file__).parents[1] / "style.yaml"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study",
        default="config.yaml",
        metavar="NAME",
        help="name of a file in studies/, a path of a config, or a folder in results/ (default: "
        "config.yaml)",
    )
    parser.add_argument(
        "--port", type=int, default=5006, help="port to serve on; 0: any free one (default: 5006)"
    )
    return parser


def find_study(study: str) -> tuple[Path, Study | None]:
    """Find the results of a study and its config.

    Args:
        study: its name, its config file or the folder of its results.

    Returns:
        The folder, and the study; None if only the folder is known.

    Raises:
        StudyError: the study is unknown, or its config is wrong.
    """
    if Path(study).is_dir():
        return Path(study), None
    path = names.find(study)
    described = read(layers.read_config([path]), str(path))
    return Path("results", described.name), described


def serve(study: str, port: int) -> None:
    """Serve the page of a study."""
    results, described = find_study(study)

    from plasticity.report import explorer
    from plasticity.report.explorer_files import StudyFiles
    from plasticity.report.style import Style

    files = StudyFiles(results, described)
    if not files.datasets and not files.problems and not any(results.glob("runs/*")):
        raise StudyError(
            f"{results}/datasets has no setting. Run the study first: make run STUDY={study}"
        )
    explorer.serve(results.name, files, Style.read(STYLE), port)


def main() -> None:
    arguments = parser().parse_args()
    try:
        serve(arguments.study, arguments.port)
    except StudyError as error:
        parser().error(str(error))


if __name__ == "__main__":
    main()
