"""The notebook in docs/notebooks runs on the results of a study, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "docs/notebooks/results.ipynb").read_text(encoding="utf-8"))
STUDY = 'STUDY = Path("../../results/digits")\n'
# What the cells have defined is checked in their own process, after the last one.
CHECKS = """
assert list(study.children) == ["digits_labels_relu", "digits_labels_tanh"]
study.to_netcdf("study.nc")
assert xr.open_datatree("study.nc")[SETTING].to_dataset().identical(data.load())

assert len(plt.get_fignums()) == 2
for axes_of_line in (left, right):
    assert [line.get_label() for line in axes_of_line.lines] == ["none", "fresh"]
    assert all(np.isfinite(line.get_ydata()).all() for line in axes_of_line.lines)
plot(right, rank.sel(arm="none").where(rank.task % 2 == 0), "every second task")
assert list(right.lines[-1].get_xdata()) == [0, 2, 4]

assert gap.to_series().unstack("seed").shape == (len(data.arm), 2)
assert set(data.arm_strength.dropna("arm").values) == {0.001, 0.01}
assert np.isfinite(rank_of_copies).sum() > 1
print("checked")
"""


def cells(kind):
    """Return the text of all cells of a kind."""
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_notebook_has_no_outputs():
    assert NOTEBOOK["nbformat"] == 4
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs"), "clear all outputs before you commit the notebook"
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_notebook_runs_on_a_study(tiny_study, tmp_path):
    # in a plain interpreter, since Jupyter is not in the environment
    program = "\n".join([*cells("code"), CHECKS])
    assert STUDY in program
    program = program.replace(STUDY, f"STUDY = Path({str(tiny_study.results)!r})\n")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "workflow" / "scripts"),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
    }
    process = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    *curvature, last = process.stdout.splitlines()
    assert last == "checked"
    assert [line.partition(":")[0] for line in curvature] == ["0", "2", "last_two", "all"]
