"""Build every table of a study."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from plasticity.config.models import Statistics
from plasticity.config.quantities import MAIN_OPERATOR
from plasticity.statistics import (
    associations,
    comparisons,
    early_warning,
    explanations,
    hypotheses,
    intervention_models,
    interventions,
    lead_lag,
    mediation,
    meta_analysis,
    population,
    prediction,
    statements,
    summaries,
    treatment_effects,
)
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, problems_of, setting_titles
from plasticity.statistics.treated_arrays import TreatedArrays, has_interventions


def build_tables(datasets: Mapping[str, xr.Dataset], config: Statistics) -> dict[str, pd.DataFrame]:
    """Build the tables of means and tests, and the statements about them.

    Args:
        datasets: of each setting, by name.
        config: hypotheses, number of draws, margins and relevant effects.

    Returns:
        Tables by name.
    """
    settings = [SettingArrays.from_dataset(name, data) for name, data in datasets.items()]
    treated = [
        TreatedArrays.from_dataset(name, data)
        for name, data in datasets.items()
        if has_interventions(data)
    ]
    problems = problems_of(settings)
    draws = Draws(config.draws)
    relevant = config.relevant
    primary_measure = f"{MAIN_OPERATOR}_{config.primary}"
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
        "population": population.population(settings, draws, primary_measure),
        "interventions": interventions.interventions(
            treated, problems, draws, relevant, primary_measure
        ),
        "intervention_models": intervention_models.intervention_models(treated, draws, relevant),
    }
    tables |= hypotheses.adjust_p_values(tests, config)
    fates = {arrays.setting: meta_analysis.fate(arrays, draws, config.lost) for arrays in settings}
    counterexamples = meta_analysis.find_counterexamples(settings, draws, config.lost, config.moved)
    tables |= {
        "counterexamples": counterexamples,
        "arms": meta_analysis.rank_arms(counterexamples, problems, draws),
        "prediction": prediction.prediction(settings, draws, fates, config.primary),
        "early_warning": early_warning.early_warning(settings, config.lost, primary_measure),
        "redundancy": prediction.redundancy(settings, draws, config.primary),
        "profiles": comparisons.profiles(settings, draws),
        "treatments": treatment_effects.treatments(treated, draws),
        "mediation": mediation.mediation(treated, draws),
        "intervention_counterexamples": treatment_effects.find_intervention_counterexamples(
            treated, draws, config.lost, config.moved
        ),
    }
    tables["explanations"] = explanations.explanations(tables)
    tables["statements"] = statements.statements(tables, primary_measure, setting_titles(datasets))
    return tables
