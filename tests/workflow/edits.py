"""Edits of a finished study and the jobs that each reruns: the source of incremental.md.

PYTHONPATH=workflow/scripts python tests/workflow/edits.py > docs/development/incremental.md
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from plasticity.config import registry
from plasticity.provenance import code_digest

RELU, TANH = "digits_labels_relu", "digits_labels_tanh"
METHODS = {RELU: ["none", "l2", "l2_init", "fresh"], TANH: ["none", "l2_init", "fresh"]}
SEEDS = ["0", "1"]
ENSEMBLES = [
    f"{setting}/{method}/{seed}"
    for setting in METHODS
    for method in METHODS[setting]
    for seed in SEEDS
]
FIGURES = registry.names("figures")
PAGES = ["outcomes", "explanations", "methods"]

PREPARE = {"prepare digits"}
TRAIN = {f"train_ensemble {ensemble}" for ensemble in ENSEMBLES}
MEASURE = {f"measure_ensemble {ensemble}" for ensemble in ENSEMBLES}
GATHER = {f"gather {setting}" for setting in METHODS}
DRAW = {f"figure_{figure}" for figure in FIGURES}
SHOW = {f"page_{page}" for page in PAGES}
LAST = {"report", "all"}
RECONFIGURED = {*SHOW, *LAST}  # captions quote the config
END = {"analyse", "typeset", *SHOW, "check", *DRAW, *LAST}
EVERYTHING = PREPARE | TRAIN | MEASURE | GATHER | END

LIBRARY = "workflow/scripts/plasticity"


class Edit(NamedTuple):
    """A change of the finished study, and the jobs that it reruns.

    Attributes:
        change: changes a project in place.
        jobs: rules and wildcards of the jobs that rerun.
    """

    change: Callable[[Any], object]
    jobs: set[str]


def of(jobs: set[str], part: str) -> set[str]:
    """Those of the jobs whose wildcards hold `part`."""
    return {job for job in jobs if part in job}


def of_ensembles(*ensembles: str) -> set[str]:
    """Training and curvature of some ensembles."""
    return {
        f"{rule} {ensemble}"
        for rule in ("train_ensemble", "measure_ensemble")
        for ensemble in ensembles
    }


OF_RELU = of(TRAIN | MEASURE | GATHER, RELU) | END
OF_L2 = of(TRAIN | MEASURE, "/l2/") | of(GATHER, RELU) | END
RETRAINED = TRAIN | MEASURE | GATHER | END
MEASURED = MEASURE | GATHER | END


def modules(project: Any) -> list[Path]:
    """All Python files that jobs may use."""
    return sorted(
        [
            *(project.root / "workflow/scripts").rglob("*.py"),
            *(project.root / "tests/results").glob("*.py"),
        ]
    )


def comment(project: Any) -> None:
    """A comment in every module, and in every file of rules."""
    for path in [*modules(project), *(project.root / "workflow/rules").glob("*.smk")]:
        path.write_text(path.read_text() + "\n\n# a word more\n")


def document(project: Any) -> None:
    """Another docstring in every module."""
    for path in modules(project):
        path.write_text(path.read_text().replace('"""', '"""Now: ', 1))


def respell(project: Any) -> None:
    """Other quotes, blank lines and hints of types."""
    path = project.root / LIBRARY / "training/trainer.py"
    path.write_text(
        "\n\n\n" + path.read_text().replace(": Tensor,", ': "Tensor",').replace(" -> None:", ":")
    )


def touch(project: Any) -> None:
    """Other times of all files, results among them."""
    for time, path in enumerate(sorted(project.root.rglob("*")), start=1_000_000_000):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (time, time))


def turned(value: Any) -> Any:
    """A mapping with its keys in the opposite order, at all depths."""
    return (
        {key: turned(inner) for key, inner in reversed(value.items())}
        if isinstance(value, dict)
        else value
    )


def reorder(project: Any) -> None:
    path = project.root / "config.yaml"
    path.write_text(yaml.safe_dump(turned(yaml.safe_load(path.read_text())), sort_keys=False))


def edit(path: str) -> Callable[[Any], None]:
    """A line of code more."""
    return lambda project: project.append(path, "\nADDED = 1\n")


def replaced(path: str, old: str, new: str) -> Callable[[Any], None]:
    def change(project: Any) -> None:
        text = (project.root / path).read_text()
        assert old in text, (path, old)
        (project.root / path).write_text(text.replace(old, new))

    return change


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    return lambda project: project.config(change)


def put(key: str, value: Any) -> Callable[[Any], None]:
    """The value at a dotted key of the config; None takes it out."""

    def change(values: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for name in path:
            values = values.setdefault(name, {})
        if value is None:
            del values[last]
        else:
            values[last] = value

    return config(change)


def of_setting(key: str, value: Any, setting: str = RELU) -> Callable[[Any], None]:
    return put(f"settings.{setting}.{key}", value)


def swap(part: str, one: str, other: str) -> Callable[[Any], None]:
    def change(values: dict[str, Any]) -> None:
        inner = values["settings"][RELU][part]
        inner[one], inner[other] = inner[other], inner[one]

    return config(change)


def in_steps(values: dict[str, Any]) -> None:
    problem = values["settings"][RELU]["problem"]
    problem["steps_per_task"] = 4
    del problem["epochs"]


def third_setting(values: dict[str, Any]) -> None:
    setting = values["settings"][TANH]
    values["settings"]["digits_labels_sin"] = setting | {
        "network": setting["network"] | {"activation": "sin"}
    }


def add_a_method(project: Any) -> None:
    shutil.copy(
        project.root / LIBRARY / "training/methods/l2.py",
        project.root / LIBRARY / "training/methods/lasso.py",
    )


def add_a_figure(project: Any) -> None:
    shutil.copy(
        project.root / LIBRARY / "report/figures/scatter.py",
        project.root / LIBRARY / "report/figures/cloud.py",
    )
    shutil.copy(
        project.root / "workflow/report/figure_scatter.rst",
        project.root / "workflow/report/figure_cloud.rst",
    )


def remove(*paths: str) -> Callable[[Any], None]:
    def change(project: Any) -> None:
        for path in paths:
            (project.root / path).unlink()

    return change


def upgrade(package: str) -> Callable[[Any], None]:
    """Another version of a package, as far as those who ask for versions can see."""

    def change(project: Any) -> None:
        about = (
            project.root / ".snakemake" / "upgraded" / f"{package.replace('-', '_')}-99.0.dist-info"
        )
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
        project.env = project.env | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(about.parent), project.env.get("PYTHONPATH")])
            )
        }

    return change


def adopt(project: Any) -> None:
    """Remove Snakemake's metadata, as in a copy of the results, and adopt the results."""
    shutil.rmtree(project.root / ".snakemake")
    done = project.run("python", "workflow/scripts/audit.py", "--adopt")
    assert done.returncode == 0, done.stdout


