# Every function of the workflow: the study read once, and what each rule takes of it. No rules here.
import functools
import importlib
import os
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
SCRIPTS = ROOT / "workflow" / "scripts"
STYLE = "workflow/style.yaml"
CAPTIONS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "workflow" / "report").glob("*.rst"))
CHECKS = ROOT / "tests" / "results"
sys.path.insert(0, str(SCRIPTS))

from plasticity import slurm
from plasticity.config import registry
from plasticity.config.models import BASELINE, parts
from plasticity.config.study import BLOCK, as_json, block_seeds, finished, read
from plasticity.errors import StudyError
from plasticity.provenance import audit, code_digest

TABLES = [
    "statements",
    "hypotheses",
    "summary",
    "outcomes",
    "measures",
    "associations",
    "nulls",
    "lead_lag",
    "consistency",
    "counterexamples",
]
TABLES += ["prediction", "redundancy", "comparisons", "profiles", "tuning"]
TYPESET = ["settings", "methods", "cost"]  # those of a paper, in LaTeX too
PAGES = {  # of the report, the tables on each, and what it calls them; it leaves out those of thousands of rows
    "outcomes": {
        "statements": "what the tables say, in words",
        "hypotheses": "hypotheses declared before the data",
        "summary": "every arm at a glance",
        "outcomes": "outcomes of every arm",
        "settings": "what each setting is",
        "cost": "what each stage took",
    },
    "explanations": {
        "consistency": "each explanation over settings",
        "counterexamples": "where an explanation fails",
        "prediction": "how well measures rank checkpoints",
        "redundancy": "how far ranks are the same thing",
    },
    "methods": {
        "methods": "what became of each arm, late",
        "comparisons": "methods beside each other",
        "profiles": "performance profiles",
        "tuning": "scores of arms on the tuning seeds, and the chosen ones",
    },
}
FIGURES = registry.names("figures")
FORMATS = ["svg", "pdf", "png"]


def study():
    """The config, checked and typed; a mistake in it ends the workflow before anything runs."""
    where = str(workflow.configfiles[-1]) if workflow.configfiles else "--config"
    try:
        return read(config, where)
    except StudyError as mistake:
        raise WorkflowError(str(mistake)) from None


