"""Explore a study: a local page to choose setting, arms, measure and outcome, and to see curves, their scatter and spectra.

    python workflow/scripts/explore.py results/digits

It serves what the netCDF files hold, on this machine alone, until it is told to stop.
"""

import argparse
from pathlib import Path

from plasticity.report import explorer
from plasticity.report.style import Style
from plasticity.storage import netcdf

STYLE = Path(__file__).parents[1] / "style.yaml"

if __name__ == "__main__":
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
        "--port", type=int, default=5006, help="where to serve; 0: any that is free (default: 5006)"
    )
    given = parser.parse_args()
    datasets = {
        path.stem: netcdf.open_dataset(path) for path in sorted(given.results.glob("datasets/*.nc"))
    }
    if not datasets:
        parser.error(
            f"{given.results}/datasets has no setting: run the study first, or name another folder of results/"
        )
    explorer.serve(given.results.name, datasets, Style.read(STYLE), given.port)
