"""Measure level, power and coverage of the tests of interventions on simulated treatments.

    python benchmarks/simulated_interventions.py [--quick]

A simulated study has one setting with 20 copies of each checkpoint: 12 treatments, some in doses.
What a treatment does to the measure and to the outcome is drawn once per study, and is the same for
all seeds. Each copy of each seed has noise of its own.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.config.models import arm_name
from plasticity.statistics import intervention_models, interventions, mediation
from plasticity.statistics.resampling import Draws, two_sided_p
from plasticity.statistics.treated_arrays import (
    TreatedArrays,
    average_over_seeds,
    permute_treatments,
)

# family and number of doses of each treatment
TREATMENTS = {
    "none": ("control", 1),
    "fresh": ("control", 1),
    "reset_optimizer": ("control", 1),
    "shrink": ("restoring", 3),
    "perturb": ("restoring", 3),
    "rescale_norms": ("restoring", 1),
    "reset_first_layer": ("restoring", 1),
    "restore_spectrum": ("restoring", 1),
    "low_rank": ("harmful", 3),
    "saturate": ("harmful", 2),
    "rescale_layers": ("preserving", 2),
    "split_units": ("preserving", 1),
}
FAMILY_NAMES = list(dict.fromkeys(family for family, _ in TREATMENTS.values()))
FAMILY_OF_TREATMENT = np.array(
    [FAMILY_NAMES.index(family) for family, _ in TREATMENTS.values()], dtype=int
)
DOSES = np.array([doses for _, doses in TREATMENTS.values()])
TREATMENT_OF_COPY = np.repeat(np.arange(len(DOSES)), DOSES)
DOSE = np.concatenate([np.arange(1, doses + 1) for doses in DOSES])
COPIES = [
    arm_name(name, {"strength": float(dose)} if doses > 1 else {})
    for name, (_, doses) in TREATMENTS.items()
    for dose in range(1, doses + 1)
]
NOISE = 0.3  # of a copy, in standard deviations of the treatments' effects
INERT = 5  # treatments that do nothing to the outcome in the case `inert`
RELEVANT = 0.3  # τ whose power is computed
DRAWS = Draws(199)
Effects = tuple[np.ndarray, np.ndarray]


def arrays_of(measures: Mapping[str, np.ndarray], outcome: np.ndarray) -> TreatedArrays:
    """Build the arrays of a setting with one arm and one treated task.

    Args:
        measures: by name, shapes ``(seed, copy)``.
        outcome: the final error, shape ``(seed, copy)``.
    """
    shape = (1, len(outcome), 1, len(COPIES))
    families = [family for family, doses in TREATMENTS.values() for _ in range(doses)]
    return TreatedArrays(
        setting="s",
        arms=["none"],
        tasks=[8],
        copies=COPIES,
        families=families,
        strengths=np.where(DOSES[TREATMENT_OF_COPY] > 1, DOSE, np.nan),
        statuses=np.full(shape, "trained"),
        measures=list(measures),
        blocks=["all"] * len(measures),
        x=np.stack([values.reshape(shape) for values in measures.values()]),
        outcomes=["final_error"],
        y=outcome.reshape(1, *shape),
        other_outcomes={},
    )


def of_copies(random: np.random.Generator, with_doses: bool) -> np.ndarray:
    """Draw an effect of every copy: its own, or its treatment's times the share of the dose."""
    if not with_doses:
        return random.normal(size=len(COPIES))
    of_treatment = random.normal(size=len(DOSES))
    return of_treatment[TREATMENT_OF_COPY] * (DOSE / DOSES[TREATMENT_OF_COPY])


def single_copies(random: np.random.Generator, correlation: float) -> Effects:
    """Draw effects on measure and outcome; doses of a treatment have nothing in common."""
    x, own = of_copies(random, False), of_copies(random, False)
    return x, correlation * x + np.sqrt(1 - correlation**2) * own


def doses(random: np.random.Generator, correlation: float) -> Effects:
    """Draw effects on measure and outcome that grow with the dose of a treatment."""
    x, own = of_copies(random, True), of_copies(random, True)
    return x, correlation * x + np.sqrt(1 - correlation**2) * own


