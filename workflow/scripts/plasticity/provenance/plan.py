"""Ask Snakemake, through its API, which jobs a study has and which of them would run.

Nothing runs. The messages of Snakemake are turned into a `StudyError`.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import ApiError, RuleException, WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
    StorageSettings,
)

from plasticity.config import names
from plasticity.config.files import check_config_file
from plasticity.config.targets import check_targets
from plasticity.errors import StudyError
from plasticity.provenance.code_digest import ROOT

# the command line reads this profile by itself, the API does not
PROFILE = ROOT / "profiles" / "default" / "profile.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which study is meant."""
    parser.add_argument(
        "--study",
        metavar="NAME",
        help="name of a file in studies/, or a path (default: config.yaml)",
    )
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="config files, as for snakemake"
    )
    parser.add_argument(
        "--config",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes of the config, such as seeds.report=2",
    )


def config_settings(arguments: argparse.Namespace) -> ConfigSettings:
    """Return the config that the arguments of `add_arguments` mean.

    Raises:
        StudyError: the study is unknown, or a file cannot be read.
    """
    paths = [names.find(arguments.study)] if arguments.study else []
    paths += arguments.configfile
    for path in paths:
        check_config_file(path)
    return ConfigSettings(configfiles=tuple(paths), config_args=tuple(arguments.config))


def jobs_in_order(dag: Any) -> list[Any]:
    """List the jobs with outputs, each after the jobs on which it depends."""
    jobs = []
    for level in dag.toposorted():
        jobs += [job for job in sorted(level, key=job_name) if job.output]
    return jobs


def job_name(job: Any) -> str:
    """Name a job by its rule and wildcards: ``train_ensemble digits_labels_relu/l2/0-4``."""
    return f"{job.rule.name} {'/'.join(job.wildcards)}".strip()


@contextmanager
def planned(
    config: ConfigSettings | None = None, targets: Sequence[str] = (), everything: bool = False
) -> Iterator[Any]:
    """Yield the graph of jobs (Snakemake's DAG), as `snakemake --dry-run` computes it.

    Config and results are those of the working directory.

    Args:
        config: of the study; None for the default study.
        targets: rules or files; empty for the whole study.
        everything: also plan jobs whose results exist and are up to date.

    Raises:
        StudyError: a target is unknown, or Snakemake cannot plan the jobs; that message is its own.
    """
    check_targets(targets)
    profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    with SnakemakeApi(OutputSettings(dryrun=True, log_level_override=logging.ERROR)) as api:
        try:
            workflow = api.workflow(
                ResourceSettings(cores=1),
                config or ConfigSettings(),
                StorageSettings(),
                snakefile=ROOT / "Snakefile",
                workdir=Path.cwd(),
            )
            settings = DAGSettings(
                targets=frozenset(targets),
                forceall=everything,
                force_incomplete=True,  # as `make run` does; otherwise a killed run is an error
                max_checksum_file_size=profile["max-checksum-file-size"],
            )
            workflow.dag(settings).execute_workflow("dryrun")
        except (WorkflowError, ApiError, RuleException) as error:
            raise StudyError(str(error)) from error
        yield workflow._workflow.dag
