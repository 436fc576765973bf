# All functions of the workflow: they read the study once, and give each rule its part. No rules.
import functools
import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# The repository. Its code, styles and captions are read from there, whatever the working directory.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve().parents[1]
if not ROOT.is_dir():
    raise WorkflowError(
        "the rules call scripts of the repository, so it must be a folder of this machine: clone it"
        " and give the path of its Snakefile"
    )
os.environ.update(PLASTICITY_ROOT=str(ROOT))  # commands have the same text in every clone
SCRIPTS = ROOT / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from plasticity import endings, fork_server, gpu, slurm
from plasticity.config import files, layers, names, registry
from plasticity.config.models import parts
from plasticity.config.study import BLOCK, as_json, block_seeds, finished_blocks, read
from plasticity.data.data_root import check_data_root
from plasticity.errors import StudyError
from plasticity.provenance import audit, code_digest, launcher, param_file
from plasticity.report import contents, pages

# whether another workflow uses this one as a module, and whether it gives a config
IS_MODULE = not workflow.modifier.is_main_snakefile()
HAS_CONFIG = workflow.modifier.skip_configfile

# whether this start only writes Snakemake's own report of finished results
IS_SNAKEMAKE_REPORT = "--report-after-run" not in sys.argv and any(
    option.partition("=")[0] in ("--report", "--reporter") for option in sys.argv
)

ENVIRONMENT = "../../envs/environment.yaml"  # relative to the rule files


def from_repository(path):
    """Return a path of the repository for the working directory: short where both are the same."""
    return path if Path.cwd() == ROOT else str(ROOT / path)


STYLE = from_repository("workflow/style.yaml")
CAPTIONS = sorted(
    from_repository(str(path.relative_to(ROOT)))
    for path in (ROOT / "workflow" / "report").glob("*_*.rst")
)
FIGURES = registry.names("figures")
FORMATS = ["svg", "pdf", "png"]
TABLES = [
    "statements",
    "hypotheses",
    "summary",
    "outcomes",
    "measures",
    "associations",
    "null_models",
    "lead_lag",
    "consistency",
    "population",
    "counterexamples",
    "arms",
    "prediction",
    "early_warning",
    "explanations",
    "redundancy",
    "treatments",
    "interventions",
    "intervention_models",
    "mediation",
    "intervention_counterexamples",
    "comparisons",
    "profiles",
    "tuning",
]
TYPESET = ["settings", "methods", "cost"]  # tables for a paper, in LaTeX too

# Checks before anything runs


def config_files():
    """List the config files of the study, relative to the working directory if they are in it."""
    paths = [Path(path) for path in workflow.overwrite_configfiles] or [find_config_file()]
    folder = Path.cwd()
    return [path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths]


def read_config():
    """Merge the config files, the studies that they extend, and the changes after --config.

    If another workflow uses this one as a module and gives a config, it is used as it is.
    """
    try:
        files.check_temporary_folder()
        if HAS_CONFIG:
            return dict(config)
        return layers.read_config(config_files(), workflow.config_settings.config_args)
    except StudyError as error:
        raise WorkflowError(str(error)) from None


def check_module():
    """Raise if another workflow uses this one as a module in a way that would go wrong later."""
    if workflow.modifier.path_modifier.replace_prefix("results/study") != "results/study":
        raise WorkflowError(
            "`prefix` and `replace_prefix` are not supported in the module of this workflow, whose"
            " results are always in results/: remove them, or link results/ to another folder"
        )


def find_config_file():
    """Return the config file of the working directory; raise if there is none."""
    if not Path("config.yaml").exists():
        raise WorkflowError(
            f"{Path.cwd()} has no config.yaml: write a study into it, copy {ROOT}/config.yaml, or"
            " name a study with --configfile"
        )
    return Path("config.yaml")


def check_writable(folder):
    """Raise now, not after hours, if the results cannot be written."""
    links = [path for path in folder.parents if path.is_symlink() and not path.exists()]
    if links:
        raise WorkflowError(
            f"{links[0]} is a symbolic link to {links[0].readlink()}, which does not exist: create"
            " that folder, or remove the link"
        )
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise WorkflowError(
            f"{existing} cannot be written to, and the results go below it: change its "
            f"permissions, for example `chmod u+w {existing}`"
        )


