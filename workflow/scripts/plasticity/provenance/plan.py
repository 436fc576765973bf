"""Snakemake's plan of a study: what would run, and what each job is told. Asked through its API; nothing runs."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import ApiError, WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
    StorageSettings,
)

from plasticity.errors import StudyError
from plasticity.provenance.code_digest import ROOT

PROFILE = (
    ROOT / "profiles" / "default" / "profile.yaml"
)  # which the command line reads by itself, and the API does not


def ordered(dag: Any) -> list[Any]:
    """All jobs of a plan that make something, each after those whose results it needs."""
    return [job for level in dag.toposorted() for job in sorted(level, key=called) if job.output]


def called(job: Any) -> str:
    """What a person calls a job: its rule and its wildcards, such as ``train_ensemble digits_labels_relu/l2/0-4``."""
    return f"{job.rule.name} {'/'.join(job.wildcards)}".strip()


@contextmanager
def planned(
    configfiles: Sequence[Path] = (), targets: Sequence[str] = (), everything: bool = False
) -> Iterator[Any]:
    """Snakemake's graph of jobs, as `snakemake --dry-run` would have it.

    Args:
        configfiles: the study; the default one if there is none.
        targets: rules or files; the whole study if there are none.
        everything: plan what is there and up to date, too.

    Raises:
        StudyError: what Snakemake would say of it, in its words.
    """
    profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    with SnakemakeApi(OutputSettings(dryrun=True, log_level_override=logging.ERROR)) as api:
        try:
            workflow = api.workflow(
                ResourceSettings(cores=1),
                ConfigSettings(configfiles=tuple(configfiles)),
                StorageSettings(),
                snakefile=ROOT / "Snakefile",
                workdir=ROOT,
            )
            settings = DAGSettings(
                targets=frozenset(targets),
                forceall=everything,
                max_checksum_file_size=profile["max-checksum-file-size"],
            )
            workflow.dag(settings).execute_workflow("dryrun")
        except (WorkflowError, ApiError) as error:
            raise StudyError(str(error)) from error
        yield workflow._workflow.dag
