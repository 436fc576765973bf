"""The page about a peer's own setting has the numbers of the published study."""

import peers
import pytest


def test_page_is_what_the_published_study_says():
    assert peers.PAGE.read_text(encoding="utf-8") == peers.page()


@pytest.mark.parametrize("arm", peers.AUTHORS)
def test_plasticity_without_intervention_is_lost_and_l2_init_keeps_it(arm):
    early = peers.accuracies(arm, "tasks 2 to 5").mean()
    late = peers.accuracies(arm, "last 5 tasks").mean()
    assert (late < early - 0.03) == (arm == "none")
