"""The page about the evidence has the numbers of the published runs, computed by other routes."""

import re

import evidence
import numpy as np
import pytest
import xarray as xr

PAGE = evidence.PAGE.read_text(encoding="utf-8")


def published_gaps(setting):
    """Return final error minus that of the network from scratch, shape ``(seed, task)``."""
    with xr.open_dataset(evidence.DOCS / "evidence/drawn" / f"{setting}.nc") as data:
        error, baseline = data["final_error"], data["fresh_final_error"]
        gap = error.sel(arm="none") - baseline.sel(arm="none")
        return gap.transpose("seed", "task").values.astype(float)


def cells_of_claim(name):
    """Return the verdict and the finding of a claim on the page."""
    (row,) = re.findall(rf"^\| {name}: (.*) \|$", PAGE, flags=re.MULTILINE)
    _, verdict, found = row.split(" | ")
    return verdict.strip("*"), found.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_each_declared_claim_is_answered(claim):
    verdict, found = cells_of_claim(claim)
    assert verdict
    assert found


def test_losses_of_claim_c1_are_those_of_the_published_runs():
    _, found = cells_of_claim("C1")
    names = [name for name in evidence.setting_names() if "separable" in name]
    assert len(names) >= 2
    for name in names:
        late = published_gaps(name)[:, -6:].mean()  # the last eighth of 50 tasks
        written = evidence.format_number(late)
        assert f"{evidence.activation(name)} {written} [" in found


def growth_of_gap(setting):
    """Return the mean gap over the last eighth of the tasks minus the first, shape ``(seed,)``."""
    gaps = published_gaps(setting)
    return gaps[:, -max(1, gaps.shape[1] // 8) :].mean(axis=1) - gaps[:, 0]


def test_plasticity_is_lost_where_the_gap_of_the_published_runs_grows():
    for name in evidence.setting_names():
        growth = growth_of_gap(name)
        error = growth.std(ddof=1) / np.sqrt(len(growth))
        verdict = evidence.fate(name)["verdict"].partition(",")[0]
        if verdict == "lost":
            assert growth.mean() - error > evidence.LOST
        elif verdict == "kept":
            assert growth.mean() + error < evidence.LOST


def test_page_counts_the_settings():
    counts = re.search(r"plasticity is lost in (\d+) of (\d+) settings", " ".join(PAGE.split()))
    names = evidence.setting_names()
    lost = sum(growth_of_gap(name).mean() > evidence.LOST for name in names)
    assert counts.groups() == (str(lost), str(len(names)))


def test_page_is_short():
    """Two screens: about 120 lines."""
    assert len(PAGE.splitlines()) <= 120