def both(*changes: Callable[[Any], object]) -> Callable[[Any], None]:
    def change(project: Any) -> None:
        for one in changes:
            one(project)

    return change


HYPOTHESIS = {
    "name": "H1",
    "measure": "weight_norm",
    "outcome": "final_error",
    "direction": "positive",
}
NEW_SEED = of_ensembles(
    *(f"{setting}/{method}/2" for setting in METHODS for method in METHODS[setting])
)

SECTIONS: dict[str, dict[str, Edit]] = {
    "Edits without meaning": {
        "a comment in every module and every file of rules": Edit(comment, set()),
        "a docstring in every module": Edit(document, set()),
        "blank lines, quotes and type hints": Edit(respell, set()),
        "all files touched, including results": Edit(touch, set()),
        "config keys in reverse order": Edit(reorder, set()),
        "another data_root": Edit(put("data_root", "elsewhere"), set()),
        "another description in the schema": Edit(
            replaced(f"{LIBRARY}/config/schema.py", "Name of the study", "Its name"), set()
        ),
        "a line in the README": Edit(
            lambda project: project.append("README.md", "\nOne word more.\n"), set()
        ),
        "a newer xarray, which only stores data": Edit(upgrade("xarray"), set()),
    },
    "Code": {
        "a new method that is not used": Edit(add_a_method, set()),
        "a method that is used": Edit(edit(f"{LIBRARY}/training/methods/l2.py"), OF_L2),
        "a method that is not used": Edit(edit(f"{LIBRARY}/training/methods/redo.py"), set()),
        "the base of all methods": Edit(edit(f"{LIBRARY}/training/method.py"), RETRAINED),
        "the dataset": Edit(edit(f"{LIBRARY}/data/datasets/digits.py"), EVERYTHING),
        "a dataset that is not used": Edit(edit(f"{LIBRARY}/data/datasets/mnist.py"), set()),
        "the shift": Edit(edit(f"{LIBRARY}/data/shifts/shuffle_labels.py"), RETRAINED),
        "a shift that is not used": Edit(edit(f"{LIBRARY}/data/shifts/class_pairs.py"), set()),
        "the architecture": Edit(edit(f"{LIBRARY}/models/architectures/mlp.py"), RETRAINED),
        "an architecture that is not used": Edit(
            edit(f"{LIBRARY}/models/architectures/cnn.py"), set()
        ),
        "the base of all architectures": Edit(edit(f"{LIBRARY}/models/architecture.py"), RETRAINED),
        "the optimizer": Edit(edit(f"{LIBRARY}/training/optimizers/adam.py"), RETRAINED),
        "an optimizer that is not used": Edit(edit(f"{LIBRARY}/training/optimizers/sgd.py"), set()),
        "the training loop": Edit(edit(f"{LIBRARY}/training/trainer.py"), RETRAINED),
        "the operator": Edit(edit(f"{LIBRARY}/curvature/operators/fisher.py"), MEASURED),
        "an operator that is not used": Edit(
            edit(f"{LIBRARY}/curvature/operators/hessian.py"), set()
        ),
        "the measures": Edit(edit(f"{LIBRARY}/curvature/measure.py"), MEASURED),
        "the numbers of a spectrum": Edit(edit(f"{LIBRARY}/curvature/spectrum.py"), MEASURED),
        "the merge of ensembles": Edit(edit(f"{LIBRARY}/statistics/merge.py"), GATHER | END),
        "a test of the statistics": Edit(edit(f"{LIBRARY}/statistics/lead_lag.py"), END),
        "LaTeX tables": Edit(
            edit(f"{LIBRARY}/report/latex.py"), {"typeset", "page_outcomes", "page_methods", *LAST}
        ),
        "a check": Edit(edit("tests/results/test_results.py"), {"check", *DRAW, *LAST}),
        "one figure": Edit(edit(f"{LIBRARY}/report/figures/scatter.py"), {"figure_scatter", *LAST}),
        "the parts that figures share": Edit(edit(f"{LIBRARY}/report/panels.py"), {*DRAW, *LAST}),
        "a new figure": Edit(add_a_figure, {"figure_cloud", *LAST}),
        "a deleted figure": Edit(
            remove(f"{LIBRARY}/report/figures/overlap.py", "workflow/report/figure_overlap.rst"),
            LAST,
        ),
        "the style": Edit(
            replaced("workflow/style.yaml", "lines.linewidth: 1.2", "lines.linewidth: 1.3"),
            {*DRAW, *LAST},
        ),
        "a figure's caption": Edit(
            lambda project: project.append(
                "workflow/report/figure_scatter.rst", "\nOne word more.\n"
            ),
            LAST,
        ),
        "a table's caption": Edit(
            lambda project: project.append(
                "workflow/report/table_profiles.rst", "\nOne word more.\n"
            ),
            {"page_methods", *LAST},
        ),
        "the interactive page": Edit(edit(f"{LIBRARY}/report/explorer.py"), set()),
        "a rule's command": Edit(
            replaced("workflow/rules/gather.smk", "python workflow", "nice python workflow"),
            GATHER | END,
        ),
        "a rule's memory": Edit(
            replaced("workflow/rules/train.smk", "memory=3000", "memory=3500"), set()
        ),
    },
    "Packages": {
        "a newer matplotlib": Edit(upgrade("matplotlib"), {*DRAW, *LAST}),
        "a newer statsmodels": Edit(upgrade("statsmodels"), END),
        "a newer scipy": Edit(upgrade("scipy"), MEASURED),
        "a newer torch": Edit(upgrade("torch"), RETRAINED),
        "a newer scikit-learn, which has the digits": Edit(upgrade("scikit-learn"), EVERYTHING),
    },
    "Config: settings, methods and seeds": {
        "one more seed": Edit(put("seeds.report", 3), NEW_SEED | GATHER | END),
        "one seed less": Edit(put("seeds.report", 1), GATHER | END),
        "another seeds_per_job": Edit(put("seeds_per_job", 2), RECONFIGURED),
        "a tuning seed": Edit(
            put("seeds.tune", 1), {f"tune_ensemble {RELU}/l2/1000", f"choose_arm {RELU}/l2"} | OF_L2
        ),
        "a tuning seed and another criterion": Edit(
            both(put("seeds.tune", 1), put("tuning", {"outcome": "online_error", "stage": "late"})),
            {f"tune_ensemble {RELU}/l2/1000", f"choose_arm {RELU}/l2"} | OF_L2,
        ),
        "one more arm": Edit(put("methods.l2.strength", [0.001, 0.01, 0.1]), OF_L2),
        "one arm less": Edit(put("methods.l2.strength", [0.001]), OF_L2),
        "arms in another order": Edit(put("methods.l2.strength", [0.01, 0.001]), RECONFIGURED),
        "another value of an arm": Edit(put("methods.l2.strength", [0.001, 0.02]), OF_L2),
        "one more method": Edit(
            put("methods.parseval", {"strength": 0.001}),
            of_ensembles(*(f"{setting}/parseval/{seed}" for setting in METHODS for seed in SEEDS))
            | GATHER
            | END,
        ),
        "a method in one setting more": Edit(
            put("methods.l2.settings", [RELU, TANH]),
            of_ensembles(*(f"{TANH}/l2/{seed}" for seed in SEEDS)) | of(GATHER, TANH) | END,
        ),
        "one method less": Edit(put("methods.l2", None), of(GATHER, RELU) | END),
        "one more setting": Edit(
            config(third_setting),
            of_ensembles(
                *(
                    f"digits_labels_sin/{method}/{seed}"
                    for method in METHODS[TANH]
                    for seed in SEEDS
                )
            )
            | {"gather digits_labels_sin"}
            | END,
        ),
        "one setting less": Edit(put(f"settings.{TANH}", None), END),
        "one more operator": Edit(put("curvature.operators", ["fisher", "ggn"]), MEASURED),
        "another name of the study": Edit(put("study", "other"), EVERYTHING),
        "a figure of fewer settings": Edit(
            put("figures.scatter", [TANH]), {"figure_scatter", *RECONFIGURED}
        ),
        "an option of a dataset that no setting names": Edit(
            put("datasets.cifar10", {}), RECONFIGURED
        ),
    },
    "Config: one setting": {
        "another dataset": Edit(
            of_setting("problem.dataset", "mnist"), {"prepare mnist"} | OF_RELU
        ),
        "another shift": Edit(of_setting("problem.shift", "permute_pixels"), OF_RELU),
        "samples": Edit(of_setting("problem.samples", 192), OF_RELU),
        "test samples": Edit(of_setting("problem.test_samples", 64), OF_RELU),
        "separable": Edit(of_setting("problem.separable", True), OF_RELU),
        "batch": Edit(of_setting("problem.batch", 32), OF_RELU),
        "epochs and tasks swapped": Edit(swap("problem", "epochs", "tasks"), OF_RELU),
        "the same budget, written in steps": Edit(config(in_steps), OF_RELU),
        "head": Edit(of_setting("problem.head", "fresh"), OF_RELU),
        "width and depth swapped": Edit(swap("network", "width", "depth"), OF_RELU),
        "activation": Edit(
            of_setting("network.activation", "identity", TANH),
            of(TRAIN | MEASURE | GATHER, TANH) | END,
        ),
        "initialization": Edit(of_setting("network.initialization", "xavier"), OF_RELU),
        "matched": Edit(of_setting("network.matched", True), OF_RELU),
        "step size": Edit(of_setting("optimizer.lr", 0.002), OF_RELU),
        "an optimizer that resets at task boundaries": Edit(
            of_setting("optimizer.at_task_boundary", "reset"), OF_RELU
        ),
        "another optimizer": Edit(of_setting("optimizer.kind", "sgd"), OF_RELU),
    },
    "Config: training, curvature and statistics": {
        "fewer checkpoints": Edit(
            both(put("training.checkpoint_every", 2), put("curvature.every", 4)), RETRAINED
        ),
        "fewer points in learning curves": Edit(put("training.curve_points", 2), RETRAINED),
        "the default number of points, written": Edit(
            put("training.curve_points", 10), RECONFIGURED
        ),
        "precision": Edit(put("training.precision", "bfloat16"), RETRAINED),
        "curvature at fewer tasks": Edit(put("curvature.every", 2), MEASURED),
        "curvature on more samples": Edit(put("curvature.samples", 64), MEASURED),
        "one evaluation point fewer": Edit(put("curvature.evaluation_points", ["next"]), MEASURED),
        "evaluation points in another order": Edit(
            put("curvature.evaluation_points", ["next", "previous"]), RECONFIGURED
        ),
        "fewer blocks": Edit(put("curvature.blocks", ["all"]), MEASURED),
        "largest exact matrix": Edit(put("curvature.exact_up_to", 1000), MEASURED),
        "no estimates": Edit(put("curvature.estimate", False), MEASURED),
        "steps of an estimate": Edit(put("curvature.steps", 9), MEASURED),
        "probes of an estimate": Edit(put("curvature.probes", 9), MEASURED),
        "probes at a time": Edit(put("curvature.probe_block", 2), MEASURED),
        "levels of the effective rank": Edit(put("curvature.levels", [0.9]), MEASURED),
        "top directions": Edit(put("curvature.top", 5), MEASURED),
        "the same operators, as a mapping": Edit(
            put("curvature.operators", {"fisher": {}}), RECONFIGURED
        ),
        "defaults of curvature, written": Edit(
            both(
                put("curvature.steps", 64),
                put("curvature.levels", [0.99]),
                put("curvature.estimate", True),
            ),
            RECONFIGURED,
        ),
        "a hypothesis": Edit(put("statistics.hypotheses", [HYPOTHESIS]), END),
        "number of draws": Edit(put("statistics.draws", 999), END),
        "margin of lost plasticity": Edit(put("statistics.lost", 0.1), END),
        "margin of a moved measure": Edit(put("statistics.moved", 0.1), END),
    },
    "Results": {
        "a deleted figure file": Edit(
            remove("results/tiny/figures/scatter.pdf"), {"figure_scatter", *LAST}
        ),
        "a deleted dataset": Edit(
            remove(f"results/tiny/datasets/{RELU}.nc"), of(GATHER, RELU) | END
        ),
        "deleted checkpoints": Edit(
            remove(*(f"results/tiny/runs/{ensemble}/checkpoints.nc" for ensemble in ENSEMBLES)),
            set(),
        ),
        "deleted checkpoints, then another operator": Edit(
            both(
                remove(f"results/tiny/runs/{RELU}/l2/0/checkpoints.nc"),
                put("curvature.operators", ["ggn"]),
            ),
            {f"train_ensemble {RELU}/l2/0"} | MEASURED,
        ),
        "all results copied into another clone and adopted": Edit(adopt, set()),
        "the same after an edit of a method": Edit(
            both(edit(f"{LIBRARY}/training/methods/l2.py"), adopt), OF_L2
        ),
    },
}
EDITS = {
    f"{section}: {name}": edit
    for section, edits in SECTIONS.items()
    for name, edit in edits.items()
}

