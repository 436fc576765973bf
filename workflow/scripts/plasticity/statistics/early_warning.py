"""Early warning: does a measure at the start of a task tell whether the task will go badly?

The event is that a run's gap to the baseline, at the end of the task, exceeds `statistics.lost`. A
logistic regression on one measure is fitted in all settings but one, with equal weight for every
setting, and evaluated in the remaining one.

The predictor is the change of the measure since the run's first trained network, which a user of
one run knows. Ranks among runs are unknown to such a user. Raw values tell settings apart rather
than checkpoints, because norms and ranks grow with the width of the network. Changes are relative,
as in the table of counterexamples, because a logarithm is undefined for a rank of 0 and a negative
trace.

Scored are the checkpoints after the early tasks. Baselines are left out: a new network has no gap,
so a measure that recognizes new networks would seem to give a warning. A measure that drifts can
give a warning only because the gap grows, too. So the number of the task is a measure as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import optimize, special, stats

from plasticity.statistics.changes import compute_change
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.resampling import ROUND_OFF, TAILS
from plasticity.statistics.setting_arrays import (
    MIN_PROBLEMS,
    SettingArrays,
    problems_of,
)
from plasticity.training.outcomes import stages

OUTCOME = "final_error_gap"
TASK = "task"  # the number of the task, as a rival of all measures
# Of half the squared standardized slope, next to the mean negative log-likelihood. Without it, a
# measure that separates the events perfectly would have an infinite slope.
RIDGE = 1e-4
SCORES = ("auc", "skill")  # statistics that are compared between measures
CALIBRATION = ("calibration_intercept", "calibration_slope")
UNFITTED = Estimate(note="no other settings, or the event never or always happens there")
COLUMNS = [
    "measure",
    "versus",
    "statistic",
    "estimate",
    "low",
    "high",
    "settings",
    "checkpoints",
    "events",
    "interval",
    "note",
]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a setting after its early tasks.

    Attributes:
        changes: of each measure since the first trained network, by name, shape
            ``(checkpoint,)``; NaN where not measured.
        is_event: whether the gap at the end of the task exceeds the margin, shape
            ``(checkpoint,)``.
    """

    changes: Mapping[str, np.ndarray]
    is_event: np.ndarray


@dataclass(frozen=True)
class Sample:
    """The checkpoints of a setting that have a measure.

    Attributes:
        change: of the measure, shape ``(checkpoint,)``.
        is_event: shape ``(checkpoint,)``.
    """

    change: np.ndarray
    is_event: np.ndarray


@dataclass(frozen=True)
class Forecast:
    """What a model that was fitted in other settings forecasts in the setting that is left out.

    Attributes:
        logits: of the probability of the event, shape ``(checkpoint,)``.
        is_event: shape ``(checkpoint,)``.
        base_rate: mean over the other settings of their share of events.
        slope: of the model.
    """

    logits: np.ndarray
    is_event: np.ndarray
    base_rate: float
    slope: float

    @property
    def auc(self) -> float:
        """Probability that a checkpoint with the event has a larger logit than one without.

        A tie counts one half. NaN if the setting has only one kind of checkpoints.
        """
        with_event, without = self.logits[self.is_event], self.logits[~self.is_event]
        pairs = len(with_event) * len(without)
        if not pairs:
            return np.nan
        test = stats.mannwhitneyu(with_event, without, method="asymptotic")
        return float(test.statistic) / pairs

    @property
    def brier(self) -> float:
        """Mean squared difference of the forecast probability and the outcome."""
        return float(((special.expit(self.logits) - self.is_event) ** 2).mean())

    @property
    def base_brier(self) -> float:
        """Brier score of the base rate, which knows no measure."""
        return float(((self.base_rate - self.is_event) ** 2).mean())


