"""The page about drawn settings has the numbers of the published tables."""

import drawn


def test_page_is_what_the_published_tables_say():
    assert drawn.PAGE.read_text(encoding="utf-8") == drawn.page()


def test_settings_are_those_of_the_study():
    counts = drawn.verdicts()
    assert sum(counts.values()) == 60
    assert (drawn.correlations()["settings"] == 60).all()
