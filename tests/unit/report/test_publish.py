"""Published figures can be drawn again from the data published with them."""

import functools
import itertools
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tiers import slow_except

from plasticity.config import layers, registry
from plasticity.config import study as studies
from plasticity.report import pages, publish
from plasticity.report.style import Style, save

ROOT = Path(__file__).parents[3]
PUBLISHED = sorted(folder.parent.name for folder in (ROOT / "docs").glob("*/figures"))
CASES = [(name, figure) for name in PUBLISHED for figure in registry.names("figures")]
QUICK_CASES = [("digits", figure) for figure in ("associations", "methods", "scatter")]
MAX_DATASET_BYTES = 2**20


def read_study(name):
    """Read the config that made a published study."""
    made = json.loads((ROOT / "docs" / name / publish.PROVENANCE).read_text(encoding="utf-8"))
    _, _, config = made["command"].partition("--configfile ")
    return studies.read(layers.read_config([ROOT / (config or "config.yaml")]))


@functools.cache
def datasets_of(name):
    """Read the published datasets of a study once; tests do not change them."""
    return publish.published(read_study(name), ROOT / "docs" / name)


def test_digits_is_published():
    assert "digits" in PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_study_is_published_with_all_figures(name):
    study = read_study(name)
    files = sorted(path.stem for path in (ROOT / "docs" / name / "figures").iterdir())
    expected = [pages.stems(figure, study.drawn(figure)) for figure in registry.names("figures")]
    assert files == sorted(itertools.chain(*expected))


@pytest.mark.parametrize(("name", "figure"), slow_except(QUICK_CASES, CASES))
def test_published_figure_equals_one_drawn_from_published_data(name, figure, tmp_path):
    folder, study = ROOT / "docs" / name, read_study(name)
    style = Style.read(ROOT / "workflow/style.yaml")
    with style.applied():
        drawn = publish.draw(study, datasets_of(name), folder, figure, style)
        for stem, page in zip(pages.stems(figure, study.drawn(figure)), drawn, strict=True):
            save(page, [tmp_path / f"{stem}.png"], {"source": "test"})
            check_pixels(folder / "figures" / f"{stem}.png", tmp_path / f"{stem}.png", name)


def check_pixels(published, again, study_name):
    """Check that two pictures are equal; other processors round a few pixels differently."""
    published_pixels = matplotlib.image.imread(published)
    pixels = matplotlib.image.imread(again)
    assert published_pixels.shape == pixels.shape
    differing = np.mean(np.abs(published_pixels - pixels) > 0.05)
    remedy = f"make reproduce STUDY={study_name} ARGS=--publish"
    assert differing < 1e-5, f"{differing:.2%} of the pixels differ: {remedy}"


@pytest.mark.parametrize("name", slow_except(["digits"], PUBLISHED))
def test_published_datasets_are_small_and_hold_only_what_figures_draw(name):
    paths = list((ROOT / "docs" / name).glob("drawn/*.nc"))
    assert {path.stem for path in paths} == set(read_study(name).settings)
    for path in paths:
        assert path.stat().st_size < MAX_DATASET_BYTES, path
        data = datasets_of(name)[path.stem]
        assert {"final_error", "fresh_final_error"} < set(data.data_vars)
        other_arms = ~data.arm.isin(["none", "fresh"])
        for variable in ("weight_norm", "feature_rank"):
            assert data[variable].sel(arm=other_arms).isnull().all(), variable
