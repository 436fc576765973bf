"""Explore a study in the browser: choose setting, arms, measure and outcome, and see their plots.

    python workflow/scripts/explore.py results/digits

The page shows the study's netCDF files. It is served to this machine only; stop it with Ctrl-C.
"""

import argparse
from pathlib import Path

from plasticity.errors import StudyError
from plasticity.report import explorer
from plasticity.report.style import Style
from plasticity.storage import netcdf

STYLE = Path(__file__).parents[1] / "style.yaml"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        default=Path("results/digits"),
        help="folder of a study (default: results/digits)",
    )
    parser.add_argument(
        "--port", type=int, default=5006, help="port to serve on; 0: any free one (default: 5006)"
    )
    return parser


def main() -> None:
    arguments = parser().parse_args()
    results = arguments.results
    datasets = {
        path.stem: netcdf.open_dataset(path) for path in sorted(results.glob("datasets/*.nc"))
    }
    if not datasets:
        parser().error(
            f"{results}/datasets has no setting. Run the study first, or name another folder below"
            " results/."
        )
    try:
        explorer.serve(results.name, datasets, Style.read(STYLE), arguments.port)
    except StudyError as error:
        parser().error(str(error))


if __name__ == "__main__":
    main()