def register_copied_results(folder):
    """Tell Snakemake about results that it does not know, because it would never update them.

    As a module, stop if some do not match this config and code: nothing would stop a job that
    trains on them.
    """
    if not workflow.is_main_process or os.environ.get(audit.ALLOWED):
        return
    if not audit.mark_cached_incomplete(audit.untracked_results(folder)):
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.json"
        path.write_text(json.dumps(config))
        # another process, because the plan of all jobs needs a Snakemake of its own
        command = [sys.executable, SCRIPTS / "audit.py", "--register", "--configfile", path]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or (done.stdout and IS_MODULE):
        raise WorkflowError((done.stdout + done.stderr).strip())
    print(done.stdout, end="", file=sys.stderr)


def check_data_root_exists(results):
    """Raise now, not after other jobs, if a dataset is missing and there is no data root."""
    if workflow.output_settings.dryrun or not workflow.is_main_process:
        return
    missing = []
    for name, dataset in STUDY.datasets.items():
        if not (results / f"data/{name}.nc").exists():
            missing += registry.files_of({"kind": dataset.kind} | dataset.options)
    if missing:
        try:
            check_data_root(DATA_ROOT, missing)
        except StudyError as error:
            raise WorkflowError(str(error)) from None


def quoted_texts():
    """Return what captions in Snakemake's own report quote; no job uses it.

    The report of the study quotes the same texts without it.
    """
    if not IS_SNAKEMAKE_REPORT:
        return {}
    from plasticity.report import captions
    from plasticity.statistics.table_files import read_table

    statements = RESULTS / "tables" / "statements.csv"
    rows = read_table(statements) if statements.exists() else captions.NO_STATEMENTS
    return captions.quoted(config, rows)


def read_study():
    """Read and check the config; a mistake in it ends the workflow before anything runs."""
    source = "the config of the module" if HAS_CONFIG else " and ".join(map(str, config_files()))
    if workflow.config_settings.config_args:
        source += f" and {layers.OPTION}"
    try:
        return read(config, source)
    except StudyError as error:
        raise WorkflowError(str(error)) from None


def read_site():
    """Read the settings of the Slurm site."""
    try:
        return slurm.read_site(Path.cwd(), ROOT)
    except StudyError as error:
        raise WorkflowError(str(error)) from None


check_module()
MERGED = read_config()
if not workflow.overwrite_configfiles and not HAS_CONFIG:

    configfile: "config.yaml"


# Snakemake merges in another way: no `extends`, and numbers after --config are texts
config.clear()
config.update(MERGED)
SITE = read_site()
STUDY = read_study()
RESULTS = Path("results") / STUDY.name
check_writable(RESULTS.absolute())
register_copied_results(RESULTS)
if workflow.is_main_process and not workflow.output_settings.dryrun:
    launcher.claim(Path.cwd())
STUDY = replace(STUDY, finished=finished_blocks(RESULTS))
config["quoted"] = quoted_texts()  # not a key of a study, so set after the config is used

ENSEMBLES = [ensemble.folder for ensemble in STUDY.ensembles()]
TREATED = [ensemble.folder for ensemble in STUDY.treated_ensembles()]
TUNED = [f"{setting}/{method}" for setting, method in STUDY.tuned_methods()]
# an environment variable, not a param, because the folder of the data changes no result
DATA_ROOT = Path(os.environ.get("PLASTICITY_DATA") or config["data_root"]).expanduser()
os.environ.update(PLASTICITY_DATA=str(DATA_ROOT))
check_data_root_exists(RESULTS)


wildcard_constraints:
    dataset="|".join(STUDY.datasets),
    setting="|".join(STUDY.settings),
    method="|".join(re.escape(method) for method in STUDY.trained_methods()),
    seeds=BLOCK,


# Files


def result(path):
    """Return the path of a result; it may contain wildcards."""
    return f"results/{STUDY.name}/{path}"


def log_file(name):
    """Return the path of a log; the name may contain wildcards.

    A job writes its time and memory to the file of the same name in `benchmarks`, because Snakemake
    would measure the process that waits for the fork server.
    """
    return result(f"logs/{name}.log")


def targets(pattern, **wildcards):
    """List results: the pattern with every combination of the wildcards."""
    return expand(result(pattern), **wildcards)


def dataset_of(wildcards):
    """Return the prepared dataset of a setting."""
    dataset = STUDY.settings[wildcards.setting].problem.dataset
    return result(f"data/{dataset}.nc")


def choice_of(wildcards):
    """List the file with the selected arm of a method, if the method is tuned."""
    if not STUDY.is_tuned(wildcards.method):
        return []
    return [result(f"tuning/{wildcards.setting}/{wildcards.method}/choice.json")]


def tuning_outcomes_of(wildcards):
    """List the outcomes of all arms that the config gives a method, on the tuning seeds."""
    folder = f"tuning/{wildcards.setting}/{wildcards.method}"
    blocks = STUDY.tuning_blocks(wildcards.setting, wildcards.method)
    return [result(f"{folder}/{seeds}/outcomes.nc") for seeds in blocks]