def early_warning(settings: Sequence[SettingArrays], lost: float, primary: str) -> pd.DataFrame:
    """Evaluate every explanation as a warning of a large gap.

    Args:
        settings: arrays of all settings.
        lost: the event is that the gap exceeds this.
        primary: the measure that stands for curvature.

    Returns:
        One row per measure and statistic:

        - `auc`: mean over the left-out settings in which the event happens at some checkpoints and
          not at others.
        - `brier`: the mean Brier score over the left-out settings.
        - `skill`: 1 minus the ratio of the mean Brier score to that of the base rate.
        - `calibration_intercept`, `calibration_slope`: of the logit of the event on the logit of
          the forecast, over the checkpoints of all left-out settings. They are 0 and 1 if the
          probabilities are right. Settings with different base rates lower the slope.

        Rows with ``versus`` are differences of `auc` and `skill` to another measure, at the
        checkpoints that have both measures: the measure that stands for curvature, and the number
        of the task. ``settings`` counts those with the statistic.

        Intervals are over problems, because neither the runs of a setting nor the settings of a
        problem are independent. Scores are averaged within a problem first. If the
        fitted slope has not the same sign whichever setting is left out, there is no interval:
        every setting that goes against the others then counts against the measure, and Student's
        interval excludes the AUC of an unrelated measure in up to a quarter of studies.
    """
    checkpoints = {arrays.setting: select_checkpoints(arrays, lost) for arrays in settings}
    problems = problems_of(settings)
    measures: dict[str, None] = {}
    for of_setting in checkpoints.values():
        measures |= dict.fromkeys(of_setting.changes)
    rows: list[Row] = []
    for measure in measures:
        forecasts = forecast(samples(checkpoints, measure))
        rows += [{"measure": measure, "versus": "", **row} for row in _rows(forecasts, problems)]
        for versus in (primary, TASK):
            if versus != measure and versus in measures:
                first = forecast(samples(checkpoints, measure, versus))
                second = forecast(samples(checkpoints, versus, measure))
                keys: Row = {"measure": measure, "versus": versus}
                rows += [{**keys, **row} for row in _difference_rows(first, second, problems)]
    return pd.DataFrame(rows, columns=COLUMNS)


def select_checkpoints(arrays: SettingArrays, lost: float) -> Checkpoints:
    """Select the checkpoints after the early tasks, and compute how each measure changed.

    Args:
        arrays: of a setting.
        lost: the event is that the gap exceeds this.
    """
    arrays = arrays.without_baselines().explanations()
    gaps = arrays.outcomes[arrays.outcome_names.index(OUTCOME)]
    tasks = gaps.shape[-1]
    early = stages(tasks)["early"]
    is_selected = np.isfinite(gaps) & (np.arange(tasks) >= early.stop)
    values = {
        variant.measure: of_runs
        for variant, of_runs in zip(arrays.variants, arrays.measures, strict=True)
    }
    values[TASK] = np.broadcast_to(np.arange(tasks, dtype=np.float64), gaps.shape)
    changes = {}
    for measure, of_runs in values.items():
        reference = _first_measured(of_runs[..., early])
        changes[measure] = compute_change(measure, reference, of_runs)[is_selected]
    return Checkpoints(changes, gaps[is_selected] > lost)


def _first_measured(values: np.ndarray) -> np.ndarray:
    """Select the first measured task, ``(…, task)`` → ``(…, 1)``; NaN where none was measured."""
    first = np.isfinite(values).argmax(axis=-1)[..., None]
    return np.take_along_axis(values, first, axis=-1)


def samples(
    checkpoints: Mapping[str, Checkpoints], measure: str, other: str | None = None
) -> dict[str, Sample]:
    """Select the checkpoints that have a measure, by the name of their setting.

    Args:
        checkpoints: of each setting.
        measure: its name.
        other: a measure that the checkpoints must have, too.
    """
    selected = {}
    for setting, of_setting in checkpoints.items():
        if not {measure, other or measure} <= set(of_setting.changes):
            continue
        change = of_setting.changes[measure]
        is_known = np.isfinite(change) & np.isfinite(of_setting.changes[other or measure])
        if is_known.any():
            selected[setting] = Sample(change[is_known], of_setting.is_event[is_known])
    return selected


def forecast(selected: Mapping[str, Sample]) -> dict[str, Forecast]:
    """Forecast the events of each setting by a model that is fitted in the other settings.

    Args:
        selected: samples by the name of their setting.

    Returns:
        Forecasts by the name of the left-out setting. A setting has none if the event never or
        always happens in the others.
    """
    forecasts = {}
    for setting, left_out in selected.items():
        others = [sample for name, sample in selected.items() if name != setting]
        if not others:
            continue
        change = np.concatenate([sample.change for sample in others])
        is_event = np.concatenate([sample.is_event for sample in others])
        if is_event.all() or not is_event.any():
            continue
        shares = [np.full(len(sample.change), 1 / len(sample.change)) for sample in others]
        weights = np.concatenate(shares) / len(others)
        intercept, slope = fit_logistic(change, is_event, weights)
        forecasts[setting] = Forecast(
            logits=intercept + slope * left_out.change,
            is_event=left_out.is_event,
            base_rate=float(weights @ is_event),
            slope=slope,
        )
    return forecasts