def inert(random: np.random.Generator, correlation: float) -> Effects:
    """Draw effects of doses, where some treatments change the measure only."""
    x, y = doses(random, correlation)
    chosen = random.choice(np.arange(1, len(DOSES)), INERT, replace=False)
    return x, np.where(np.isin(TREATMENT_OF_COPY, chosen), 0, y)


def families(random: np.random.Generator, correlation: float) -> Effects:
    """Draw effects of doses, where treatments of a family resemble each other."""
    x, y = doses(random, correlation)
    of_family = random.normal(size=(2, len(FAMILY_NAMES)))[
        :, FAMILY_OF_TREATMENT[TREATMENT_OF_COPY]
    ]
    return x + of_family[0], y + of_family[1]


CASES: dict[str, Callable[[np.random.Generator, float], Effects]] = {
    "single copies": single_copies,
    "doses": doses,
    "inert treatments": inert,
    "families": families,
}


def noisy(random: np.random.Generator, effects: np.ndarray, seeds: int) -> np.ndarray:
    """Add the noise of each copy to effects that may depend on the seed, ``(seed, copy)``."""
    return np.asarray(effects + NOISE * random.normal(size=(seeds, effects.shape[-1])))


def true_tau(x: np.ndarray, y: np.ndarray) -> float:
    """Average τ over many seeds of the same treatments, shapes ``(seed, copy)``, without ties."""
    first, second = np.triu_indices(x.shape[1], 1)
    signs = np.sign(x[:, first] - x[:, second]) * np.sign(y[:, first] - y[:, second])
    return float(signs.mean())


@dataclass
class Rates:
    """Counts over simulated studies.

    Attributes:
        counts: how often something happened, or a sum, by name.
        studies: number of studies.
    """

    counts: dict[str, float]
    studies: int = 0

    def add(self, **events: float) -> None:
        """Count the events of one study."""
        self.studies += 1
        for name, value in events.items():
            self.counts[name] = self.counts.get(name, 0.0) + float(value)

    def percent(self, name: str) -> float:
        """Return the mean of an event in %."""
        return 100 * self.counts[name] / self.studies


def rates_of_tau(case: str, seeds: int, studies: int, correlation: float = 0.0) -> Rates:
    """Test τ in studies whose effects on measure and outcome have a correlation.

    Args:
        case: one of `CASES`.
        seeds: of each study.
        studies: number of studies.
        correlation: of the effects.

    Returns:
        Rejections of the test (``treatments``), of the same test that permutes copies one by one
        (``copies``) and of a t test over seeds (``seeds``); the printed power (``power``); and
        whether the interval over seeds has the τ of many seeds with the same treatments
        (``covered``).
    """
    rates = Rates({})
    for index in range(studies):
        random = np.random.default_rng([index, seeds, list(CASES).index(case)])
        x, y = CASES[case](random, correlation)
        arrays = arrays_of(
            {"fisher_effective_rank": noisy(random, x, seeds)}, noisy(random, y, seeds)
        )
        agreements = interventions.agreements_of_arm(arrays, 0, arrays.orders(DRAWS))
        one_by_one = permute_treatments(np.arange(len(COPIES)), np.full(len(COPIES), np.nan), DRAWS)
        of_copies_alone = interventions.agreements_of_arm(arrays, 0, one_by_one)
        per_seed = agreements.taus[0, 0, :, 0]
        means = average_over_seeds(per_seed, DRAWS)
        truth = true_tau(noisy(random, x, 150), noisy(random, y, 150))
        power = interventions.power_of_null(agreements.null, RELEVANT)[0, 0, 0]
        rates.add(
            treatments=two_sided_p(agreements.null)[0, 0, 0] <= 0.05,
            copies=two_sided_p(of_copies_alone.null)[0, 0, 0] <= 0.05,
            seeds=stats.ttest_1samp(per_seed, 0).pvalue <= 0.05,
            power=power,
            tau=per_seed.mean(),
            covered=means.low <= truth <= means.high,
        )
    return rates