def compared_outcomes_of(wildcards):
    """List the outcomes from which an arm is selected."""
    if not STUDY.tuning.lengthen:
        return tuning_outcomes_of(wildcards)
    return [result(f"tuning/{wildcards.setting}/{wildcards.method}/lengthened/outcomes.nc")]


def all_compared_outcomes():
    """List the outcomes from which the arms of all methods are selected."""
    if STUDY.tuning.lengthen:
        return targets("tuning/{tuned}/lengthened/outcomes.nc", tuned=TUNED)
    return [
        result(f"tuning/{setting}/{method}/{seeds}/outcomes.nc")
        for setting, method in STUDY.tuned_methods()
        for seeds in STUDY.tuning_blocks(setting, method)
    ]


def ensembles_in(wildcards):
    """List the ensembles of a setting, as folders in the folder of the setting."""
    ensembles = STUDY.ensembles(wildcards.setting)
    return [f"{ensemble.method}/{ensemble.seeds}" for ensemble in ensembles]


def treated_in(wildcards):
    """List the treated ensembles of a setting, as folders in the folder of the setting."""
    ensembles = STUDY.treated_ensembles(wildcards.setting)
    return [f"{ensemble.method}/{ensemble.seeds}" for ensemble in ensembles]


def figure_pages(figure):
    """List the pages of a figure as names of files without their suffixes."""
    return pages.stems(figure, STUDY.drawn(figure))


def figure_files():
    """List the files of all figures."""
    stems = [stem for figure in FIGURES for stem in figure_pages(figure)]
    return targets("figures/{stem}.{format}", stem=stems, format=FORMATS)


def label_of_page(figure, page):
    """Return the label of a page of a figure in the report; pages are counted from 1."""
    title = registry.constant("figures", figure, "TITLE")
    count = len(figure_pages(figure))
    return title if count == 1 else f"{title} ({page} of {count})"


def tables_of_figure(figure):
    """List the tables that a figure shows."""
    return targets("tables/{table}.csv", table=registry.constant("figures", figure, "TABLES"))


def outcomes_of(wildcards):
    """List the outcomes of all ensembles of a setting."""
    folder = f"runs/{wildcards.setting}"
    return [result(f"{folder}/{ensemble}/outcomes.nc") for ensemble in ensembles_in(wildcards)]


def measures_of(wildcards):
    """List the measures of all ensembles of a setting."""
    folder = f"runs/{wildcards.setting}"
    return [result(f"{folder}/{ensemble}/measures.nc") for ensemble in ensembles_in(wildcards)]


def interventions_of(wildcards):
    """List the interventions of all treated ensembles of a setting."""
    folder = f"runs/{wildcards.setting}"
    return [result(f"{folder}/{ensemble}/interventions.nc") for ensemble in treated_in(wildcards)]


# Params: the part of the config that a rule uses, as JSON


def by_file(text):
    """Return a param that Snakemake compares by its text, and that a command gets as a file.

    Snakemake's own report shows the params of each job below its caption, where they would fill
    pages. No job runs then, so they are left out.
    """
    if IS_SNAKEMAKE_REPORT:
        return "not shown"
    return param_file.ParamFile(text, is_written=not workflow.output_settings.dryrun)


def as_param(value):
    """Return a param with sorted JSON."""
    return by_file(as_json(value))


def training_of(wildcards):
    """Return the settings of a training job."""
    return by_file(STUDY.training_job(wildcards.setting, wildcards.method, wildcards.seeds))


def intervention_of(wildcards):
    """Return the settings of a job that treats checkpoints."""
    return by_file(STUDY.intervention_job(wildcards.setting))


def tuning_of(wildcards):
    """Return the settings of a job that trains arms on tuning seeds."""
    return by_file(STUDY.tuning_job(wildcards.setting, wildcards.method, wildcards.seeds))


def lengthening_of(wildcards):
    """Return the settings of the job that lengthens the grid of a method."""
    return by_file(STUDY.lengthening_job(wildcards.setting, wildcards.method))


def choosing_of(wildcards):
    """Return the settings of the job that selects an arm."""
    return as_param({"setting": wildcards.setting, "criterion": STUDY.tuning.criterion})


def gathering_of(wildcards):
    """Return the settings of the job that gathers the ensembles of a setting."""
    return by_file(STUDY.gather_job(wildcards.setting))


