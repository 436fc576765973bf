"""How consistent is each explanation over settings, as a number; and where does it fail, as a list.

The claim that plasticity is lost *because* of something needs it to move with the error in every setting. A meta-analysis over settings
says how far the correlations agree and what to expect of the next setting; the counter-examples are settings and arms where one is lost
without the other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from plasticity.statistics.null_models import (
    FEWEST,
    crossed,
    dependent,
    deviations,
    matched,
    ranked,
)
from plasticity.statistics.panels import FEWEST_TASKS, Panel
from plasticity.statistics.resampling import Draws, interval, permutation_test
from plasticity.training.outcomes import stages

ARM = "none"  # whose loss of plasticity is to be explained
SURE = 0.05
STRONGEST = 0.999  # a correlation counts as no stronger: Fisher's z of 1 is infinite
# the direction in which an explanation has its measure move when plasticity is lost
CLAIMS = {
    "rank": -1,
    "dormant_fraction": 1,
    "dead_fraction": 1,
    "saturated_fraction": 1,
    "weight_norm": 1,
}
SHARES = (
    "_fraction",
    "_overlap",
)  # how measures end whose change is taken as it is, not relative to where it began
Row = dict[str, object]


def claim(measure: str) -> int:
    """The sign in which a measure is claimed to move when plasticity is lost; 0 where nobody claims one."""
    return next((sign for name, sign in CLAIMS.items() if measure.endswith(name)), 0)


def consistency(panels: Sequence[Panel], draws: Draws) -> pd.DataFrame:
    """Random-effects meta-analysis over settings of the correlations within runs, arm `none`, for each explanation and outcome.

    DerSimonian and Laird's model with Paule and Mandel's variance between settings, and Hartung and Knapp's interval, of Fisher's z; the
    prediction interval, for the next setting, is that of Higgins, Thompson and Spiegelhalter 2009.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        One row per explanation, outcome and association (`within_run`, or beside the null `task`, without the shared curve): the
        correlation over settings with ``low, high, p``, Cochran's ``q`` with its p, ``i_squared``, ``prediction_low`` and ``_high``;
        ``sign_agreement``: share of settings on the majority's side; ``as_claimed``: share on the side of the claim; ``beating``: share
        with p below 0.05 beside mismatched seeds; the setting where the claim (without one: the majority's sign) fares worst.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for panel in (panel.explanations() for panel in panels if ARM in panel.arms):
        for batch in panel.batches(panel.arms.index(ARM)):
            seeds, tasks = batch.x.shape[1:]
            if seeds < FEWEST or tasks < FEWEST_TASKS:
                continue
            p = permutation_test(crossed(ranked(batch.x), ranked(batch.y)), draws)
            for association, of, wider in (
                ("within_run", np.asarray, 1.0),
                ("task", deviations, dependent(seeds)),
            ):
                z = np.arctanh(
                    np.clip(
                        matched(ranked(of(batch.x)), ranked(of(batch.y))), -STRONGEST, STRONGEST
                    )
                )
                for m, key in enumerate(batch.keys):
                    for o, outcome in enumerate(panel.outcomes):
                        one = {
                            "setting": panel.setting,
                            "z": z[m, o].mean(),
                            "error": wider * stats.sem(z[m, o]),
                            "p": p[m, o],
                            "seeds": seeds,
                        }
                        found.setdefault((key.measure, outcome, association), []).append(one)
    rows = [
        {
            "measure": m,
            "outcome": o,
            "association": a,
            **_over_settings(pd.DataFrame(all_of), claim(m)),
        }
        for (m, o, a), all_of in found.items()
    ]
    return pd.DataFrame(
        rows,
        columns=list(rows[0])
        if rows
        else ["measure", "outcome", "association", *_over_settings(pd.DataFrame(), 0)],
    )


def _over_settings(found: pd.DataFrame, claimed: int) -> Row:
    """One row: what the settings say together."""
    numbers = [
        "estimate",
        "low",
        "high",
        "p",
        "q",
        "p_heterogeneity",
        "i_squared",
        "prediction_low",
        "prediction_high",
    ]
    row: Row = {"claim": claimed, **dict.fromkeys(numbers, np.nan)}
    row |= dict.fromkeys(["sign_agreement", "as_claimed", "beating"], np.nan) | {
        "worst_setting": "",
        "worst_estimate": np.nan,
    }
    known = found[found["z"].notna() & (found["error"] > 0)] if len(found) else found
    row |= {
        "settings": len(known),
        "seeds": int(known["seeds"].min()) if len(known) else 0,
        "interval": "",
        "note": "",
    }
    if not len(known):
        return row | {"note": "constant" if len(found) else "too few"}
    left_out = len(found) - len(known)
    signs = np.sign(known["z"])
    majority = np.sign(signs.sum()) or signs.iloc[0]
    worst = known.loc[(known["z"] * (claimed or majority)).idxmin()]
    row |= {
        "estimate": float(np.tanh(known["z"].mean())),
        "sign_agreement": float((signs == majority).mean()),
        "as_claimed": float((signs == claimed).mean()) if claimed else np.nan,
        "beating": float((known["p"] <= SURE).mean()),
        "worst_setting": worst["setting"],
        "worst_estimate": float(np.tanh(worst["z"])),
    }
    notes = [f"constant in {left_out} settings"] * bool(left_out)
    if len(known) < 2:
        return row | {"note": "; ".join([*notes, "one setting"])}
    result = combine_effects(
        known["z"].to_numpy(), known["error"].to_numpy() ** 2, method_re="iterated", use_t=True
    )
    low, high = result.conf_int(use_t=True)[3]
    spread, reach = (
        np.sqrt(result.tau2 + result.sd_eff_w_re_hksj**2),
        stats.t.ppf(0.975, max(1, len(known) - 2)),
    )
    centre = result.mean_effect_re
    few = len(known) < 3
    row |= {"estimate": np.tanh(centre), "low": np.tanh(low), "high": np.tanh(high)}
    row |= {"p": 2 * stats.t.sf(abs(centre) / result.sd_eff_w_re_hksj, len(known) - 1)}
    row |= {
        "q": result.q,
        "p_heterogeneity": stats.chi2.sf(result.q, len(known) - 1),
        "i_squared": max(0.0, result.i2),
    }
    row |= (
        {}
        if few
        else {
            "prediction_low": np.tanh(centre - reach * spread),
            "prediction_high": np.tanh(centre + reach * spread),
        }
    )
    notes += ["too few settings for a prediction interval"] * few
    return row | {"interval": "Hartung-Knapp over settings", "note": "; ".join(notes)}


def counterexamples(
    panels: Sequence[Panel], draws: Draws, lost: float, moved: float
) -> pd.DataFrame:
    """Every arm's loss of plasticity beside the change of every measure of which a direction is claimed, and what that says of the claim.

    Args:
        panels: the settings.
        draws: of seeds.
        lost: plasticity is lost where the gap to a fresh network surely grows by more, and kept where it surely does not.
        moved: a measure moves where it surely changes by more (of a share as it is, of others relative to the larger of early and late).

    Returns:
        One row per setting, arm and measure: the change of the gap and of the measure from early to late, positive in the claimed
        direction, with intervals over seeds, and the ``verdict``; counter-examples first.
    """
    rows = [row for panel in panels for row in _judged(panel.explanations(), draws, lost, moved)]
    columns = [
        "setting",
        "arm",
        "measure",
        "verdict",
        "counterexample",
        "loss",
        "loss_low",
        "loss_high",
        "change",
        "change_low",
        "change_high",
    ]
    table = pd.DataFrame(rows, columns=[*columns, "seeds", "tasks", "interval", "note"])
    return table.sort_values("counterexample", ascending=False, kind="stable", ignore_index=True)


def _judged(panel: Panel, draws: Draws, lost: float, moved: float) -> Iterator[Row]:
    """The rows of a setting."""
    gap = panel.outcomes.index("final_error_gap")
    for arm, name in enumerate(panel.arms):
        for batch in panel.batches(arm):
            if not len(batch.seeds):
                continue
            grown = _change(panel.values[gap, arm][batch.seeds])
            loss_low, loss_high, how = interval(grown, draws)
            for key, values in zip(batch.keys, batch.x, strict=True):
                if not (claimed := claim(key.measure)):
                    continue
                change = claimed * _change(values, relative=not key.measure.endswith(SHARES))
                low, high, _ = interval(change, draws)
                verdict = (
                    _verdict(
                        (float(loss_low), float(loss_high)), (float(low), float(high)), lost, moved
                    )
                    if how
                    else "too few seeds"
                )
                yield {
                    "setting": panel.setting,
                    "arm": name,
                    "measure": key.measure,
                    "verdict": verdict,
                    "counterexample": verdict in COUNTEREXAMPLES,
                    "loss": grown.mean(),
                    "loss_low": loss_low,
                    "loss_high": loss_high,
                    "change": change.mean(),
                    "change_low": low,
                    "change_high": high,
                    "seeds": len(batch.seeds),
                    "tasks": len(batch.tasks),
                    "interval": how,
                    "note": batch.note,
                }


COUNTEREXAMPLES = (
    "lost, and the measure is still",
    "lost, and the measure moves the other way",
    "kept, and the measure moves as claimed",
)


def _verdict(
    loss: tuple[float, float], change: tuple[float, float], lost: float, moved: float
) -> str:
    """What intervals of the gap's growth and of the measure's change in the claimed direction say together."""
    if loss[0] > lost:
        if change[1] < -moved:
            return "lost, and the measure moves the other way"
        if -moved <= change[0] and change[1] <= moved:
            return "lost, and the measure is still"
        return f"lost, and the measure {'moves as claimed' if change[0] > moved else 'is unclear'}"
    if loss[1] < lost:
        return (
            "kept, and the measure moves as claimed"
            if change[0] > moved
            else "kept, and nothing against the claim"
        )
    return "unclear"


def _change(values: np.ndarray, relative: bool = False) -> np.ndarray:
    """Mean over the last eighth of the tasks less that over the first, of each seed.

    Args:
        values: shape ``(seed, task)``.
        relative: to the larger magnitude of the two.
    """
    cut = stages(values.shape[-1])
    early, late = values[:, cut["early"]].mean(axis=-1), values[:, cut["late"]].mean(axis=-1)
    largest = np.maximum(abs(early), abs(late))
    return np.asarray(
        (late - early) / np.where(largest > 0, largest, 1) if relative else late - early
    )
