"""Explore a study in the browser: choose setting, arms, measure and outcome, and see their plots.

    python workflow/scripts/explore.py [--study mnist]

The page shows the study's netCDF files. It is served to this machine only; stop it with Ctrl-C.
"""

import argparse
from pathlib import Path

from plasticity.config import layers, names
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


def find_results(study: str) -> Path:
    """Find the results of a study.

    Args:
        study: its name, its config file or the folder of its results.

    Raises:
        StudyError: the study is unknown.
    """
    if Path(study).is_dir():
        return Path(study)
    return Path("results", layers.read_config([names.find(study)])["study"])


def serve(study: str, port: int) -> None:
    """Serve the page of a study."""
    results = find_results(study)

    from plasticity.report import explorer
    from plasticity.report.style import Style
    from plasticity.storage import netcdf

    datasets = {
        path.stem: netcdf.open_dataset(path) for path in sorted(results.glob("datasets/*.nc"))
    }
    if not datasets:
        raise StudyError(
            f"{results}/datasets has no setting. Run the study first: make run STUDY={study}"
        )
    explorer.serve(results.name, datasets, Style.read(STYLE), port)


def main() -> None:
    arguments = parser().parse_args()
    try:
        serve(arguments.study, arguments.port)
    except StudyError as error:
        parser().error(str(error))


if __name__ == "__main__":
    main()
