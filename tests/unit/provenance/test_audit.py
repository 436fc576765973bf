"""Moving results aside, whatever is there already."""

import pytest

from plasticity.provenance import audit


def make_file(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_folder(path, text):
    make_file(path / "inside", text)


def read(path):
    return (path / "inside" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("make_earlier", [make_file, make_folder])
@pytest.mark.parametrize("make_later", [make_file, make_folder])
def test_result_that_is_moved_aside_replaces_what_was_moved_there_before(
    tmp_path, make_earlier, make_later
):
    study = tmp_path / "results/s"
    make_earlier(study / "aside/figures/f.png", "earlier")
    make_later(study / "figures/f.png", "later")
    audit.move_aside(study, study / "figures/f.png")
    assert not (study / "figures/f.png").exists()
    assert read(study / "aside/figures/f.png") == "later"
