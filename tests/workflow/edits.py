"""Edits of a finished study, and the jobs that each reruns: the source of incremental.md.

PYTHONPATH=workflow/scripts python tests/workflow/edits.py > docs/development/incremental.md
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from plasticity.config import registry
from plasticity.provenance import code_digest

LIBRARY = "workflow/scripts/plasticity"
RELU, TANH, SIN = "digits_labels_relu", "digits_labels_tanh", "digits_labels_sin"
METHODS = {RELU: ["none", "l2", "l2_init", "fresh"], TANH: ["none", "l2_init", "fresh"]}
SEEDS = ["0", "1"]
TREATED = "none"  # the method whose checkpoints are treated
FIGURES = registry.names("figures")


def ensembles(methods: Mapping[str, Iterable[str]], seeds: Iterable[str]) -> list[str]:
    """List ensembles, one for each seed.

    Args:
        methods: of each setting.
        seeds: of each method.
    """
    names = []
    for setting, setting_methods in methods.items():
        for method in setting_methods:
            names += [f"{setting}/{method}/{seed}" for seed in seeds]
    return names


def ensemble_jobs(names: Iterable[str]) -> set[str]:
    """Return the jobs of some ensembles: training, curvature and, if treated, interventions."""
    jobs = set()
    for name in names:
        jobs |= {f"train_ensemble {name}", f"measure_ensemble {name}"}
        if f"/{TREATED}/" in name:
            jobs.add(f"treat_ensemble {name}")
    return jobs


def jobs_of(part: str, jobs: Iterable[str]) -> set[str]:
    """Return the jobs whose wildcards contain a text, such as a setting."""
    return {job for job in jobs if part in job}


ENSEMBLES = ensembles(METHODS, SEEDS)

PREPARE_JOBS = {"prepare digits"}
TRAIN_JOBS = {f"train_ensemble {ensemble}" for ensemble in ENSEMBLES}
MEASURE_JOBS = {f"measure_ensemble {ensemble}" for ensemble in ENSEMBLES}
TREATED_ENSEMBLES = [ensemble for ensemble in ENSEMBLES if f"/{TREATED}/" in ensemble]
TREAT_JOBS = {f"treat_ensemble {ensemble}" for ensemble in TREATED_ENSEMBLES}
GATHER_JOBS = {f"gather {setting}" for setting in METHODS}
FIGURE_JOBS = {f"figure_{figure}" for figure in FIGURES}
LAST = {"report", "all"}

# the jobs that rerun if a stage or a part of the study changes
ANALYSED = {"analyse", "typeset", "check", *FIGURE_JOBS, *LAST}
GATHERED = GATHER_JOBS | ANALYSED
MEASURED = MEASURE_JOBS | GATHERED
COPIES_TREATED = TREAT_JOBS | GATHERED
ALL_MEASURED = TREAT_JOBS | MEASURED  # copies are measured, too
RETRAINED = TRAIN_JOBS | ALL_MEASURED
EVERYTHING = PREPARE_JOBS | RETRAINED
RELU_CHANGED = jobs_of(RELU, RETRAINED) | ANALYSED
TANH_CHANGED = jobs_of(TANH, RETRAINED) | ANALYSED
L2_CHANGED = jobs_of("/l2/", TRAIN_JOBS | MEASURE_JOBS) | jobs_of(RELU, GATHER_JOBS) | ANALYSED
L2_TUNED = {f"tune_ensemble {RELU}/l2/1000", f"choose_arm {RELU}/l2"} | L2_CHANGED


class Edit(NamedTuple):
    """A change of the finished study, and the jobs that it reruns.

    Attributes:
        change: changes a project in place.
        jobs: rules and wildcards of the jobs that rerun.
    """

    change: Callable[[Any], object]
    jobs: set[str]


# Edits of files


def modules(project: Any) -> list[Path]:
    """List all Python files that jobs may use."""
    scripts = (project.root / "workflow/scripts").rglob("*.py")
    checks = (project.root / "tests/results").glob("*.py")
    return sorted([*scripts, *checks])


def add_comments(project: Any) -> None:
    """Add a comment to every module, and to every file of rules."""
    rules = (project.root / "workflow/rules").glob("*.smk")
    for path in [*modules(project), *rules]:
        path.write_text(path.read_text() + "\n\n# another comment\n")


def change_docstrings(project: Any) -> None:
    """Change the docstring of every module."""
    for path in modules(project):
        path.write_text(path.read_text().replace('"""', '"""Changed: ', 1))


def reformat(project: Any) -> None:
    """Change blank lines, quotes and type hints of a module."""
    path = project.root / LIBRARY / "training/trainer.py"
    text = path.read_text().replace(": Tensor,", ': "Tensor",').replace(" -> None:", ":")
    path.write_text("\n\n\n" + text)


def touch_files(project: Any) -> None:
    """Change the times of all files, including results."""
    for time, path in enumerate(sorted(project.root.rglob("*")), start=1_000_000_000):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (time, time))


def append(path: str, text: str) -> Callable[[Any], None]:
    """Return a change that appends text to a file."""
    return lambda project: project.append(path, text)


def add_code(path: str) -> Callable[[Any], None]:
    """Return a change that adds a line of code to a module."""
    return append(path, "\nADDED = 1\n")


def replace_text(path: str, old: str, new: str) -> Callable[[Any], None]:
    """Return a change that replaces text in a file.

    The change raises AssertionError if the file does not have the old text.
    """

    def change(project: Any) -> None:
        text = (project.root / path).read_text()
        assert old in text, (path, old)
        (project.root / path).write_text(text.replace(old, new))

    return change


def copy_files(copies: Mapping[str, str]) -> Callable[[Any], None]:
    """Return a change that copies files; `copies` has the source of each new file."""

    def change(project: Any) -> None:
        for target, source in copies.items():
            shutil.copy(project.root / source, project.root / target)

    return change


def delete(*paths: str) -> Callable[[Any], None]:
    """Return a change that deletes files."""

    def change(project: Any) -> None:
        for path in paths:
            (project.root / path).unlink()

    return change


def upgrade(package: str) -> Callable[[Any], None]:
    """Return a change that makes a package report another version to those who ask for it."""

    def change(project: Any) -> None:
        folder = project.root / ".snakemake" / "upgraded"
        metadata = folder / f"{package.replace('-', '_')}-99.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
        paths = filter(None, [str(folder), project.env.get("PYTHONPATH")])
        project.env = project.env | {"PYTHONPATH": os.pathsep.join(paths)}

    return change


def adopt(project: Any) -> None:
    """Remove Snakemake's metadata, as in a copy of the results, and adopt the results."""
    shutil.rmtree(project.root / ".snakemake")
    done = project.run("python", "workflow/scripts/audit.py", "--adopt")
    assert done.returncode == 0, done.stdout


