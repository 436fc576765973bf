"""Build every table of a study."""

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
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, problems_of


def build_tables(datasets: Mapping[str, xr.Dataset], config: Statistics) -> dict[str, pd.DataFrame]:
    """Build the tables of means and tests, and the statements about them.

    Args:
        datasets: of each setting, by name.
        config: hypotheses, number of draws, margins and relevant effects.

    Returns:
        Tables by name.
    """
    settings = [SettingArrays.from_dataset(name, data) for name, data in datasets.items()]
    draws = Draws(config.draws)
    relevant = config.relevant
    tables = {
        "summary": summaries.summary(datasets),
        "outcomes": summaries.outcomes(datasets),
        "measures": summaries.measures(datasets),
    }
    all_associations, null_rows = associations.associations(settings, draws, relevant)
    declared_pairs = {
        (hypothesis.arm, hypothesis.versus) for hypothesis in config.hypotheses if hypothesis.versus
    }
    tests = {
        "associations": all_associations,
        "null_models": null_rows,
        "lead_lag": lead_lag.lead_lag(settings, draws, relevant),
        "consistency": meta_analysis.consistency(settings, draws, relevant),
        "comparisons": comparisons.comparisons(settings, draws, config.lost, declared_pairs),
    }
    tables |= hypotheses.adjust_p_values(tests, config)
    fates = {arrays.setting: meta_analysis.fate(arrays, draws, config.lost) for arrays in settings}
    counterexamples = meta_analysis.find_counterexamples(settings, draws, config.lost, config.moved)
    tables |= {
        "counterexamples": counterexamples,
        "arms": meta_analysis.rank_arms(counterexamples, problems_of(settings), draws),
        "prediction": prediction.prediction(settings, draws, fates),
        "redundancy": prediction.redundancy(settings, draws),
        "profiles": comparisons.profiles(settings, draws),
    }
    tables["statements"] = statements.statements(tables)
    return tables