def report_settings():
    """Return the settings of the report.

    Its `config` has what captions and texts read, and no other key, so that no other key rewrites
    the report.
    """
    curvature = {key: config["curvature"].get(key) for key in ("samples", "top")}
    return {
        "config": {
            "study": STUDY.name,
            "seeds": config["seeds"],
            "settings": config["settings"],
            "curvature": {key: value for key, value in curvature.items() if value is not None}
            | {
                "operators": list(STUDY.curvature.operators),
                "evaluation_points": sorted(STUDY.curvature.evaluation_points),
            },
            "statistics": asdict(STUDY.statistics),
        },
        "other_tables": [table for table in TABLES if table not in contents.TABLES],
        "drawn": {figure: STUDY.drawn(figure) for figure in FIGURES},
    }


# Params: the code of a rule


@functools.cache
def code(entry, *plugins):
    """Return the digest of the code of a job.

    It covers the entry, the plug-ins that its settings name, and all that they import.
    """
    files = [registry.path(kind, name) for kind, name in plugins]
    try:
        return as_param(code_digest.code_digest(SCRIPTS / f"{entry}.py", files))
    except StudyError as error:
        raise WorkflowError(str(error)) from None


def code_of_checks():
    """Return the digest of the code of the checks, which are tests, and of the study's shifts."""
    checks = ROOT / "tests" / "results"
    shifts = sorted({setting.problem.shift for setting in STUDY.settings.values()})
    files = [checks / "conftest.py", *(registry.path("shifts", shift) for shift in shifts)]
    return as_param(code_digest.code_digest(checks / "test_results.py", files))


def plugins_of_setting(setting, optimizer=True):
    """List the plug-ins that a setting names, without its dataset."""
    values = STUDY.settings[setting]
    plugins = [("shifts", values.problem.shift), ("architectures", values.network.kind)]
    if optimizer:
        plugins.append(("optimizers", values.optimizer.kind))
    return plugins


def plugins_of_method(method):
    """List the plug-ins that a method combines."""
    return [("methods", part) for part in parts(method)]


def plugins_of_dataset(dataset):
    """List the plug-in that reads a dataset."""
    return [("datasets", STUDY.datasets[dataset].kind)]


def plugins_of_operators(curvature=STUDY.curvature):
    """List the plug-ins of the operators that are measured."""
    return [("operators", name) for name in curvature.operators]


def plugins_of_treatments(setting):
    """List the plug-ins of the treatments of a setting."""
    names = {copy["treatment"] for copy in STUDY.treatments_of(setting)}
    return [("treatments", name) for name in sorted(names)]


def plugins_of_study():
    """List the plug-ins of all settings and methods."""
    plugins = set()
    for setting in STUDY.settings:
        plugins.update(plugins_of_setting(setting))
    for ensemble in STUDY.ensembles():
        plugins.update(plugins_of_method(ensemble.method))
    return sorted(plugins)


# Resources

STEPS_PER_SECOND = 500  # training steps of one run; `snakemake cost` measures them
SECONDS_PER_CHECKPOINT = 5  # to measure a checkpoint of one run
MARGIN = 30  # minutes that a job requests in addition to the expected time


def expected_seconds(rule_name, wildcards):
    """Estimate the run time of a Slurm job."""
    problem = STUDY.settings[wildcards.setting].problem
    tasks = count_runs(rule_name, wildcards) * problem.tasks
    if rule_name == "measure_ensemble":
        return tasks * SECONDS_PER_CHECKPOINT
    if rule_name == "treat_ensemble":
        setting = wildcards.setting
        copies = len(STUDY.treatments_of(setting)) * len(STUDY.treated_tasks(setting))
        seconds_per_copy = SECONDS_PER_CHECKPOINT + problem.steps // STEPS_PER_SECOND
        return count_runs(rule_name, wildcards) * copies * seconds_per_copy
    return tasks * problem.steps // STEPS_PER_SECOND


def count_runs(rule_name, wildcards):
    """Count the runs of a Slurm job, or the most that one hyperparameter can add to a grid."""
    if rule_name == "lengthen_grid":
        return STUDY.tuning.lengthen * STUDY.tuning_seeds
    arms = STUDY.reported_arms(wildcards.method)
    if rule_name == "tune_ensemble":
        arms = STUDY.arms(wildcards.method)
    return len(arms) * len(block_seeds(wildcards.seeds))


