"""Say what the report contains, and in which order.

Rules read this module when they plan jobs, so it imports nothing that takes time.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Section(NamedTuple):
    """A section of the report.

    Attributes:
        anchor: its address on the page.
        title: its heading.
        lead: what it shows, in one or two sentences.
        categories: `CATEGORY` of the figures that it shows.
        tables: titles of its tables, by name.
        needs: a table without which the section has nothing to show; empty if it needs none.
    """

    anchor: str
    title: str
    lead: str
    categories: tuple[str, ...]
    tables: Mapping[str, str]
    needs: str = ""


QUESTION = "Does a network that keeps learning lose its plasticity, and what explains the loss?"
SECTIONS = (
    Section("result", "Result", "", ("0 Summary",), {}),
    Section(
        "loss",
        "Where plasticity is lost",
        "A network loses plasticity if it learns late tasks worse than a network initialised from"
        " scratch, and if this gap grows from the first task to late tasks.",
        ("1 Loss of plasticity",),
        {
            "summary": "every arm at a glance",
            "outcomes": "outcomes of every arm",
            "counterexamples": "where an explanation fails",
            "arms": "which explanation tells arms that lose plasticity from others",
        },
    ),
    Section(
        "associations",
        "What changes with it",
        "These results are about runs as they are. Everything drifts during a run, so a correlation"
        " is weak evidence for a cause.",
        ("3 Associations", "2 Curvature"),
        {
            "explanations": "all explanations, compared by the same numbers",
            "consistency": "each explanation over settings",
            "population": "which explanation changes most where most plasticity is lost",
            "prediction": "how well measures rank checkpoints",
            "early_warning": "which measures warn of a large gap",
            "redundancy": "how far ranks are the same thing",
        },
    ),
    Section(
        "interventions",
        "Interventions",
        "Copies of one checkpoint get different treatments, and then learn the same task. If"
        " curvature explains plasticity, copies with more directions of curvature learn better.",
        ("4 Interventions",),
        {
            "interventions": "which measure orders treated copies of a checkpoint by their error",
        },
        needs="interventions",
    ),
    Section(
        "methods",
        "Methods",
        "An arm is a method with one choice of its hyperparameters.",
        ("5 Methods",),
        {
            "methods": "what became of each arm, late",
            "comparisons": "comparison of methods",
            "profiles": "performance profiles",
            "tuning": "scores of arms on the tuning seeds, and the chosen ones",
        },
    ),
    Section(
        "tests",
        "How it was tested",
        "",
        (),
        {
            "settings": "what each setting is",
            "hypotheses": "hypotheses declared before the data",
            "statements": "what all tables say, in words",
        },
    ),
    Section("cost", "Cost and versions", "", (), {"cost": "what each stage took"}),
)
OTHER_FIGURES = "methods"  # the section that also gets figures of a category that none has
TABLES = [name for section in SECTIONS for name in section.tables]
OPEN_TABLES = ("settings", "hypotheses", "cost")  # short tables that say what the study is
# figures of a section in the order in which they are read; others follow by name
FIGURE_ORDER = (
    "summary",
    "explanations",
    "learning",
    "scatter",
    "associations",
    "timing",
    "curvature",
    "spectra",
    "layers",
    "operators",
    "overlap",
    "treatments",
    "rivals",
    "necessity",
    "doses",
    "methods",
    "sensitivity",
)
# what shows the topic of sentences: the first of these figures that a study has, and a table
SHOWN_BY: Mapping[str, tuple[tuple[str, ...], str]] = {
    "loss": (("summary", "explanations"), "summary"),
    "outcomes": (("summary", "explanations"), "outcomes"),
    "consistency": (("associations",), "consistency"),
    "explanations": (("summary",), "explanations"),
    "scatter": (("scatter",), "consistency"),
    "counterexamples": (("explanations",), "counterexamples"),
    "population": ((), "population"),
    "lead_lag": (("timing",), ""),
    "interventions": (("rivals",), "interventions"),
    "intervention_counterexamples": (("necessity",), ""),
    "comparisons": (("methods",), "comparisons"),
}
