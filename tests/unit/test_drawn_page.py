"""The page about drawn settings has the numbers of the published tables."""

import drawn


def test_page_is_what_the_published_tables_say():
    assert drawn.PAGE.read_text(encoding="utf-8") == drawn.page()


def test_settings_are_those_of_the_study():
    counts = drawn.verdicts()
    assert sum(counts.values()) == 60
    assert (drawn.correlations()["settings"] == 60).all()


def test_headline_names_the_explanations_whose_correlation_is_clearly_larger():
    differences = drawn.differences()
    rank = drawn.correlations().loc[drawn.PRIMARY]
    assert rank["low"] < 0 < rank["high"], "the page says that nothing is shown for the rank"
    assert "This is not shown" in drawn.headline()
    larger = differences[differences["low"] > 0].index.intersection(drawn.agreement().index)
    assert list(larger.difference(drawn.DEPENDS_ON_WINDOW)) == ["saturated_fraction"]
    assert "larger in each window: saturated units (share)." in " ".join(drawn.headline().split())
