"""Edits of a finished study, and exactly the jobs that each makes run again: what docs/incremental.md is drawn from.

PYTHONPATH=workflow/scripts python tests/workflow/edits.py > docs/incremental.md
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
    """What is done to the finished study, and which jobs run again.

    Attributes:
        shift: of a project, in place.
        jobs: their rules and wildcards.
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
    path = project.root / LIBRARY / "training.py"
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
        project.root / LIBRARY / "methods/l2.py", project.root / LIBRARY / "methods/lasso.py"
    )


def add_a_figure(project: Any) -> None:
    shutil.copy(
        project.root / LIBRARY / "figures/scatter.py", project.root / LIBRARY / "figures/cloud.py"
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
    """The results as in another clone, to which Snakemake's own records were not copied; then what fits is adopted."""
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
    "What means nothing": {
        "a comment in every module and every file of rules": Edit(comment, set()),
        "another docstring in every module": Edit(document, set()),
        "blank lines, other quotes, other hints of types": Edit(respell, set()),
        "every file touched, results among them": Edit(touch, set()),
        "the config's keys in the opposite order": Edit(reorder, set()),
        "another data_root": Edit(put("data_root", "elsewhere"), set()),
        "another description in the schema": Edit(
            replaced(f"{LIBRARY}/config/schema.py", "Name of the study", "Its name"), set()
        ),
        "a line in the README": Edit(
            lambda project: project.append("README.md", "\nOne word more.\n"), set()
        ),
        "a newer xarray, which only stores": Edit(upgrade("xarray"), set()),
    },
    "Code": {
        "a new method, not yet used": Edit(add_a_method, set()),
        "a method that is used": Edit(edit(f"{LIBRARY}/methods/l2.py"), OF_L2),
        "a method that no setting names": Edit(edit(f"{LIBRARY}/methods/redo.py"), set()),
        "what all methods share": Edit(edit(f"{LIBRARY}/methods/__init__.py"), RETRAINED),
        "the dataset": Edit(edit(f"{LIBRARY}/datasets/digits.py"), EVERYTHING),
        "a dataset that no setting names": Edit(edit(f"{LIBRARY}/datasets/mnist.py"), set()),
        "how tasks change": Edit(edit(f"{LIBRARY}/changes/shuffle_labels.py"), RETRAINED),
        "a change that no setting names": Edit(edit(f"{LIBRARY}/changes/class_pairs.py"), set()),
        "the network": Edit(edit(f"{LIBRARY}/networks/mlp.py"), RETRAINED),
        "a network that no setting names": Edit(edit(f"{LIBRARY}/networks/cnn.py"), set()),
        "what all networks share": Edit(edit(f"{LIBRARY}/networks/__init__.py"), RETRAINED),
        "the optimizer": Edit(edit(f"{LIBRARY}/optimizers/adam.py"), RETRAINED),
        "an optimizer that no setting names": Edit(edit(f"{LIBRARY}/optimizers/sgd.py"), set()),
        "the training loop": Edit(edit(f"{LIBRARY}/training.py"), RETRAINED),
        "the operator": Edit(edit(f"{LIBRARY}/operators/fisher.py"), MEASURED),
        "an operator that the config does not name": Edit(
            edit(f"{LIBRARY}/operators/hessian.py"), set()
        ),
        "the measures": Edit(edit(f"{LIBRARY}/measures.py"), MEASURED),
        "how spectra are summed up": Edit(edit(f"{LIBRARY}/spectra.py"), MEASURED),
        "how ensembles are gathered": Edit(edit(f"{LIBRARY}/gathering.py"), GATHER | END),
        "a test of the statistics": Edit(edit(f"{LIBRARY}/statistics/timing.py"), END),
        "how tables are typeset": Edit(
            edit(f"{LIBRARY}/typesetting.py"), {"typeset", "page_outcomes", "page_methods", *LAST}
        ),
        "a check": Edit(edit("tests/results/test_results.py"), {"check", *DRAW, *LAST}),
        "one figure": Edit(edit(f"{LIBRARY}/figures/scatter.py"), {"figure_scatter", *LAST}),
        "what all figures share": Edit(edit(f"{LIBRARY}/drawing.py"), {*DRAW, *LAST}),
        "one figure more": Edit(add_a_figure, {"figure_cloud", *LAST}),
        "one figure less": Edit(
            remove(f"{LIBRARY}/figures/overlap.py", "workflow/report/figure_overlap.rst"), LAST
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
        "the page to explore": Edit(edit(f"{LIBRARY}/exploring.py"), set()),
        "a rule's command": Edit(
            replaced("workflow/rules/gather.smk", "python workflow", "nice python workflow"),
            GATHER | END,
        ),
        "a rule's memory": Edit(
            replaced("workflow/rules/train.smk", "3000 * attempt", "3500 * attempt"), set()
        ),
    },
    "Packages": {
        "a newer matplotlib": Edit(upgrade("matplotlib"), {*DRAW, *LAST}),
        "a newer statsmodels": Edit(upgrade("statsmodels"), END),
        "a newer scipy": Edit(upgrade("scipy"), MEASURED),
        "a newer torch": Edit(upgrade("torch"), RETRAINED),
        "a newer scikit-learn, which ships the digits": Edit(upgrade("scikit-learn"), EVERYTHING),
    },
    "The config: what there is": {
        "one more seed": Edit(put("seeds.report", 3), NEW_SEED | GATHER | END),
        "one seed less": Edit(put("seeds.report", 1), GATHER | END),
        "other jobs for the same seeds": Edit(put("seeds_per_job", 2), RECONFIGURED),
        "a tuning seed, by which methods of several arms are tuned": Edit(
            put("seeds.tune", 1), {f"tune_ensemble {RELU}/l2/1000", f"choose_arm {RELU}/l2"} | OF_L2
        ),
        "the same, by another criterion": Edit(
            both(put("seeds.tune", 1), put("tuning", {"outcome": "online_error", "stage": "late"})),
            {f"tune_ensemble {RELU}/l2/1000", f"choose_arm {RELU}/l2"} | OF_L2,
        ),
        "one more arm: an ensemble is trained as one": Edit(
            put("methods.l2.strength", [0.001, 0.01, 0.1]), OF_L2
        ),
        "one arm less": Edit(put("methods.l2.strength", [0.001]), OF_L2),
        "the arms in another order": Edit(put("methods.l2.strength", [0.01, 0.001]), RECONFIGURED),
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
    "The config: what a setting is": {
        "another dataset": Edit(
            of_setting("problem.dataset", "mnist"), {"prepare mnist"} | OF_RELU
        ),
        "another change of tasks": Edit(of_setting("problem.shift", "permute_pixels"), OF_RELU),
        "samples": Edit(of_setting("problem.samples", 192), OF_RELU),
        "test samples": Edit(of_setting("problem.test_samples", 64), OF_RELU),
        "separable": Edit(of_setting("problem.separable", True), OF_RELU),
        "batch": Edit(of_setting("problem.batch", 32), OF_RELU),
        "epochs and tasks swapped": Edit(swap("problem", "epochs", "tasks"), OF_RELU),
        "as many steps, but said in steps": Edit(config(in_steps), OF_RELU),
        "head": Edit(of_setting("problem.head", "fresh"), OF_RELU),
        "width and depth swapped": Edit(swap("network", "width", "depth"), OF_RELU),
        "activation": Edit(
            of_setting("network.activation", "identity", TANH),
            of(TRAIN | MEASURE | GATHER, TANH) | END,
        ),
        "initialization": Edit(of_setting("network.initialization", "xavier"), OF_RELU),
        "matched": Edit(of_setting("network.matched", True), OF_RELU),
        "step size": Edit(of_setting("optimizer.lr", 0.002), OF_RELU),
        "an optimizer that forgets at a switch": Edit(
            of_setting("optimizer.at_task_boundary", "reset"), OF_RELU
        ),
        "another optimizer": Edit(of_setting("optimizer.kind", "sgd"), OF_RELU),
    },
    "The config: what is recorded, measured and tested": {
        "fewer checkpoints": Edit(
            both(put("training.checkpoint_every", 2), put("curvature.every", 4)), RETRAINED
        ),
        "fewer points of learning curves": Edit(put("training.curve_points", 2), RETRAINED),
        "as many points, written": Edit(put("training.curve_points", 10), RECONFIGURED),
        "precision": Edit(put("training.precision", "bfloat16"), RETRAINED),
        "curvature at fewer tasks": Edit(put("curvature.every", 2), MEASURED),
        "curvature on more samples": Edit(put("curvature.samples", 64), MEASURED),
        "one evaluation point less": Edit(put("curvature.evaluation_points", ["next"]), MEASURED),
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
        "the same operators as a mapping": Edit(
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
        "draws of the tests": Edit(put("statistics.draws", 999), END),
        "what counts as lost": Edit(put("statistics.lost", 0.1), END),
        "what counts as moved": Edit(put("statistics.moved", 0.1), END),
    },
    "Results": {
        "a figure deleted": Edit(
            remove("results/tiny/figures/scatter.pdf"), {"figure_scatter", *LAST}
        ),
        "a dataset deleted": Edit(
            remove(f"results/tiny/datasets/{RELU}.nc"), of(GATHER, RELU) | END
        ),
        "checkpoints deleted, to save space": Edit(
            remove(*(f"results/tiny/runs/{ensemble}/checkpoints.nc" for ensemble in ENSEMBLES)),
            set(),
        ),
        "checkpoints deleted, then another operator": Edit(
            both(
                remove(f"results/tiny/runs/{RELU}/l2/0/checkpoints.nc"),
                put("curvature.operators", ["ggn"]),
            ),
            {f"train_ensemble {RELU}/l2/0"} | MEASURED,
        ),
        "all copied into another clone, and adopted": Edit(adopt, set()),
        "the same, after a method was edited": Edit(
            both(edit(f"{LIBRARY}/methods/l2.py"), adopt), OF_L2
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
REGISTRIES = tuple(registry.FOLDERS)


def reached() -> dict[str, list[str]]:
    """For each module of the library, the stages whose code takes it in whatever the settings name."""
    digests = {
        stage: code_digest.code_digest(code_digest.SCRIPTS / f"{entry}.py")
        for stage, entry in ENTRIES.items()
    }
    digests["check"] = code_digest.code_digest(
        code_digest.ROOT / "tests/results/test_results.py",
        [code_digest.ROOT / "tests/results/conftest.py"],
    )
    digests["tables to read"] |= code_digest.code_digest(code_digest.SCRIPTS / "page.py")
    names = sorted(
        str(path.relative_to(code_digest.ROOT))
        for path in (code_digest.ROOT / LIBRARY).rglob("*.py")
    )
    return {
        name.removeprefix(f"{LIBRARY}/"): [stage for stage in COLUMNS if name in digests[stage]]
        for name in names
    }


def page() -> str:
    """docs/incremental.md."""
    head = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines = []
    for section, edits in SECTIONS.items():
        lines += [f"### {section}", "", *head]
        for name, one in edits.items():
            counts = Counter(job.split()[0] for job in one.jobs)
            cells = [str(sum(counts[rule] for rule in rules) or "") for rules in COLUMNS.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    named = {
        name: stages
        for name, stages in reached().items()
        if name.split("/")[0] not in REGISTRIES or name.endswith("__init__.py")
    }
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, stages in named.items():
        groups.setdefault(tuple(stages), []).append(f"`{name}`")
    order = sorted(
        groups,
        key=lambda stages: (len(stages) == 0, [list(COLUMNS).index(stage) for stage in stages]),
    )
    rooms = [f"| {', '.join(groups[stages])} | {', '.join(stages) or 'none'} |" for stages in order]
    return TEXT.format(
        edits=len(EDITS),
        jobs=len(EVERYTHING) - 1,
        tables="\n".join(lines).strip(),
        rooms="\n".join(rooms),
    )


TEXT = """# What runs again

Drawn from `tests/workflow/edits.py`, which `tests/workflow/test_edits.py` tries one by one on a study that is finished. `make why` says
the same of your own edits: a line for each job that would run, with the file, package or key that it is because of, and what it took the
last time.

## {edits} edits of a finished study

Two settings, four methods (one of them with two arms), two seeds a job each: {jobs} jobs. A cell is how many of them run again; the rest
stay as they are, byte for byte.

{tables}

## Which stages take in which module

A stage runs again if a module of its row changes in more than comments, docstrings, layout and hints of types. Files of `changes`,
`datasets`, `figures`, `methods`, `networks`, `operators` and `optimizers` are left out here: only jobs whose settings name one take it
in.

| modules | stages |
|---|---|
{rooms}

## What this rests on

- A job's param `code` has a digest of the meaning of each file that it may import, and the version of each package among them that
  computes or draws; its param `settings` has just the keys that it uses. Snakemake compares both with those that the result was made
  with. A test compares the modules that jobs of a whole study really import with their digests.
- A file that only became newer is compared by content, up to a gigabyte.
- Blocks of seeds that are trained stay as they are, so `seeds` may grow, and `seeds_per_job` may change, without training a seed twice.
- Intermediate files may be deleted; only what is needed again is made again. Datasets, tables, figures and the report are made again if
  they are missing.
- Code that is edited while jobs wait: those whose code it is refuse to start, in a sentence, and run with the new code at the next start.
  A job that runs has its code in memory; its result carries the digest of that code, so the next start runs it again.
"""

if __name__ == "__main__":
    print(page(), end="")