def check_writable(folder):
    """Say so now if the results cannot be written, not after hours."""
    there = next(path for path in [folder, *folder.parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise WorkflowError(f"{there} cannot be written to, and the results go below it: mend its permissions")


if Path.cwd().resolve() != ROOT.resolve():
    raise WorkflowError(f"start snakemake in {ROOT}: its commands and results are relative to that folder")

try:
    SITE = slurm.site(ROOT)
except StudyError as mistake:
    raise WorkflowError(str(mistake)) from None
SAID = config.pop("said", {})  # what captions quote, when the report is written
STUDY = study()
config["said"] = SAID
RESULTS = Path("results") / STUDY.name
check_writable(RESULTS.absolute())
if workflow.is_main_process and not os.environ.get(audit.ALLOWED) and (came := audit.set_off_again(audit.unknown(RESULTS))):
    raise WorkflowError(audit.refusal(came))
STUDY = replace(STUDY, finished=finished(RESULTS))
ENSEMBLES = [ensemble.folder for ensemble in STUDY.ensembles()]
TUNED = [f"{setting}/{method}" for setting, method in STUDY.tunings()]
TUNED_ENSEMBLES = [f"{setting}/{method}/{seeds}" for setting, method in STUDY.tunings() for seeds in STUDY.tuning_blocks(setting, method)]
# not a param: where the data lie changes no result
os.environ.update(PLASTICITY_DATA=os.environ.get("PLASTICITY_DATA") or config["data_root"])


wildcard_constraints:
    dataset="|".join(STUDY.datasets),
    setting="|".join(STUDY.settings),
    method="|".join(re.escape(method) for method in [*STUDY.methods, BASELINE]),
    seeds=BLOCK,


def targets(pattern, **wildcards):
    """Files of the study: every combination of the wildcards."""
    return expand(f"results/{STUDY.name}/{pattern}", **wildcards)


@functools.cache
def code(entry, *named):
    """A rule's param `code`: the digest of its entry, with what it imports and the files that its settings name."""
    files = [registry.path(kind, name) for kind, name in named]
    return as_json(code_digest.code_digest(SCRIPTS / f"{entry}.py", files))


def dataset_of(wildcards):
    """The prepared dataset of a setting."""
    return f"results/{STUDY.name}/data/{STUDY.settings[wildcards.setting].problem.dataset}.nc"


def files_of(setting, optimizer=True):
    """The files that a setting names, besides its dataset: how tasks change, the network, and what it learns with."""
    chosen = STUDY.settings[setting]
    named = [("shifts", chosen.problem.shift), ("architectures", chosen.network.kind)]
    return [*named, ("optimizers", chosen.optimizer.kind)] if optimizer else named


def files_of_study():
    """The files that all settings and their methods name."""
    named = {file for setting in STUDY.settings for file in files_of(setting)}
    return sorted(named | {file for ensemble in STUDY.ensembles() for file in files_of_method(ensemble.method)})


def files_of_method(method):
    """The files that a method composes."""
    return [("methods", part) for part in parts(method)]


def training_of(wildcards):
    """What a training job takes of the config."""
    return STUDY.training_job(wildcards.setting, wildcards.method, wildcards.seeds)


def gathering_of(wildcards):
    """What a setting's dataset takes of the config."""
    return STUDY.gathering(wildcards.setting)


def ensembles_in(wildcards):
    """The ensembles of a setting, as folders below it."""
    return [f"{ensemble.method}/{ensemble.seeds}" for ensemble in STUDY.ensembles(wildcards.setting)]


def ensembles_of(wildcards, file):
    """One file of every ensemble of a setting."""
    return [f"results/{STUDY.name}/runs/{wildcards.setting}/{ensemble}/{file}" for ensemble in ensembles_in(wildcards)]


def tuning_of(wildcards):
    """What a job that trains arms on tuning seeds takes of the config."""
    return STUDY.tuning_job(wildcards.setting, wildcards.method, wildcards.seeds)


def choice_of(wildcards):
    """The file with the arm that was chosen for a tuned method; none for another."""
    return [f"results/{STUDY.name}/tuning/{wildcards.setting}/{wildcards.method}/choice.json"] if STUDY.tuned(wildcards.method) else []


def choosing_of(wildcards):
    """What the choice of an arm takes of the config."""
    return as_json({"setting": wildcards.setting, "criterion": vars(STUDY.criterion)})


def training_seconds(setting, arms, seeds):
    """Time to expect: a second per 500 steps of a run."""
    problem = STUDY.settings[setting].problem
    return len(arms) * len(block_seeds(seeds)) * problem.tasks * problem.steps // 500


def training_minutes(setting, arms, seeds, attempt):
    """Time to ask for: half an hour more than is to be expected."""
    return (30 + training_seconds(setting, arms, seeds) // 60) * attempt


def before_jobs():
    """Before any job starts: refuse to make what jobs of a former start still make; on a cluster, say what is going to be submitted."""
    submits = workflow.executor_plugin.name == "slurm"
    try:
        if still := slurm.running(ROOT):
            raise WorkflowError(slurm.refusal(still))
    except StudyError as mistake:
        if submits:  # a machine on which Slurm is installed, but no cluster's, can run a study
            raise WorkflowError(str(mistake)) from None
    if not submits:
        return
    if said := slurm.missing(SITE):
        raise WorkflowError(said)
    slurm.see_every_end(importlib.import_module("snakemake_executor_plugin_slurm"))
    seconds = {job: expected_seconds(job.rule.name, job.wildcards) for job in workflow.dag.needrun_jobs() if not job.is_local}
    if seconds:
        hours = {gpu: sum(s for job, s in seconds.items() if bool(job.resources.get("gres")) == gpu) / 3600 for gpu in (True, False)}
        longest = max(seconds, key=seconds.get)
        print(
            f"{len(seconds)} Slurm jobs, about {hours[True]:.1f} GPU-hours and {hours[False]:.1f} hours without a GPU (500 steps of a run a"
            f" second; `snakemake --cores 1 cost` measures it); the longest: {longest.rule.name} {' '.join(longest.wildcards)}, {seconds[longest] / 60:.0f}"
            f" min. Each costs about 8 s beside its work: seeds_per_job, now {STUDY.seeds_per_job}, makes them fewer and longer.",
            file=sys.stderr,
        )


def after_failure():
    """At the end, where it is not overlooked: each job that failed for good, and how its log ends."""
    failed = sorted(workflow.scheduler.failed, key=lambda job: (job.rule.name, *job.wildcards))
    for job in failed[:10]:
        path = Path(job.log[0])
        lines = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else ["(there is no log)"]
        print(
            "\n".join([f"\n{job.rule.name} {' '.join(job.wildcards)} failed. {path} ends:", *(f"    {line}" for line in lines)]),
            file=sys.stderr,
        )
    if len(failed) > 10:
        print(f"\n… and {len(failed) - 10} more jobs failed.", file=sys.stderr)


def expected_seconds(name, wildcards):
    """Time to expect of a job of the cluster."""
    arms = STUDY.arms(wildcards.method) if name == "tune_ensemble" else STUDY.reported(wildcards.method)
    if name == "measure_ensemble":
        return 5 * len(arms) * len(block_seeds(wildcards.seeds)) * STUDY.settings[wildcards.setting].problem.tasks
    return training_seconds(wildcards.setting, arms, wildcards.seeds)


def curvature_minutes(wildcards, attempt):
    """Time to ask for: half an hour, and five seconds for each checkpoint of a run."""
    runs = len(STUDY.reported(wildcards.method)) * len(block_seeds(wildcards.seeds))
    return (30 + runs * STUDY.settings[wildcards.setting].problem.tasks // 12) * attempt


def checks_code():
    """The code of the checks, which are tests, with what they build anew of each setting."""
    named = [registry.path("shifts", change) for change in sorted({setting.problem.shift for setting in STUDY.settings.values()})]
    return as_json(code_digest.code_digest(CHECKS / "test_results.py", [CHECKS / "conftest.py", *named]))
