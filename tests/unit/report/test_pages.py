"""Figures with many settings have several pages, and no page is too tall."""

import itertools

import pytest

from plasticity.report import pages


@pytest.fixture
def four_per_page(monkeypatch):
    """Let every figure declare four settings per page."""
    monkeypatch.setattr(pages.registry, "constant", lambda kind, name, target: 4)


@pytest.fixture
def one_page(monkeypatch):
    """Let no figure declare how many settings a page has."""
    monkeypatch.setattr(pages.registry, "constant", lambda kind, name, target: None)


@pytest.mark.usefixtures("four_per_page")
@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (14, [4, 4, 4, 2])]
)
def test_pages_hold_all_settings_in_their_order(count, sizes):
    settings = [f"setting_{index}" for index in range(count)]
    split = pages.split("cloud", settings)
    assert [len(page) for page in split] == sizes
    assert list(itertools.chain(*split)) == settings


@pytest.mark.usefixtures("one_page")
def test_figure_that_declares_no_number_has_one_page():
    assert pages.split("cloud", list("abcdefghijklmn")) == [list("abcdefghijklmn")]
    assert pages.split("cloud", []) == [[]]


@pytest.mark.usefixtures("four_per_page")
def test_first_page_has_the_name_of_the_figure_and_others_a_number():
    assert pages.stems("cloud", list("abcd")) == ["cloud"]
    assert pages.stems("cloud", list("abcdefghi")) == ["cloud", "cloud_2", "cloud_3"]
