"""One table of outcomes and measures: how they are read, drawn, and claimed to change.

What is stored with a quantity (dims, meaning, unit) is declared with the function that computes
it: in `training/outcomes.py`, and in `unit_measures.py`, `gradient_measures.py`, `displacement.py`
and `spectrum.py` of `curvature/`. This table has everything else. No job that trains or measures
imports it, so a new row or another label reruns only tables and figures.
"""

from dataclasses import dataclass

from plasticity.config import registry

# Of the variants of a measure, "the explanation" is on the next task's data and of all layers.
EXPLANATION = {"evaluation_point": "next", "block": "all"}
# The operator that stands for curvature, if it was measured.
MAIN_OPERATOR = "fisher"
# The ranks of a spectrum, as equals. A config names the one that stands for curvature.
RANKS = ("effective_rank", "entropy_rank", "stable_rank")


@dataclass(frozen=True)
class Quantity:
    """How an outcome or a measure is read.

    Attributes:
        label: of an axis, in at most two lines.
        claimed_sign: of the change when plasticity is lost, as the literature claims it; 0 without
            a claim. Only measures with a claim can have counterexamples.
        is_share: whether it is a share, or a difference of shares. Then its changes are absolute,
            those of others relative, and panels of different settings share their y axis.
        is_explanation: whether it is an earlier explanation of the loss of plasticity, with a row
            in the figure `explanations`.
        on_first_page: whether the first page of the report has its counterexamples.
    """

    label: str
    claimed_sign: int = 0
    is_share: bool = False
    is_explanation: bool = False
    on_first_page: bool = False


# Outcomes that are tested, in the order of tables.
OUTCOMES = {
    "final_error": Quantity("final error", is_share=True),
    "online_error": Quantity("online error", is_share=True),
    "final_error_gap": Quantity("gap to a\nfresh network", is_share=True),
    "test_error": Quantity("test error", is_share=True),
}

# Measures of units, weights, gradients and updates, in the order of figures.
MEASURES = {
    "feature_rank": Quantity(
        "feature rank\n(last hidden)", claimed_sign=-1, is_explanation=True, on_first_page=True
    ),
    "flattened_feature_rank": Quantity("feature rank\n(per image)", claimed_sign=-1),
    "dormant_fraction": Quantity(
        "dormant units\n(share)",
        claimed_sign=1,
        is_share=True,
        is_explanation=True,
        on_first_page=True,
    ),
    "dead_fraction": Quantity(
        "dead units\n(share)",
        claimed_sign=1,
        is_share=True,
        is_explanation=True,
        on_first_page=True,
    ),
    "cloned_fraction": Quantity("cloned units\n(share)", claimed_sign=1, is_share=True),
    "saturated_fraction": Quantity("saturated units\n(share)", claimed_sign=1, is_share=True),
    "frozen_fraction": Quantity("frozen units\n(share)", claimed_sign=1, is_share=True),
    "weight_norm": Quantity("weight norm", claimed_sign=1, is_explanation=True, on_first_page=True),
    "isometry_deviation": Quantity("deviation from\nisometry", claimed_sign=1),
    "gradient_strength": Quantity("gradient strength"),
    "gradient_reliability": Quantity("gradient\nreliability", is_share=True),
    "optimization_readiness": Quantity("optimization\nreadiness", claimed_sign=-1),
    "eigenspace_displacement": Quantity("eigenspace\ndisplacement", is_share=True),
    "update_norm": Quantity("update norm", is_explanation=True),
}

# Numbers of the spectrum of any operator; the measure has the name of the operator in front.
SPECTRUM_NUMBERS = {
    "effective_rank": Quantity("effective rank", claimed_sign=-1, on_first_page=True),
    "entropy_rank": Quantity("entropy rank", claimed_sign=-1, on_first_page=True),
    "stable_rank": Quantity("stable rank", claimed_sign=-1, on_first_page=True),
    "epsilon_rank": Quantity("epsilon rank", claimed_sign=-1),
    "absolute_epsilon_rank": Quantity("absolute epsilon rank", claimed_sign=-1),
    "top_eigenvalue": Quantity("top eigenvalue"),
    "trace": Quantity("trace"),
    "negative_fraction": Quantity("negative\nfraction", is_share=True),
    "gradient_overlap": Quantity("gradient overlap", is_share=True),
}

EXPLANATIONS = tuple(name for name, row in MEASURES.items() if row.is_explanation)


def describe(name: str) -> Quantity:
    """Return how a quantity is read.

    Args:
        name: of an outcome or a measure. One without a row has its name as label and no claim.
    """
    row = OUTCOMES.get(name) or MEASURES.get(name)
    if row:
        return row
    number = split_operator(name)[1]
    return SPECTRUM_NUMBERS.get(number) or Quantity(number.replace("_", " "))


def one_line_name(name: str) -> str:
    """Return the name of a quantity for texts: ``ggn_stable_rank`` → ``GGN stable rank``."""
    label = describe(name).label.replace("\n", " ")
    operator = split_operator(name)[0]
    return f"{operator_name(operator)} {label}" if operator else label


def operator_name(operator: str) -> str:
    """Return the name that an operator's file gives it: ``ggn`` → ``GGN``."""
    return registry.constant("operators", operator, "NAME") or operator.replace("_", " ")


def split_operator(measure: str) -> tuple[str, str]:
    """Split a measure into operator and number: ``ggn_stable_rank`` → ``ggn``, ``stable_rank``.

    Returns:
        The operator, empty if the measure belongs to none, and the rest of the name.
    """
    operators = [name for name in registry.names("operators") if measure.startswith(f"{name}_")]
    if not operators:
        return "", measure
    operator = max(operators, key=len)
    return operator, measure.removeprefix(f"{operator}_")


def preference(evaluation_point: str, block: str) -> tuple[bool, bool]:
    """Rank the variants of a measure: the largest is the explanation, or the best in its place."""
    return (evaluation_point == EXPLANATION["evaluation_point"], block == EXPLANATION["block"])


def is_rank(name: str) -> bool:
    """Tell whether a measure is one of `RANKS` of an operator."""
    operator, number = split_operator(name)
    return bool(operator) and number in RANKS