def in_sequence(*changes: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return a change that applies several changes one after another."""

    def change(project: Any) -> None:
        for apply in changes:
            apply(project)

    return change


# Edits of the config


def edit_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    """Return a change that applies a function to the config."""
    return lambda project: project.config(change)


def with_reversed_keys(value: Any) -> Any:
    """Return a mapping with its keys in reverse order, at all depths."""
    if not isinstance(value, dict):
        return value
    return {key: with_reversed_keys(child) for key, child in reversed(value.items())}


def reverse_keys(project: Any) -> None:
    """Write the keys of the config in reverse order."""
    path = project.root / "config.yaml"
    config = with_reversed_keys(yaml.safe_load(path.read_text()))
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def put(key: str, value: Any) -> Callable[[Any], None]:
    """Return a change that sets a dotted key of the config."""

    def change(config: dict[str, Any]) -> None:
        *sections, name = key.split(".")
        for section in sections:
            config = config.setdefault(section, {})
        config[name] = value

    return edit_config(change)


def put_in_setting(key: str, value: Any, setting: str = RELU) -> Callable[[Any], None]:
    """Return a change that sets a dotted key of a setting."""
    return put(f"settings.{setting}.{key}", value)


def drop(section: str, name: str) -> Callable[[Any], None]:
    """Return a change that removes an entry from a section of the config."""
    return edit_config(lambda config: config[section].pop(name))


def swap(section: str, first: str, second: str) -> Callable[[Any], None]:
    """Return a change that exchanges two values in a section of a setting."""

    def change(config: dict[str, Any]) -> None:
        values = config["settings"][RELU][section]
        values[first], values[second] = values[second], values[first]

    return edit_config(change)


def count_steps(config: dict[str, Any]) -> None:
    """Write the budget of a setting in steps instead of epochs."""
    problem = config["settings"][RELU]["problem"]
    problem["steps_per_task"] = 4
    del problem["epochs"]


def add_setting(config: dict[str, Any]) -> None:
    """Add a setting with another activation."""
    setting = config["settings"][TANH]
    network = setting["network"] | {"activation": "sin"}
    config["settings"][SIN] = setting | {"network": network}


HYPOTHESIS = {
    "name": "H1",
    "measure": "weight_norm",
    "outcome": "final_error",
    "direction": "positive",
}

# Edits, by the sections of the page

WITHOUT_MEANING: dict[str, Edit] = {
    "a comment in every module and every file of rules": Edit(add_comments, set()),
    "a docstring in every module": Edit(change_docstrings, set()),
    "blank lines, quotes and type hints": Edit(reformat, set()),
    "all files touched, including results": Edit(touch_files, set()),
    "config keys in reverse order": Edit(reverse_keys, set()),
    "another data_root": Edit(put("data_root", "elsewhere"), set()),
    "another description in the schema": Edit(
        replace_text(f"{LIBRARY}/config/schema.py", "Name of the study", "Another description"),
        set(),
    ),
    "a line in the README": Edit(append("README.md", "\nOne more sentence.\n"), set()),
    "a newer xarray, which only stores data": Edit(upgrade("xarray"), set()),
}
CODE: dict[str, Edit] = {
    "a new method that is not used": Edit(
        copy_files({f"{LIBRARY}/training/methods/lasso.py": f"{LIBRARY}/training/methods/l2.py"}),
        set(),
    ),
    "a method that is used": Edit(add_code(f"{LIBRARY}/training/methods/l2.py"), L2_CHANGED),
    "a method that is not used": Edit(add_code(f"{LIBRARY}/training/methods/redo.py"), set()),
    "the base of all methods": Edit(add_code(f"{LIBRARY}/training/method.py"), RETRAINED),
    "the dataset": Edit(add_code(f"{LIBRARY}/data/datasets/digits.py"), EVERYTHING),
    "a dataset that is not used": Edit(add_code(f"{LIBRARY}/data/datasets/mnist.py"), set()),
    "the shift": Edit(add_code(f"{LIBRARY}/data/shifts/shuffle_labels.py"), RETRAINED),
    "a shift that is not used": Edit(add_code(f"{LIBRARY}/data/shifts/class_pairs.py"), set()),
    "the architecture": Edit(add_code(f"{LIBRARY}/models/architectures/mlp.py"), RETRAINED),
    "an architecture that is not used": Edit(
        add_code(f"{LIBRARY}/models/architectures/cnn.py"), set()
    ),
    "the base of all architectures": Edit(add_code(f"{LIBRARY}/models/architecture.py"), RETRAINED),
    "the optimizer": Edit(add_code(f"{LIBRARY}/training/optimizers/adam.py"), RETRAINED),
    "an optimizer that is not used": Edit(add_code(f"{LIBRARY}/training/optimizers/sgd.py"), set()),
    "the training loop": Edit(add_code(f"{LIBRARY}/training/trainer.py"), RETRAINED),
    "the operator": Edit(add_code(f"{LIBRARY}/curvature/operators/fisher.py"), ALL_MEASURED),
    "an operator that is not used": Edit(
        add_code(f"{LIBRARY}/curvature/operators/hessian.py"), set()
    ),
    "the measures": Edit(add_code(f"{LIBRARY}/curvature/measure.py"), ALL_MEASURED),
    "the numbers of a spectrum": Edit(add_code(f"{LIBRARY}/curvature/spectrum.py"), ALL_MEASURED),
    "a treatment that is used": Edit(
        add_code(f"{LIBRARY}/interventions/treatments/shrink.py"), COPIES_TREATED
    ),
    "a treatment that is used in one setting": Edit(
        add_code(f"{LIBRARY}/interventions/treatments/rescale_layers.py"),
        jobs_of(RELU, COPIES_TREATED) | ANALYSED,
    ),
    "a treatment that is not used": Edit(
        add_code(f"{LIBRARY}/interventions/treatments/saturate.py"), set()
    ),
    "the experiment with treated copies": Edit(
        add_code(f"{LIBRARY}/interventions/experiment.py"), COPIES_TREATED
    ),
    "the merge of ensembles": Edit(add_code(f"{LIBRARY}/statistics/merge.py"), GATHERED),
    "a test of the statistics": Edit(add_code(f"{LIBRARY}/statistics/lead_lag.py"), ANALYSED),
    "LaTeX tables": Edit(add_code(f"{LIBRARY}/report/latex.py"), {"typeset", *LAST}),
    "a check": Edit(add_code("tests/results/test_results.py"), {"check", *FIGURE_JOBS, *LAST}),
    "one figure": Edit(add_code(f"{LIBRARY}/report/figures/scatter.py"), {"figure_scatter", *LAST}),
    "the parts that figures share": Edit(
        add_code(f"{LIBRARY}/report/panels.py"), {*FIGURE_JOBS, *LAST}
    ),
    "a new figure": Edit(
        copy_files(
            {
                f"{LIBRARY}/report/figures/cloud.py": f"{LIBRARY}/report/figures/scatter.py",
                "workflow/report/figure_cloud.rst": "workflow/report/figure_scatter.rst",
            }
        ),
        {"figure_cloud", *LAST},
    ),
    "a deleted figure": Edit(
        delete(f"{LIBRARY}/report/figures/overlap.py", "workflow/report/figure_overlap.rst"),
        LAST,
    ),
    "the style": Edit(
        replace_text("workflow/style.yaml", "lines.linewidth: 1.2", "lines.linewidth: 1.3"),
        {*FIGURE_JOBS, *LAST},
    ),
    "a figure's caption": Edit(
        append("workflow/report/figure_scatter.rst", "\nOne more sentence.\n"),
        LAST,
    ),
    "a table's caption": Edit(
        append("workflow/report/table_profiles.rst", "\nOne more sentence.\n"),
        LAST,
    ),
    "the template of the report": Edit(append("workflow/report/report.html.j2", "\n"), LAST),
    "the stylesheet of the report": Edit(append("workflow/report/report.css", "\n"), LAST),
    "the report": Edit(add_code(f"{LIBRARY}/report/document.py"), LAST),
    "the interactive page": Edit(add_code(f"{LIBRARY}/report/explorer.py"), set()),
    "a rule's command": Edit(
        replace_text("workflow/rules/gather.smk", 'python "$', 'nice python "$'),
        GATHERED,
    ),
    "a rule's memory": Edit(
        replace_text("workflow/rules/train.smk", "memory=3000", "memory=3500"), set()
    ),
}
PACKAGES: dict[str, Edit] = {
    "a newer matplotlib": Edit(upgrade("matplotlib"), {*FIGURE_JOBS, *LAST}),
    "a newer statsmodels": Edit(upgrade("statsmodels"), ANALYSED),
    "a newer scipy": Edit(upgrade("scipy"), ALL_MEASURED),
    "a newer torch": Edit(upgrade("torch"), RETRAINED),
    "a newer scikit-learn, which contains the digits": Edit(upgrade("scikit-learn"), EVERYTHING),
}
SETTINGS_METHODS_SEEDS: dict[str, Edit] = {
    "one more seed": Edit(
        put("seeds.report", 3), ensemble_jobs(ensembles(METHODS, ["2"])) | GATHERED
    ),
    "one seed fewer": Edit(put("seeds.report", 1), GATHERED),
    "another seeds_per_job": Edit(put("seeds_per_job", 2), set()),
    "a tuning seed": Edit(put("seeds.tune", 1), L2_TUNED),
    "a tuning seed and another criterion": Edit(
        in_sequence(
            put("seeds.tune", 1), put("tuning", {"outcome": "online_error", "stage": "late"})
        ),
        L2_TUNED,
    ),
    "a tuning seed and longer grids": Edit(
        in_sequence(put("seeds.tune", 1), put("tuning", {"lengthen": 1})),
        L2_TUNED | {f"lengthen_grid {RELU}/l2"},
    ),
    "one more arm": Edit(put("methods.l2.strength", [0.001, 0.01, 0.1]), L2_CHANGED),
    "one arm fewer": Edit(put("methods.l2.strength", [0.001]), L2_CHANGED),
    "arms in another order": Edit(put("methods.l2.strength", [0.01, 0.001]), set()),
    "another value of an arm": Edit(put("methods.l2.strength", [0.001, 0.02]), L2_CHANGED),
    "one more method": Edit(
        put("methods.parseval", {"strength": 0.001}),
        ensemble_jobs(ensembles({RELU: ["parseval"], TANH: ["parseval"]}, SEEDS)) | GATHERED,
    ),
    "a method in one more setting": Edit(
        put("methods.l2.settings", [RELU, TANH]),
        ensemble_jobs(ensembles({TANH: ["l2"]}, SEEDS)) | jobs_of(TANH, GATHER_JOBS) | ANALYSED,
    ),
    "one method fewer": Edit(drop("methods", "l2"), jobs_of(RELU, GATHER_JOBS) | ANALYSED),
    "one more setting": Edit(
        edit_config(add_setting),
        ensemble_jobs(ensembles({SIN: METHODS[TANH]}, SEEDS)) | {f"gather {SIN}"} | ANALYSED,
    ),
    "one setting fewer": Edit(drop("settings", TANH), ANALYSED),
    "one more operator": Edit(put("curvature.operators", ["fisher", "ggn"]), ALL_MEASURED),
    "another name of the study": Edit(put("study", "other"), EVERYTHING),
    "a figure of fewer settings": Edit(put("figures.scatter", [TANH]), {"figure_scatter", *LAST}),
    "an option of a dataset that no setting names": Edit(put("datasets.cifar10", {}), set()),
}
ONE_SETTING: dict[str, Edit] = {
    "another dataset": Edit(
        put_in_setting("problem.dataset", "mnist"), {"prepare mnist"} | RELU_CHANGED
    ),
    "another shift": Edit(put_in_setting("problem.shift", "permute_pixels"), RELU_CHANGED),
    "samples": Edit(put_in_setting("problem.samples", 192), RELU_CHANGED),
    "test samples": Edit(put_in_setting("problem.test_samples", 64), RELU_CHANGED),
    "separable": Edit(put_in_setting("problem.separable", True), RELU_CHANGED),
    "batch": Edit(put_in_setting("problem.batch", 32), RELU_CHANGED),
    "epochs": Edit(put_in_setting("problem.epochs", 2), RELU_CHANGED),
    "tasks": Edit(put_in_setting("problem.tasks", 6), RELU_CHANGED),
    "the same budget, in steps": Edit(edit_config(count_steps), RELU_CHANGED),
    "scaling": Edit(put_in_setting("problem.scaling", "unit"), RELU_CHANGED),
    "head": Edit(put_in_setting("problem.head", "fresh"), RELU_CHANGED),
    "width and depth swapped": Edit(swap("network", "width", "depth"), RELU_CHANGED),
    "activation": Edit(
        put_in_setting("network.activation", "identity", TANH),
        TANH_CHANGED,
    ),
    "initialization": Edit(put_in_setting("network.initialization", "xavier"), RELU_CHANGED),
    "matched": Edit(put_in_setting("network.matched", True), RELU_CHANGED),
    "step size": Edit(put_in_setting("optimizer.lr", 0.002), RELU_CHANGED),
    "an optimizer that resets at task boundaries": Edit(
        put_in_setting("optimizer.at_task_boundary", "reset"), RELU_CHANGED
    ),
    "another optimizer": Edit(put_in_setting("optimizer.kind", "sgd"), RELU_CHANGED),
}
TRAINING_CURVATURE_STATISTICS: dict[str, Edit] = {
    "fewer checkpoints": Edit(
        in_sequence(put("training.checkpoint_every", 2), put("curvature.every", 4)), RETRAINED
    ),
    "fewer points in learning curves": Edit(put("training.curve_points", 2), RETRAINED),
    "the default number of points, written out": Edit(put("training.curve_points", 10), set()),
    "precision": Edit(put("training.precision", "bfloat16"), RETRAINED),
    "curvature at fewer tasks": Edit(put("curvature.every", 2), MEASURED),
    "curvature on more samples": Edit(put("curvature.samples", 64), ALL_MEASURED),
    "one evaluation point fewer": Edit(put("curvature.evaluation_points", ["next"]), MEASURED),
    "evaluation points in another order": Edit(
        put("curvature.evaluation_points", ["next", "previous"]), set()
    ),
    "fewer blocks": Edit(put("curvature.blocks", ["all"]), ALL_MEASURED),
    "largest exact matrix": Edit(put("curvature.exact_up_to", 1000), ALL_MEASURED),
    "no estimates": Edit(put("curvature.estimate", False), ALL_MEASURED),
    "steps of an estimate": Edit(put("curvature.steps", 9), ALL_MEASURED),
    "probes of an estimate": Edit(put("curvature.probes", 9), ALL_MEASURED),
    "probes at a time": Edit(put("curvature.probe_block", 2), ALL_MEASURED),
    "levels of the effective rank": Edit(put("curvature.levels", [0.9]), ALL_MEASURED),
    "top directions": Edit(put("curvature.top", 5), ALL_MEASURED),
    "the same operators, as a mapping": Edit(put("curvature.operators", {"fisher": {}}), set()),
    "the defaults of curvature, written out": Edit(
        in_sequence(
            put("curvature.steps", 64),
            put("curvature.levels", [0.99]),
            put("curvature.estimate", True),
        ),
        set(),
    ),
    "a hypothesis": Edit(put("statistics.hypotheses", [HYPOTHESIS]), ANALYSED),
    "number of draws": Edit(put("statistics.draws", 999), ANALYSED),
    "margin of lost plasticity": Edit(put("statistics.lost", 0.1), ANALYSED),
    "margin of a moved measure": Edit(put("statistics.moved", 0.1), ANALYSED),
    "correlation whose power is computed": Edit(put("statistics.relevant", 0.5), ANALYSED),
    "another primary rank": Edit(put("statistics.primary", "entropy_rank"), GATHERED),
    "margin of a negligible correlation": Edit(put("statistics.negligible", 0.2), ANALYSED),
    "margin of a negligible difference": Edit(
        put("statistics.negligible_difference", 0.01), ANALYSED
    ),
}
INTERVENTIONS: dict[str, Edit] = {
    "one more treatment": Edit(put("interventions.treatments.fresh", {}), COPIES_TREATED),
    "one treatment fewer": Edit(
        edit_config(lambda config: config["interventions"]["treatments"].pop("low_rank")),
        COPIES_TREATED,
    ),
    "another strength": Edit(
        put("interventions.treatments.shrink.strength", [0.3, 0.5]), COPIES_TREATED
    ),
    "strengths in another order": Edit(
        put("interventions.treatments.shrink.strength", [0.8, 0.3]), set()
    ),
    "a treatment in one setting only": Edit(
        put("interventions.treatments.low_rank.settings", [RELU]),
        jobs_of(TANH, COPIES_TREATED) | ANALYSED,
    ),
    "one more treated task": Edit(
        put("interventions.tasks", [2, 3]), jobs_of("/none/", RETRAINED) | GATHERED
    ),
    "one more treated method": Edit(
        put("interventions.arms", ["none", "l2_init"]),
        jobs_of("/l2_init/", RETRAINED)
        | {
            f"treat_ensemble {name}"
            for name in ensembles({RELU: ["l2_init"], TANH: ["l2_init"]}, SEEDS)
        }
        | GATHERED,
    ),
    "other operators of copies": Edit(
        put("interventions.operators", {"fisher": {"blocks": ["all"]}}), COPIES_TREATED
    ),
    "no interventions": Edit(
        edit_config(lambda config: config.pop("interventions")),
        (jobs_of("/none/", RETRAINED) - TREAT_JOBS) | GATHERED,
    ),
}
RESULTS: dict[str, Edit] = {
    "a deleted figure file": Edit(
        delete("results/tiny/figures/scatter.pdf"), {"figure_scatter", *LAST}
    ),
    "a deleted dataset": Edit(
        delete(f"results/tiny/datasets/{RELU}.nc"), jobs_of(RELU, GATHER_JOBS) | ANALYSED
    ),
    "deleted checkpoints": Edit(
        delete(*(f"results/tiny/runs/{ensemble}/checkpoints.nc" for ensemble in ENSEMBLES)),
        set(),
    ),
    "deleted checkpoints, then another operator": Edit(
        in_sequence(
            delete(f"results/tiny/runs/{RELU}/l2/0/checkpoints.nc"),
            put("curvature.operators", ["ggn"]),
        ),
        {f"train_ensemble {RELU}/l2/0"} | ALL_MEASURED,
    ),
    "all results copied into another clone and adopted": Edit(adopt, set()),
    "the same, after an edit of a method": Edit(
        in_sequence(add_code(f"{LIBRARY}/training/methods/l2.py"), adopt), L2_CHANGED
    ),
}

SECTIONS: dict[str, dict[str, Edit]] = {
    "Edits without meaning": WITHOUT_MEANING,
    "Code": CODE,
    "Packages": PACKAGES,
    "Config: settings, methods and seeds": SETTINGS_METHODS_SEEDS,
    "Config: one setting": ONE_SETTING,
    "Config: training, curvature and statistics": TRAINING_CURVATURE_STATISTICS,
    "Config: interventions": INTERVENTIONS,
    "Results": RESULTS,
}

EDITS = {
    f"{section}: {name}": edit
    for section, edits in SECTIONS.items()
    for name, edit in edits.items()
}

COLUMNS = {
    "prepare": ("prepare",),
    "tune": ("tune_ensemble", "lengthen_grid", "choose_arm"),
    "train": ("train_ensemble",),
    "curvature": ("measure_ensemble",),
    "intervene": ("treat_ensemble",),
    "gather": ("gather",),
    "analyse": ("analyse",),
    "check": ("check",),
    "figures": (*FIGURE_JOBS, "figure_cloud"),
    "typeset": ("typeset",),
    "report": ("report",),
}
ENTRIES = {  # the script of each column, whose code digest its jobs have
    "prepare": "prepare",
    "tune": "tune",
    "train": "train",
    "curvature": "curvature",
    "intervene": "intervene",
    "gather": "gather",
    "analyse": "analyse",
    "figures": "draw",
    "typeset": "typeset",
    "report": "report",
}
PLUG_INS = tuple(registry.FOLDERS.values())


def digests_by_stage() -> dict[str, set[str]]:
    """Return the files in the code digest of each stage, whatever the settings name."""
    digests = {
        stage: set(code_digest.code_digest(code_digest.SCRIPTS / f"{entry}.py"))
        for stage, entry in ENTRIES.items()
    }
    checks = code_digest.ROOT / "tests/results"
    check_digest = code_digest.code_digest(checks / "test_results.py", [checks / "conftest.py"])
    digests["check"] = set(check_digest)
    return digests


def stages_by_module() -> dict[str, list[str]]:
    """Return the stages whose code digest includes each module of the library."""
    digests = digests_by_stage()
    library = code_digest.ROOT / LIBRARY
    stages = {}
    for module in sorted(str(path.relative_to(library)) for path in library.rglob("*.py")):
        file = f"{LIBRARY}/{module}"
        stages[module] = [stage for stage in COLUMNS if file in digests[stage]]
    return stages


def table_row(name: str, jobs: set[str]) -> str:
    """Return a row with the number of jobs in each column; zeros are left out."""
    jobs_per_rule = Counter(job.split()[0] for job in jobs)
    cells = []
    for rules in COLUMNS.values():
        count = sum(jobs_per_rule[rule] for rule in rules)
        cells.append(str(count) if count else "")
    return f"| {name} | {' | '.join(cells)} |"


def edits_tables() -> str:
    """Return a table for each section, with the number of jobs that each edit reruns."""
    head = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines = []
    for section, edits in SECTIONS.items():
        rows = [table_row(name, edit.jobs) for name, edit in edits.items()]
        lines += [f"### {section}", "", *head, *rows, ""]
    return "\n".join(lines).strip()


def modules_table() -> str:
    """Return a row for each set of stages, with the modules that only these stages use."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for module, stages in stages_by_module().items():
        if not str(Path(module).parent).startswith(PLUG_INS):
            groups.setdefault(tuple(stages), []).append(f"`{module}`")
    positions = {stage: position for position, stage in enumerate(COLUMNS)}
    order = sorted(groups, key=lambda stages: (not stages, [positions[stage] for stage in stages]))
    rows = [
        f"| {', '.join(groups[stages])} | {', '.join(stages) or '`none`'} |" for stages in order
    ]
    return "\n".join(rows)


def page() -> str:
    """Return docs/development/incremental.md."""
    return TEXT.format(
        edits=len(EDITS),
        jobs=len(EVERYTHING - {"all"}),
        tables=edits_tables(),
        modules=modules_table(),
    )


TEXT = """# Which edits rerun what

Snakemake reruns the jobs that depend on an edit, and no other. This page lists {edits} edits of a
finished study with the jobs that each reruns. `tests/workflow/test_edits.py` tests every row.

`make why` answers the same question for your own edits: one line per job, with the file, package or
key that causes it, and the time that the job took before.

## {edits} edits

The study has two settings, four methods (one with two arms) and two seeds, each in its own job:
{jobs} jobs. A cell is the number of jobs that rerun. All other results stay the same, byte for
byte.

{tables}

## Which stage uses which module?

A stage reruns if one of its modules changes in more than comments, docstrings, layout and type
hints. The table leaves out plug-in files (methods, datasets, shifts, …), because only the jobs that
name them use them. Plug-in files, or commands outside of jobs, use the modules in the row `none`.

| modules | stages |
|---|---|
{modules}

## How it works

- **Code and settings are parameters of a job.** `code` has a digest of each file that the job may
  import, and the versions of packages that compute or draw. `settings` has only the keys that the
  job uses. Snakemake compares both with those of the result. A test compares the digests with the
  modules that jobs import.
- **Snakemake compares files by content.** A newer file with the same content reruns nothing. This
  holds for files of up to a gigabyte.
- **Snakemake reuses trained seeds.** You can increase `seeds` or change `seeds_per_job`, and no
  seed is trained twice.
- **You can delete intermediate files.** Snakemake recreates them only if a job needs them. It
  always recreates missing datasets, tables, figures and reports.
- **You can edit code while jobs run.** A waiting job with changed code refuses to start, and runs
  at the next start of Snakemake. A running job continues with the old code, and the next start runs
  it again.
"""


if __name__ == "__main__":
    print(page(), end="")
