"""What is published in docs/{study}: figures are drawn again from the tables beside them, and come out equal."""

import functools
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import yaml
from tiers import slow_except

from plasticity.config import registry
from plasticity.config import study as studies
from plasticity.report import publish, reference
from plasticity.report.style import Style, save

ROOT = Path(__file__).parents[3]
PUBLISHED = sorted(folder.parent.name for folder in (ROOT / "docs").glob("*/figures"))


def of(name):
    config = yaml.safe_load(reference.config_of(name).read_text())
    return studies.read(config), ROOT / "docs" / name


def test_studies_are_published_with_all_their_figures():
    assert "digits" in PUBLISHED
    for name in PUBLISHED:
        assert sorted(path.stem for path in (ROOT / "docs" / name / "figures").iterdir()) == sorted(
            registry.names("figures")
        )


@functools.cache
def datasets_of(name):
    """What was published of a study's datasets: to look at, not to change."""
    return publish.published(*of(name))


CASES = [(name, figure) for name in PUBLISHED for figure in registry.names("figures")]


@pytest.mark.parametrize(
    ("name", "figure"),
    slow_except([("digits", one) for one in ("associations", "methods", "scatter")], CASES),
)
def test_a_published_figure_is_what_the_published_tables_draw(name, figure, tmp_path):
    study, folder = of(name)
    style = Style.read(ROOT / "workflow/style.yaml")
    with style.used():
        save(
            publish.draw(study, datasets_of(name), folder, figure, style),
            [tmp_path / "again.png"],
            {"source": "test"},
        )
    old, new = (
        matplotlib.image.imread(path)
        for path in (folder / "figures" / f"{figure}.png", tmp_path / "again.png")
    )
    assert old.shape == new.shape
    differ = np.mean(np.abs(old - new) > 0.05)  # by more than another processor's rounding
    assert differ < 1e-5, f"{differ:.2%} of it differs: make reproduce STUDY={name} ARGS=--publish"


@pytest.mark.parametrize("name", slow_except(["digits"], PUBLISHED))
def test_what_is_published_of_a_dataset_is_small(name):
    study, folder = of(name)
    assert {path.stem for path in folder.glob("drawn/*.nc")} == set(study.settings)
    for path in folder.glob("drawn/*.nc"):
        assert path.stat().st_size < 2e6, path
        data = datasets_of(name)[path.stem]
        assert {"final_error", "fresh_final_error"} < set(data.data_vars)
        assert not any(
            data[one].sel(arm=~data.arm.isin(["none", "fresh"])).notnull().any()
            for one in ("weight_norm", "feature_rank")
        )