COLUMNS = {
    "prepare": ("prepare",),
    "tune": ("tune_ensemble", "choose_arm"),
    "train": ("train_ensemble",),
    "curvature": ("measure_ensemble",),
    "gather": ("gather",),
    "analyse": ("analyse",),
    "check": ("check",),
    "figures": (*DRAW, "figure_cloud"),
    "tables to read": ("typeset", *SHOW),
    "report": ("report",),
}
ENTRIES = {  # of each column, the code whose digest its jobs carry
    "prepare": "prepare",
    "tune": "tune",
    "train": "train",
    "curvature": "curvature",
    "gather": "gather",
    "analyse": "analyse",
    "figures": "draw",
    "tables to read": "typeset",
    "report": "report",
}
PLUG_INS = tuple(registry.FOLDERS.values())


def stages_by_module() -> dict[str, list[str]]:
    """Return the stages whose code digest includes a module, whatever the settings name."""
    digests = {
        stage: code_digest.code_digest(code_digest.SCRIPTS / f"{entry}.py")
        for stage, entry in ENTRIES.items()
    }
    checks = code_digest.ROOT / "tests/results"
    digests["check"] = code_digest.code_digest(checks / "test_results.py", [checks / "conftest.py"])
    digests["tables to read"] |= code_digest.code_digest(code_digest.SCRIPTS / "page.py")
    library = code_digest.ROOT / LIBRARY
    modules = sorted(str(path.relative_to(library)) for path in library.rglob("*.py"))
    return {
        module: [stage for stage in COLUMNS if f"{LIBRARY}/{module}" in digests[stage]]
        for module in modules
    }