def rates_of_difference(case: str, seeds: int, studies: int, advantage: float = 0.0) -> Rates:
    """Compare two measures that go with the outcome, of which one may do so better.

    Args:
        case: one of `CASES`.
        seeds: of each study.
        studies: number of studies.
        advantage: how much less of its own effects the first measure has; 0 for equal measures.

    Returns:
        Rejections of the test (``treatments``) and of a t test over seeds (``seeds``).
    """
    rates = Rates({})
    for index in range(studies):
        random = np.random.default_rng([index, seeds, list(CASES).index(case), 1])
        y, first = CASES[case](random, 0.0)
        _, second = CASES[case](random, 0.0)
        measures = {
            "fisher_effective_rank": noisy(random, -y + (1 - advantage) * first, seeds),
            "feature_rank": noisy(random, -y + second, seeds),
        }
        arrays = arrays_of(measures, noisy(random, y, seeds))
        agreements = interventions.agreements_of_arm(arrays, 0, arrays.orders(DRAWS)[:1])
        differences = agreements.taus[1] - agreements.taus[0]
        of_treatments = interventions.contributions(arrays, 0, 0, 1, differences)
        null = np.einsum("dt,lot->dlo", DRAWS.signs(len(DOSES)), of_treatments)
        rates.add(
            treatments=two_sided_p(null)[0, 0] <= 0.05,
            seeds=stats.ttest_1samp(differences[0, :, 0], 0).pvalue <= 0.05,
        )
    return rates


def rates_of_added(case: str, seeds: int, studies: int, weight: float = 0.0) -> Rates:
    """Test what a rank adds to three measures that go with it.

    Args:
        case: one of `CASES`.
        seeds: of each study.
        studies: number of studies.
        weight: of what is particular to the rank in the outcome; 0 if it adds nothing.

    Returns:
        Rejections (``treatments``).
    """
    rates = Rates({})
    for index in range(studies):
        random = np.random.default_rng([index, seeds, list(CASES).index(case), 2])
        shared, own = CASES[case](random, 0.0)
        of_rank, of_norm = CASES[case](random, 0.0)
        simple = [noisy(random, shared, seeds) for _ in range(2)]
        measures = {
            "fisher_effective_rank": noisy(random, shared + of_rank, seeds),
            "feature_rank": simple[0],
            "dead_fraction": simple[1],
            "weight_norm": noisy(random, of_norm, seeds),
        }
        outcome = noisy(random, -shared + own - weight * of_rank, seeds)
        rows = [
            row
            for row in intervention_models._added_rows(
                arrays_of(measures, outcome), 0, DRAWS, RELEVANT
            )
            if row["task"] == "all"
        ]
        rates.add(treatments=float(str(rows[0]["p"])) <= 0.05)
    return rates


def rates_of_family(seeds: int, studies: int, noise: float, offset: float) -> Rates:
    """Test whether one curve fits all families, whose treatments have different effects.

    Args:
        seeds: of each study.
        studies: number of studies.
        noise: standard deviation of the noise of the measure.
        offset: of the outcome of the treatments that restore; 0 if one curve fits all.

    Returns:
        Rejections (``treatments``).
    """
    rates = Rates({})
    for index in range(studies):
        random = np.random.default_rng([index, seeds, 3])
        effects = (
            0.3 * of_copies(random, True)
            + np.array([0, 1, -1, 0])[FAMILY_OF_TREATMENT[TREATMENT_OF_COPY]]
        )
        of_family = np.where(FAMILY_OF_TREATMENT[TREATMENT_OF_COPY] == 1, offset, 0)
        x = effects + noise * random.normal(size=(seeds, len(COPIES)))
        y = -effects + of_family + 0.3 * of_copies(random, True)
        arrays = arrays_of({"fisher_effective_rank": x}, noisy(random, y, seeds))
        rows = [
            row
            for row in intervention_models._family_rows(arrays, 0, DRAWS)
            if row["task"] == "all"
        ]
        rates.add(treatments=float(str(rows[0]["p"])) <= 0.05)
    return rates


