"""Targets that Snakemake would not know are refused with the closest known one."""

import re

import pytest

from plasticity.config.targets import check_targets
from plasticity.errors import StudyError


def test_rules_and_paths_are_targets():
    check_targets(
        [
            "all",
            "figures",
            "figure_scatter",
            "train",
            "report",
            "results/digits/tables/summary.csv",
        ]
    )
    check_targets([])


@pytest.mark.parametrize(
    ("target", "suggestion"),
    [("figurs", "Did you mean 'figures'? "), ("Train", "Did you mean 'train'? "), ("xyz", "")],
)
def test_other_names_are_refused(target, suggestion):
    message = re.escape(f"'{target}' is neither a target nor a file. {suggestion}Known: all, ")
    with pytest.raises(StudyError, match=f"^{message}") as refused:
        check_targets(["figures", target])
    listed = str(refused.value).partition("Known: ")[2].rstrip(".").split(", ")
    assert {"data", "train", "curvature", "tables", "figures", "cost"} <= set(listed)
    assert "train_ensemble" not in listed, "it has wildcards"