def edits_tables() -> str:
    """Return a table for each section, with the number of jobs that rerun after each edit."""
    head = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines = []
    for section, section_edits in SECTIONS.items():
        lines += [f"### {section}", "", *head]
        for name, one_edit in section_edits.items():
            counts = Counter(job.split()[0] for job in one_edit.jobs)
            cells = [str(sum(counts[rule] for rule in rules) or "") for rules in COLUMNS.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
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
        jobs=len(EVERYTHING) - 1,
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
hints. Plug-in files (methods, datasets, shifts, …) are not listed: only jobs that name them use
them.
Modules in the row `none` are used by plug-in files, or outside of jobs.

| modules | stages |
|---|---|
{modules}

## How it works

- **Code and settings are parameters of a job.** `code` has a digest of each file that the job may
  import, and the versions of packages that compute or draw. `settings` has only the keys that the
  job uses. Snakemake compares both with those of the result. A test compares the digests with the
  modules that jobs really import.
- **Files are compared by content.** A file that is only newer reruns nothing, up to a gigabyte.
- **Trained seeds stay.** You can increase `seeds` or change `seeds_per_job` without training a seed
  twice.
- **You can delete intermediate files.** Only those that are needed again are made again. Missing
  datasets, tables, figures and reports are made again.
- **You can edit code while jobs run.** A waiting job with changed code refuses to start and runs at
  the next start. A running job keeps its code in memory, and the next start runs it again.
"""


if __name__ == "__main__":
    print(page(), end="")