def fit_logistic(
    change: np.ndarray, is_event: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Fit a logistic regression on one predictor, with a small ridge penalty of its slope.

    Args:
        change: the predictor, finite, shape ``(checkpoint,)``.
        is_event: shape ``(checkpoint,)``; true somewhere and false somewhere.
        weights: of checkpoints, shape ``(checkpoint,)``; they add up to 1.

    Returns:
        Intercept and slope. The slope is 0 if the predictor is constant.
    """
    base_rate = float(weights @ is_event)
    mean = float(weights @ change)
    spread = float(np.sqrt(weights @ (change - mean) ** 2))
    if spread <= ROUND_OFF * max(1, abs(mean)):
        return float(special.logit(base_rate)), 0.0
    x = (change - mean) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] + parameters[1] * x
        value = weights @ (np.logaddexp(0, logits) - is_event * logits)
        residuals = weights * (special.expit(logits) - is_event)
        gradient = np.array([residuals.sum(), residuals @ x + RIDGE * parameters[1]])
        return float(value + RIDGE * parameters[1] ** 2 / 2), gradient

    def hessian(parameters: np.ndarray) -> np.ndarray:
        probability = special.expit(parameters[0] + parameters[1] * x)
        of_checkpoints = weights * probability * (1 - probability)
        mixed = of_checkpoints @ x
        return np.array(
            [[of_checkpoints.sum(), mixed], [mixed, of_checkpoints @ x**2 + RIDGE]], np.float64
        )

    start = np.array([special.logit(base_rate), 0.0])
    fit = optimize.minimize(loss, start, jac=True, hess=hessian, method="trust-exact", tol=1e-8)
    slope = float(fit.x[1]) / spread
    return float(fit.x[0]) - slope * mean, slope


def _rows(forecasts: Mapping[str, Forecast], problems: Mapping[str, str]) -> Iterator[Row]:
    """Build the rows of one measure."""
    names = [problems[setting] for setting in forecasts]
    scored = list(forecasts.values())
    if not scored:
        for statistic in (*SCORES, "brier", *CALIBRATION):
            yield {"statistic": statistic, **UNFITTED.row(), **_counts(scored, 0)}
        return
    briers = np.array([one.brier for one in scored])
    base_briers = np.array([one.base_brier for one in scored])
    aucs = np.array([one.auc for one in scored])
    scores = {
        "auc": _directed(mean_over_problems(by_problem(aucs, names), bounds=(0, 1)), scored),
        "skill": ratio_over_problems(
            by_problem(base_briers - briers, names), by_problem(base_briers, names)
        ),
        "brier": mean_over_problems(by_problem(briers, names), bounds=(0, 1)),
    }
    calibration = calibrate(scored, names)
    known = int(np.isfinite(aucs).sum())
    for statistic, estimate in {**scores, **calibration}.items():
        counts = _counts(scored, known if statistic == "auc" else len(scored))
        yield {"statistic": statistic, **estimate.row(), **counts}


def _difference_rows(
    first: Mapping[str, Forecast], second: Mapping[str, Forecast], problems: Mapping[str, str]
) -> Iterator[Row]:
    """Build the rows of the differences of two measures at the same checkpoints."""
    names = [problems[setting] for setting in first]
    pairs = [(first[setting], second[setting]) for setting in first]
    scored = list(first.values())
    if not pairs:
        for statistic in SCORES:
            yield {"statistic": statistic, **UNFITTED.row(), **_counts(scored, 0)}
        return
    aucs = np.array([one.auc - other.auc for one, other in pairs])
    mean_auc = mean_over_problems(by_problem(aucs, names), bounds=(-1, 1))
    auc = _directed(mean_auc, scored, list(second.values()))
    known = int(np.isfinite(aucs).sum())
    yield {"statistic": "auc", **auc.row(), **_counts(scored, known)}
    briers = np.array([other.brier - one.brier for one, other in pairs])
    base_briers = np.array([one.base_brier for one, _ in pairs])
    skill = ratio_over_problems(by_problem(briers, names), by_problem(base_briers, names))
    yield {"statistic": "skill", **skill.row(), **_counts(scored, len(scored))}


def _counts(scored: Sequence[Forecast], settings: int) -> Row:
    """Build the columns that count settings, checkpoints and events."""
    return {
        "settings": settings,
        "checkpoints": sum(len(one.is_event) for one in scored),
        "events": sum(int(one.is_event.sum()) for one in scored),
    }


def _directed(auc: Estimate, *forecasts: Sequence[Forecast]) -> Estimate:
    """Remove the interval of an AUC if the direction of a measure depends on who is left out."""
    for of_measure in forecasts:
        if len({np.sign(one.slope) for one in of_measure}) > 1:
            note = join_notes(auc.note, "the direction depends on the left-out setting")
            return Estimate(auc.value, note=note)
    return auc


def by_problem(values: np.ndarray, problems: Sequence[str]) -> np.ndarray:
    """Average the values of the settings of each problem.

    Args:
        values: shape ``(setting,)``; those that are NaN are left out.
        problems: of each setting.

    Returns:
        Shape ``(problem,)``; NaN for a problem without values.
    """
    means = pd.Series(values).groupby(list(problems), sort=False).mean()
    return np.asarray(means)


def mean_over_problems(values: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Average over problems, with Student's t interval.

    Args:
        values: shape ``(problem,)``; NaN where a problem has none.
        bounds: at which the interval is cut.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(note="in no setting the event happens at some checkpoints only")
    estimate = ratio_over_problems(known, np.ones(len(known)))
    return Estimate(
        value=estimate.value,
        low=np.clip(estimate.low, *bounds),
        high=np.clip(estimate.high, *bounds),
        method=estimate.method,
        note=estimate.note,
    )


def ratio_over_problems(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """Divide two means over problems, with Student's t interval of the linearized ratio.

    A mean of ratios would depend mostly on the problems with the least denominators.

    Args:
        numerators: shape ``(problem,)``, finite.
        denominators: shape ``(problem,)``, finite.
    """
    problems = len(numerators)
    mean = denominators.mean()
    if not mean > 0:
        return Estimate(note="the base rate is always right")
    ratio = numerators.mean() / mean
    if problems < MIN_PROBLEMS:
        return Estimate(ratio, note="too few problems for an interval")
    error = stats.sem((numerators - ratio * denominators) / mean)
    if error <= ROUND_OFF:
        return Estimate(ratio, note="the same in all problems")
    reach = stats.t.ppf(TAILS[1], problems - 1) * error
    return Estimate(ratio, ratio - reach, ratio + reach, "Student's t over problems")


def calibrate(scored: Sequence[Forecast], problems: Sequence[str]) -> dict[str, Estimate]:
    """Regress the logit of the event on the logit of the forecast (Cox 1958).

    Every setting has equal weight. The standard errors allow any dependence within a problem.

    Args:
        scored: forecasts, one per left-out setting.
        problems: of the settings.

    Returns:
        Estimates by the names in `CALIBRATION`.
    """
    logits = np.concatenate([one.logits for one in scored])
    is_event = np.concatenate([one.is_event for one in scored])
    if reason := _reason_against_a_fit(logits, is_event):
        return dict.fromkeys(CALIBRATION, Estimate(note=reason))
    sizes = [len(one.logits) for one in scored]
    model = sm.GEE(
        is_event.astype(np.float64),
        sm.add_constant(logits),
        groups=np.repeat(np.unique(problems, return_inverse=True)[1], sizes),
        family=sm.families.Binomial(),
        weights=np.repeat(1 / np.array(sizes), sizes),
    )
    with np.errstate(over="ignore", invalid="ignore"):  # where the fit diverges
        fit = model.fit()
    if not np.isfinite(fit.params).all():
        return dict.fromkeys(CALIBRATION, Estimate(note="the fit diverges"))
    count = len(set(problems))
    has_interval = count >= MIN_PROBLEMS
    # the sandwich of few problems is too small by about this factor
    correction = np.sqrt(count / (count - 1)) if has_interval else np.nan
    reach = stats.t.ppf(TAILS[1], count - 1) * correction * fit.bse
    method = "Student's t over problems" if has_interval else ""
    note = "" if has_interval else "too few problems for an interval"
    estimates = {}
    for index, name in enumerate(CALIBRATION):
        value = float(fit.params[index])
        low, high = value - reach[index], value + reach[index]
        estimates[name] = Estimate(value, low, high, method, note=note)
    return estimates


def _reason_against_a_fit(logits: np.ndarray, is_event: np.ndarray) -> str:
    """State why forecasts have no calibration; empty if they have one."""
    if is_event.all() or not is_event.any():
        return "the event never or always happens"
    if np.ptp(logits) <= ROUND_OFF:
        return "constant"
    with_event, without = logits[is_event], logits[~is_event]
    if with_event.min() >= without.max() or with_event.max() <= without.min():
        return "the forecast separates the events perfectly"
    return ""
