"""Definitions of what an intervention experiment stores for each copy of a checkpoint."""

from plasticity.config.models import FAMILIES, Curvature, Problem
from plasticity.curvature import measure
from plasticity.storage.netcdf import RUN, Variable
from plasticity.training import outcomes

COPY = (*RUN, "treatment")
STATUS = {"trained": 0, "diverged": 1, "run_diverged": 2, "unchanged": 3}
FAMILY_CODES = {family: code for code, family in enumerate(FAMILIES)}

OF_TREATMENTS = {
    "treatment_family": Variable(("treatment",), "what the treatment is for", "int8", FAMILY_CODES),
    "treatment_strength": Variable(("treatment",), "strength of the treatment, if it has one"),
}
OF_COPIES = {
    "copy_status": Variable(
        COPY,
        "what became of the copy; run_diverged: its checkpoint was not finite; unchanged: the "
        "treatment changed nothing, so the copy is one without a treatment",
        "int8",
        STATUS,
    ),
}


def table(curvature: Curvature, problem: Problem) -> dict[str, Variable]:
    """Describe all variables, by name.

    Args:
        curvature: how the copies are measured.
        problem: of the runs.
    """
    return (
        OF_TREATMENTS
        | OF_COPIES
        | {
            name: Variable(COPY, variable.meaning)
            for name, variable in outcomes_of_copies(problem).items()
        }
        | {
            name: Variable(_dims_of_copies(variable), variable.meaning)
            for name, variable in measures_of_copies(curvature).items()
        }
    )


def outcomes_of_copies(problem: Problem) -> dict[str, Variable]:
    """Select the outcomes that are one number per task."""
    return {
        name: variable
        for name, variable in outcomes.table(problem).items()
        if variable.dims == RUN and name != "status"
    }


def measures_of_copies(curvature: Curvature) -> dict[str, Variable]:
    """Select the measures that are one number per block, so no eigenvalues and no densities."""
    return {
        name: variable
        for name, variable in measure.table(curvature).items()
        if set(variable.dims) <= {*RUN, "evaluation_point", "block"}
        and name not in measure.STATUS_VARIABLE
    }


def _dims_of_copies(measured: Variable) -> tuple[str, ...]:
    """Return the dims of a measure of copies, which have one evaluation point."""
    return (*COPY, "block") if "block" in measured.dims else COPY