def coverage_of_mediation(
    seeds: int, studies: int, noise: float = 0.0, confounding: float = 0.0, direct: float = 0.0
) -> float:
    """Compute how often the interval of the indirect effect has the true one, in %.

    The outcome falls by 1 if the measure rises by 1.

    Args:
        seeds: of each study.
        studies: number of studies.
        noise: standard deviation of an error of the measure.
        confounding: effect on the outcome of something that moves with the measure.
        direct: standard deviation of other effects of treatments on the outcome.
    """
    covered = []
    for index in range(studies):
        random = np.random.default_rng([index, seeds, 4])
        effects, others = doses(random, 0.0)
        x = noisy(random, effects, seeds)
        y = noisy(random, -x - confounding * effects + direct * others, seeds)
        measured = x + noise * random.normal(size=x.shape)
        table = mediation.mediation([arrays_of({"fisher_effective_rank": measured}, y)], DRAWS)
        is_of_none = np.array(COPIES) == "none"
        truth = -(effects - effects[is_of_none])[~is_of_none]
        covered.append(
            ((table["indirect_low"] <= truth) & (truth <= table["indirect_high"])).mean()
        )
    return 100 * float(np.mean(covered))


def print_rows(header: str, rows: list[list[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{header}\n|{'---|' * header.strip('|').count('|')}---|")
    for cells in rows:
        texts = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"| {' | '.join(texts)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few studies, at most 20 seconds")
    studies = 50 if parser.parse_args().quick else 600
    start = time.monotonic()
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    print(f"\nUnrelated effects: rejections in % of {studies} studies, and coverage")
    rows: list[list[object]] = []
    for case in CASES:
        for seeds in (5, 10):
            rates = rates_of_tau(case, seeds, studies)
            names = ("seeds", "copies", "treatments", "covered")
            rows.append([case, seeds, *(rates.percent(name) for name in names)])
    print_rows("| case | seeds | t test over seeds | copies | treatments | coverage |", rows)

    print(f"\nRelated effects: rejections and mean printed power in % of {studies // 2} studies")
    rows = []
    for case in ("single copies", "doses"):
        for correlation in (0.5, 0.8):
            rates = rates_of_tau(case, 5, studies // 2, correlation)
            tau = rates.counts["tau"] / rates.studies
            rows.append([case, f"{tau:.2f}", rates.percent("treatments"), rates.percent("power")])
    print_rows("| case | mean τ | treatments | printed power for τ = 0.3 |", rows)

    print(f"\nDifference, added: rejections in % of {studies} studies, 5 seeds")
    rows = []
    for case in CASES:
        equal = rates_of_difference(case, 5, studies)
        better = rates_of_difference(case, 5, studies // 2, advantage=0.8)
        nothing = rates_of_added(case, 5, studies)
        adds = rates_of_added(case, 5, studies // 2, weight=1.0)
        rows.append(
            [
                case,
                equal.percent("seeds"),
                equal.percent("treatments"),
                better.percent("treatments"),
                nothing.percent("treatments"),
                adds.percent("treatments"),
            ]
        )
    print_rows("| case | equal, t test over seeds | equal | better | adds nothing | adds |", rows)

    print(f"\nFamily: rejections in % of {studies} studies, 5 seeds")
    rows = []
    for noise in (0.1, 0.3, 1.0):
        one_curve = rates_of_family(5, studies, noise, 0.0).percent("treatments")
        two_curves = rates_of_family(5, studies // 2, noise, 1.0).percent("treatments")
        rows.append([noise, one_curve, two_curves])
    print_rows("| noise of the measure | one curve | restoring treatments off the curve |", rows)

    print(f"\nIndirect effect: coverage in % of {studies} studies, 5 seeds")
    options = {
        "all of the effect goes through the measure": {},
        "treatments also act directly, unrelated to the measure": {"direct": 0.5},
        "the measure has an error": {"noise": 0.5},
        "something moves with the measure and acts": {"confounding": 0.5},
    }
    print_rows(
        "| truth | coverage |",
        [[name, coverage_of_mediation(5, studies, **values)] for name, values in options.items()],
    )
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