def slurm_resources(rule_name, memory, trains):
    """Return the resources of a job that a cluster may run.

    Every attempt requests more memory (in MB) and more time than the one before. Jobs declare the
    resource `gpu` only if this machine has one, so without a GPU all cores work in parallel. On a
    cluster, slurm/profile.yaml asks for the GPU of a job that trains, and the site's settings
    decide about the others.
    """
    on_gpu = trains or slurm.measures_on_gpu(SITE)

    def minutes(wildcards, attempt):
        return (MARGIN + expected_seconds(rule_name, wildcards) // 60) * attempt

    return {
        **slurm.resources(SITE, gpu=on_gpu),
        **({"gpu": 1} if gpu.is_present() else {}),
        **({"gres": "gpu:1"} if on_gpu and not trains else {}),
        "mem_mb": lambda wildcards, attempt: memory * attempt,
        "runtime": minutes,
    }


def local_resources(memory, minutes):
    """Return the resources of a job that runs next to Snakemake; memory is in MB."""
    return {
        "mem_mb": lambda wildcards, attempt: memory * attempt,
        "runtime": lambda wildcards, attempt: minutes * attempt,
    }


# Before the first job, and after the last


def before_jobs():
    """Stop if jobs of an earlier start are unfinished, or if results are unknown to new ones.

    On a cluster, announce the new jobs.
    """
    try:
        audit.check_known(workflow.dag.needrun_jobs(), RESULTS)
    except StudyError as error:
        raise WorkflowError(str(error)) from None
    uses_slurm = workflow.executor_plugin.name == "slurm"
    try:
        unfinished = slurm.unfinished_jobs(Path.cwd())
    except StudyError as error:
        # without the cluster profile, a Slurm that does not answer is no obstacle
        if uses_slurm:
            raise WorkflowError(str(error)) from None
        unfinished = []
    if unfinished:
        raise WorkflowError(slurm.unfinished_jobs_message(unfinished))
    # those of the last run were kept, so that its commands could be run by hand
    shutil.rmtree(param_file.FOLDER, ignore_errors=True)
    if workflow.executor_plugin.name == "local":
        fork_server.start()
    if not uses_slurm:
        return
    missing = slurm.missing_settings_message(SITE)
    if missing:
        raise WorkflowError(missing)
    slurm.recognize_every_end(importlib.import_module("snakemake_executor_plugin_slurm"))
    announce([job for job in workflow.dag.needrun_jobs() if not job.is_local])


def announce(jobs):
    """Print the number of Slurm jobs, and how long they take."""
    if not jobs:
        return
    seconds = {job: expected_seconds(job.rule.name, job.wildcards) for job in jobs}
    gpu_seconds = sum(seconds[job] for job in jobs if job.resources.get("gres"))
    cpu_seconds = sum(seconds.values()) - gpu_seconds
    longest = max(jobs, key=seconds.get)
    print(
        f"{len(jobs)} Slurm jobs, about {gpu_seconds / 3600:.1f} GPU-hours and "
        f"{cpu_seconds / 3600:.1f} hours without a GPU, at {STEPS_PER_SECOND} steps of a run per "
        "second (`snakemake --cores 1 cost` measures the speed); the longest: "
        f"{longest.rule.name} {' '.join(longest.wildcards)}, {seconds[longest] / 60:.0f} min. "
        "Starting a job takes about 8 s. A larger seeds_per_job, "
        f"now {STUDY.seeds_per_job}, gives fewer and longer jobs.",
        file=sys.stderr,
    )


class AfterNothing(logging.Filter):
    """Print the same at the end of a run that has nothing to do as after other runs."""

    def filter(self, record):
        if record.msg == NOTHING_TO_BE_DONE_MSG:
            after_success()
        return True


def after_success():
    """Print where the report is, what it says, and the next commands."""
    if "report" not in {job.rule.name for job in workflow.dag.jobs}:
        return
    if "ALL" in {kind.name for kind in workflow.output_settings.quiet or ()}:
        return
    paths = [Path(path) for path in workflow.overwrite_configfiles]
    study = names.name_of(paths[0]) if len(paths) == 1 else ""
    print(f"\n{endings.success(RESULTS, study)}\n", file=sys.stderr)


def after_failure():
    """Print how each failed job ended and what to do, after everything else that is printed."""
    failed = sorted(workflow.scheduler.failed, key=lambda job: (job.rule.name, *job.wildcards))
    for job in failed[:10]:
        name = " ".join([job.rule.name, *job.wildcards])
        message = endings.failure(
            name, Path(job.log[0]), slurm.log_of(job.rule.name, job.wildcards)
        )
        print(f"\n{message}", file=sys.stderr)
    if len(failed) > 10:
        print(f"\n… and {len(failed) - 10} more jobs failed.", file=sys.stderr)


if workflow.is_main_process and not workflow.output_settings.dryrun:
    logger.addFilter(AfterNothing())
