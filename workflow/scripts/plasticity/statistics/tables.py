"""Every table of a study."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from plasticity.config.models import Statistics
from plasticity.statistics import (
    associations,
    comparisons,
    hypotheses,
    lead_lag,
    meta_analysis,
    prediction,
    statements,
    summaries,
)
from plasticity.statistics.panels import Panel
from plasticity.statistics.resampling import Draws


def tables(datasets: Mapping[str, xr.Dataset], how: Statistics) -> dict[str, pd.DataFrame]:
    """Means, tests, and what they say in words.

    Args:
        datasets: of each setting, by name.
        how: hypotheses, and how many draws.
    """
    panels, draws = [Panel.of(name, data) for name, data in datasets.items()], Draws(how.draws)
    declared = {(one.arm, one.versus) for one in how.hypotheses if one.versus}
    within, beside = associations.associations(panels, draws)
    tested = {
        "associations": within,
        "nulls": beside,
        "lead_lag": lead_lag.lead_lag(panels, draws),
        "consistency": meta_analysis.consistency(panels, draws),
        "comparisons": comparisons.comparisons(panels, draws, declared),
    }
    found = hypotheses.adjusted(tested, how.hypotheses) | {
        "counterexamples": meta_analysis.counterexamples(panels, draws, how.lost, how.moved),
        "prediction": prediction.prediction(panels, draws),
        "redundancy": prediction.redundancy(panels, draws),
        "profiles": comparisons.profiles(panels, draws),
    }
    means = {
        "summary": summaries.summary(datasets),
        "outcomes": summaries.outcomes(datasets),
        "measures": summaries.measures(datasets),
    }
    return means | found | {"statements": statements.statements(means | found)}
