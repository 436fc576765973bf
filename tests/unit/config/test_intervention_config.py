"""The section `interventions`: what follows from it, and a sentence for each mistake."""

import json
import re
import shutil
from copy import deepcopy
from dataclasses import fields
from itertools import pairwise

import pytest
import yaml
from configs import ABSENT, changed, refusals

from plasticity.config import interventions, registry, schema, study
from plasticity.config.models import FAMILIES, Curvature, Interventions, Spectra
from plasticity.errors import StudyError

SECTION = yaml.safe_load("""
treatments:
  zero_biases: {}
  shrink: {strength: [0.8, 0.3]}
  fresh: {}
  low_rank: {strength: 0.5, settings: [other]}
  rescale_layers: {strength: 2, settings: [row]}
tasks: [2, 1]
""")
SHRINK = "interventions.treatments.shrink"


def treated(*changes, section=SECTION):
    """Copy the config, with the section and with new values at dotted keys."""
    return changed(("interventions", deepcopy(section)), *changes)


def read_treated(*changes):
    return study.read(treated(*changes))


def mistakes(*changes):
    """Return the sentences that refuse the config with new values at dotted keys."""
    lines = refusals(("interventions", deepcopy(SECTION)), *changes)
    return [line.removeprefix("config.yaml: ") for line in lines]


def copy_of(name, treatment, strength, family):
    return {"name": name, "treatment": treatment, "strength": strength, "family": family}


# What follows from the section


def test_copies_are_none_then_families_in_order_then_sorted_by_name_and_strength():
    read = read_treated()
    assert read.treatments_of("row") == [
        copy_of("none", "none", None, "control"),
        copy_of("fresh", "fresh", None, "control"),
        copy_of("shrink(strength=0.3)", "shrink", 0.3, "restoring"),
        copy_of("shrink(strength=0.8)", "shrink", 0.8, "restoring"),
        copy_of("zero_biases", "zero_biases", None, "restoring"),
        copy_of("rescale_layers(strength=2)", "rescale_layers", 2.0, "preserving"),
    ]
    in_other = [copy["name"] for copy in read.treatments_of("other")]
    assert in_other[-2:] == ["zero_biases", "low_rank(strength=0.5)"]
    assert len(in_other) == 6


def test_strengths_are_sorted_as_numbers():
    read = read_treated(("interventions.treatments.perturb", {"strength": [10, 2]}))
    strengths = [
        copy["strength"] for copy in read.treatments_of("row") if copy["treatment"] == "perturb"
    ]
    assert strengths == [2.0, 10.0]


def test_whole_strength_is_the_same_with_and_without_decimal_point():
    first = read_treated(("interventions.treatments.perturb", {"strength": [1, 2]}))
    second = read_treated(("interventions.treatments.perturb", {"strength": [1.0, 2.0]}))
    assert first.intervention_job("row") == second.intervention_job("row")


def test_untreated_copy_is_there_once_whether_the_config_lists_it_or_not():
    listed = read_treated(("interventions.treatments.none", {}))
    assert listed.treatments_of("row") == read_treated().treatments_of("row")


@pytest.mark.parametrize(
    ("arms", "in_row", "in_other"),
    [
        (ABSENT, ["none"], ["none"]),
        (["none"], ["none"], ["none"]),
        (["wasserstein", "l2"], ["l2", "wasserstein"], ["l2"]),
    ],
)
def test_treated_methods_are_those_of_arms_that_the_setting_trains(arms, in_row, in_other):
    section = {
        key: value for key, value in (SECTION | {"arms": arms}).items() if value is not ABSENT
    }
    read = study.read(treated(section=section))
    assert read.treated_methods("row") == in_row
    assert read.treated_methods("other") == in_other


def test_spaces_in_composed_arms_do_not_count():
    read = study.read(
        treated(
            ("methods", {"l2+ dropout": {"l2.strength": 0.1, "dropout.rate": 0.1}}),
            ("interventions.arms", ["l2 +dropout"]),
        )
    )
    assert read.treated_methods("row") == ["l2+dropout"]


def test_treated_ensembles_are_all_blocks_of_treated_methods():
    read = study.read(treated(("interventions.arms", ["wasserstein", "none"])))
    names = ["none/0-1", "none/2-3", "none/4"]
    in_row = [
        f"row/{name}" for name in [*names, "wasserstein/0-1", "wasserstein/2-3", "wasserstein/4"]
    ]
    assert [ensemble.folder for ensemble in read.treated_ensembles("row")] == in_row
    in_other = [f"other/{name}" for name in names]
    assert [ensemble.folder for ensemble in read.treated_ensembles()] == in_other + in_row


def test_setting_that_no_treatment_is_for_is_not_treated():
    config = treated(
        ("interventions.treatments", {"shrink": {"strength": 0.5, "settings": ["row"]}})
    )
    read = study.read(config)
    assert {ensemble.setting for ensemble in read.treated_ensembles()} == {"row"}
    assert read.treated_methods("other") == []
    assert read.gather_job("other") == study.read(changed()).gather_job("other")


def test_study_without_the_section_treats_nothing():
    read = study.read(changed())
    assert read.interventions is None
    assert read.treated_ensembles() == read.treated_methods("row") == []
    assert read.treatments_of("row") == read.treated_tasks("row") == []


def test_copies_are_measured_at_next_whatever_tasks_and_points_the_study_has():
    operators = {
        "fisher": {},
        "ggn": {"samples": 16, "every": 4, "steps": 8, "blocks": ["all", "layers"]},
        "hessian": {"tasks": [0, 2], "evaluation_points": ["previous"]},
    }
    changes = [("curvature.every", 2), ("curvature.operators", operators)]
    copies = read_treated(*changes).curvature_of_copies()
    common = {"every": 1, "evaluation_points": ("next",)}
    assert copies == Curvature(
        operators={
            "fisher": Spectra(samples=32, **common),
            "ggn": Spectra(samples=16, steps=8, blocks=("layers", "all"), **common),
            "hessian": Spectra(samples=32, **common),
        },
        evaluation_points=("next",),
        every=1,
    )


def test_levels_and_top_of_copies_are_those_of_the_study():
    changes = [("curvature.levels", [0.9, 0.99]), ("curvature.top", 3)]
    copies = read_treated(*changes).curvature_of_copies()
    assert (copies.levels, copies.top) == ((0.9, 0.99), 3)


@pytest.mark.parametrize("operators", [["fisher"], {"fisher": {}}], ids=["list", "mapping"])
def test_operators_of_copies_may_be_some_of_the_study(operators):
    read = read_treated(
        ("curvature.operators", ["fisher", "ggn"]), ("interventions.operators", operators)
    )
    assert list(read.curvature_of_copies().operators) == ["fisher"]


def test_keys_of_an_operator_of_copies_override_those_of_the_study():
    own = {"ggn": {"samples": 8, "blocks": ["all"]}}
    read = read_treated(
        ("curvature.operators", {"ggn": {"samples": 16, "steps": 8}}),
        ("interventions.operators", own),
    )
    assert read.curvature_of_copies().operators["ggn"] == Spectra(
        samples=8, steps=8, blocks=("all",), every=1, evaluation_points=("next",)
    )
    assert read.curvature.operators["ggn"].samples == 16


def test_intervention_job_has_copies_sorted_tasks_and_their_curvature():
    read = read_treated()
    job = json.loads(read.intervention_job("row"))
    assert job.keys() == {"treatments", "tasks", "curvature"}
    assert job["treatments"] == read.treatments_of("row")
    assert job["tasks"] == [1, 2]
    assert Curvature.of(job["curvature"]) == read.curvature_of_copies()


def test_setting_with_fewer_tasks_is_treated_at_those_that_it_has():
    read = read_treated(("settings.row.problem.tasks", 2))
    assert (read.treated_tasks("row"), read.treated_tasks("other")) == ([1], [1, 2])
    assert json.loads(read.training_job("row", "none", "0-1"))["state_tasks"] == [1]
    assert json.loads(read.intervention_job("row"))["tasks"] == [1]
    assert json.loads(read.gather_job("row"))["treated_tasks"] == [1]


def test_only_treated_methods_store_states_when_they_train():
    read, untreated = read_treated(), study.read(changed())
    for setting in ("row", "other"):
        for method in read.methods_of(setting):
            job = json.loads(read.training_job(setting, method, "0-1"))
            expected = json.loads(untreated.training_job(setting, method, "0-1"))
            if method == "none":
                expected["state_tasks"] = [1, 2]
            assert job == expected


def test_states_of_a_tuned_method_are_stored_only_with_reporting_seeds():
    read = study.read(treated(("seeds.tune", 3), ("interventions.arms", ["l2"])))
    untreated = study.read(changed(("seeds.tune", 3)))
    assert "arms" not in json.loads(read.training_job("row", "l2", "0-1"))
    assert json.loads(read.training_job("row", "l2", "0-1"))["state_tasks"] == [1, 2]
    assert read.tuning_job("row", "l2", "1000") == untreated.tuning_job("row", "l2", "1000")
    assert read.lengthening_job("row", "l2") == untreated.lengthening_job("row", "l2")


def test_gathering_job_of_a_treated_setting_names_copies_and_tasks():
    read = study.read(
        treated(
            ("interventions.arms", ["wasserstein"]), ("interventions.treatments.low_rank", ABSENT)
        )
    )
    job = json.loads(read.gather_job("row"))
    assert job["treatments"] == read.treatments_of("row")
    assert job["treated_tasks"] == [1, 2]
    untreated = study.read(changed())
    assert job == json.loads(untreated.gather_job("row")) | {
        "treatments": job["treatments"],
        "treated_tasks": job["treated_tasks"],
    }
    assert read.gather_job("other") == untreated.gather_job("other")


def test_cost_job_counts_copies_of_treated_runs_on_reporting_seeds():
    read = study.read(treated(("seeds.tune", 3), ("interventions.arms", ["l2"])))
    job = json.loads(read.cost_job())
    experiments = {
        (run["name"], run["method"], run["tuning"]): run["experiment"]
        for run in job["runs"]
        if "experiment" in run
    }
    assert experiments == {
        ("row", "l2", False): {"copies": 6, "tasks": 2},
        ("other", "l2", False): {"copies": 6, "tasks": 2},
    }
    assert Curvature.of(job["curvature_of_copies"]) == read.curvature_of_copies()
    assert "curvature_of_copies" not in json.loads(study.read(changed()).cost_job())


def all_jobs(read):
    """Describe all jobs of a study."""
    return [
        read.cost_job(),
        read.analyse_job(),
        *map(read.gather_job, read.settings),
        *map(read.intervention_job, read.settings),
        *(
            read.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
            for ensemble in read.ensembles()
        ),
    ]


def reversed_order(value):
    """Reverse the order of keys in every mapping, and of values in every list."""
    if isinstance(value, dict):
        return {key: reversed_order(inner) for key, inner in reversed(value.items())}
    return value[::-1] if isinstance(value, list) else value


def test_order_in_the_config_reruns_nothing():
    section = {
        **SECTION,
        "arms": ["none", "l2"],
        "operators": {"ggn": {"blocks": ["all", "layers"]}, "fisher": {}},
    }
    operators = ("curvature.operators", ["ggn", "fisher"])
    first = study.read(treated(operators, section=section))
    second = study.read(treated(operators, section=reversed_order(section)))
    assert all_jobs(first) == all_jobs(second)
    assert len(first.treated_ensembles()) == 2 * 2 * 3


def test_another_treatment_retrains_nothing():
    more = read_treated(("interventions.treatments.reset_optimizer", {}))
    fewer = read_treated()
    for ensemble in fewer.ensembles():
        job = (ensemble.setting, ensemble.method, ensemble.seeds)
        assert more.training_job(*job) == fewer.training_job(*job)
    assert more.intervention_job("row") != fewer.intervention_job("row")


@pytest.mark.parametrize(
    ("key", "value", "retrained"),
    [
        ("interventions.tasks", [1], {"none"}),
        ("interventions.arms", ["none", "l2"], {"l2"}),
        ("interventions.operators", {"fisher": {"samples": 8}}, set()),
        (f"{SHRINK}.strength", 0.7, set()),
    ],
)
def test_another_task_or_arm_retrains_the_methods_concerned(key, value, retrained):
    before, after = read_treated(), read_treated((key, value))
    changed_methods = {
        ensemble.method
        for ensemble in before.ensembles()
        if before.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
        != after.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
    }
    assert changed_methods == retrained


# The schema


def test_default_of_arms_equals_that_of_the_class():
    section = schema.json_schema()["$defs"]["InterventionsSection"]
    defaults = {
        key: value["default"] for key, value in section["properties"].items() if "default" in value
    }
    assert defaults == {"arms": ["none"]}
    assert Interventions.of(SECTION | defaults) == Interventions.of(SECTION)
    assert set(section["properties"]) == {field.name for field in fields(Interventions)}


def test_operators_of_copies_have_all_keys_but_those_that_are_fixed():
    keys = schema.json_schema()["$defs"]["OperatorOfCopiesSection"]["properties"]
    fixed = {"every", "tasks", "evaluation_points"}
    assert keys.keys() == {field.name for field in fields(Spectra)} - fixed


# Files of treatments


STRENGTHS = {None: {}, "share": {"strength": 0.5}, "positive": {"strength": 2}}
STRENGTHS["above_one"] = STRENGTHS["positive"]


@pytest.mark.parametrize("name", registry.names("treatments"))
def test_file_of_each_treatment_declares_what_the_config_needs(name):
    options = STRENGTHS[registry.constant("treatments", name, "STRENGTH")]
    section = {"treatments": {"shuffle_within_tensor": {}, name: options}, "tasks": [1]}
    read = study.read(
        treated(("settings.other.network.activation", "relu"), section=section),
    )
    assert name in [copy["treatment"] for copy in read.treatments_of("other")]


@pytest.fixture
def treatment_file(tmp_path, monkeypatch):
    """Return a function that writes a treatment `mine` into a copy of the library."""
    shutil.copytree(registry.LIBRARY, tmp_path / "library")
    monkeypatch.setattr(registry, "LIBRARY", tmp_path / "library")

    def write(*lines):
        path = tmp_path / "library/interventions/treatments/mine.py"
        path.write_text("\n".join(lines), encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            ['OPTIMIZER_STATE = "kept"'],
            (
                "treatments/mine.py: FAMILY is not defined. Write one of control, restoring, "
                "harmful, preserving."
            ),
        ),
        (
            ['FAMILY = "good"', 'OPTIMIZER_STATE = "kept"'],
            (
                "treatments/mine.py: FAMILY is 'good'. Write one of control, restoring, "
                "harmful, preserving."
            ),
        ),
        (
            ['FAMILY = "control"', 'OPTIMIZER_STATE = "lost"'],
            (
                "treatments/mine.py: OPTIMIZER_STATE is 'lost'. Write one of kept, cleared, "
                "cleared_where_changed."
            ),
        ),
        (
            ['FAMILY = "control"', 'OPTIMIZER_STATE = "kept"', 'STRENGTH = "any"'],
            "treatments/mine.py: STRENGTH is 'any'. Write one of share, positive, above_one.",
        ),
    ],
)
def test_mistake_in_the_file_of_a_treatment_is_one_sentence(treatment_file, lines, sentence):
    treatment_file(*lines)
    assert mistakes(("interventions.treatments.mine", {})) == [sentence]


def test_new_file_is_a_treatment_without_other_edits(treatment_file):
    treatment_file('FAMILY = "harmful"', 'STRENGTH = "positive"', 'OPTIMIZER_STATE = "kept"')
    read = read_treated(("interventions.treatments.mine", {"strength": 7}))
    assert copy_of("mine(strength=7)", "mine", 7.0, "harmful") in read.treatments_of("row")
    families = [FAMILIES.index(copy["family"]) for copy in read.treatments_of("row")]
    assert all(first <= second for first, second in pairwise(families))


# Mistakes


TREATMENTS = ", ".join(registry.names("treatments"))
TREATED_TASKS = (
    "The numbers of the tasks at whose start checkpoints are copied, from 1. A setting with fewer "
    "tasks is treated at those that it has."
)

MISTAKES = {
    "no tasks": (("interventions.tasks", ABSENT), "interventions lacks 'tasks'. Add it."),
    "no treatments": (
        ("interventions.treatments", ABSENT),
        "interventions lacks 'treatments'. Add it.",
    ),
    "misspelt key": (
        ("interventions.arm", ["none"]),
        (
            "interventions has an unknown key 'arm'. Did you mean 'arms'? "
            "Known: treatments, operators, tasks, arms."
        ),
    ),
    "misspelt key of a treatment": (
        (SHRINK, {"strenght": 0.5}),
        (
            f"{SHRINK} has an unknown key 'strenght'. Did you mean 'strength'? "
            "Known: strength, settings."
        ),
    ),
    "key that is fixed for copies": (
        ("interventions.operators", {"fisher": {"every": 2}}),
        (
            "interventions.operators.fisher has an unknown key 'every'. Known: samples, blocks, "
            "exact_up_to, estimate, steps, probes, probe_block."
        ),
    ),
    "unknown treatment": (
        ("interventions.treatments.shrnk", {}),
        (
            "interventions.treatments has an unknown treatment 'shrnk'. Did you mean 'shrink'? "
            f"Known: {TREATMENTS}."
        ),
    ),
    "strength missing": (
        (SHRINK, {}),
        f"{SHRINK} lacks 'strength', which must be above 0 and at most 1. Add it.",
    ),
    "share above 1": (
        (f"{SHRINK}.strength", [0.3, 1.5]),
        f"{SHRINK}.strength is 1.5. It must be above 0 and at most 1.",
    ),
    "factor of 1": (
        ("interventions.treatments.rescale_layers.strength", 1),
        "interventions.treatments.rescale_layers.strength is 1. It must be above 1.",
    ),
    "text for a strength": (
        (f"{SHRINK}.strength", "1e-3"),
        f"{SHRINK}.strength is the text '1e-3' to YAML, not a number. Write 1.0e-03 instead.",
    ),
    "text in a list of strengths": (
        (f"{SHRINK}.strength", [0.5, "1e-3"]),
        f"{SHRINK}.strength.1 is the text '1e-3' to YAML, not a number. Write 1.0e-03 instead.",
    ),
    "strength that is not used": (
        ("interventions.treatments.zero_biases.strength", 0.5),
        (
            "interventions.treatments.zero_biases has a strength, but zero_biases takes none. "
            "Remove it."
        ),
    ),
    "strength twice": (
        (f"{SHRINK}.strength", [0.3, 0.3]),
        f"{SHRINK}.strength is [0.3, 0.3]. A value occurs twice. Remove one.",
    ),
    "strength twice, once as a whole number": (
        (f"{SHRINK}.strength", [1, 1.0]),
        f"{SHRINK}.strength is [1, 1.0]. A value occurs twice. Remove one.",
    ),
    "unknown setting": (
        (f"{SHRINK}.settings", ["row", "othr"]),
        (
            f"{SHRINK}.settings names 'othr', which is unknown. Did you mean 'other'? "
            "Known: row, other."
        ),
    ),
    "setting of the untreated copy": (
        ("interventions.treatments.none", {"settings": ["row"]}),
        (
            "interventions.treatments.none has `settings`, but the copy none is made in every "
            "setting. Remove them."
        ),
    ),
    "nothing but none": (
        ("interventions.treatments", {"none": {}}),
        "interventions.treatments has only none, which changes nothing. Add another treatment.",
    ),
    "first task": (
        ("interventions.tasks", [0]),
        "interventions.tasks.0 is 0. It must be at least 1.",
    ),
    "task after the last": (
        ("interventions.tasks", [1, 3]),
        (
            "interventions.tasks has 3, but the last task of each treated setting is at most 2. "
            "Lower it."
        ),
    ),
    "setting without a treated task": (
        ("settings.row.problem.tasks", 1),
        "interventions.tasks begins with 1, but the last task of row is 0. Add one that it has.",
    ),
    "task twice": (
        ("interventions.tasks", [1, 1]),
        "interventions.tasks is [1, 1]. A value occurs twice. Remove one.",
    ),
    "no list of tasks": (
        ("interventions.tasks", 1),
        f"interventions.tasks is 1. It must be a list. Meaning: {TREATED_TASKS}",
    ),
    "empty list of tasks": (
        ("interventions.tasks", []),
        f"interventions.tasks is empty. Name at least one. Meaning: {TREATED_TASKS}",
    ),
    "arm that is no method": (
        ("interventions.arms", ["l2_inti"]),
        (
            "interventions.arms names 'l2_inti', which is no method of the study. "
            "Known: none, l2, wasserstein."
        ),
    ),
    "arm with its hyperparameters": (
        ("interventions.arms", ["l2(strength=0.001)"]),
        (
            "interventions.arms names 'l2(strength=0.001)', which is no method of the study. "
            "Did you mean 'l2'? Known: none, l2, wasserstein."
        ),
    ),
    "baseline": (
        ("interventions.arms", ["fresh"]),
        (
            "interventions.arms names 'fresh', a baseline, which starts every task from scratch. "
            "Remove it."
        ),
    ),
    "default arm that the study lacks": (
        ("methods.none", ABSENT),
        (
            "interventions.arms is [none] if it is left out, but methods has no none. Add it "
            "there, or name other methods."
        ),
    ),
    "operator that the study lacks": (
        ("interventions.operators", ["fishr"]),
        (
            "interventions.operators has 'fishr', which is not among curvature.operators. "
            "Did you mean 'fisher'? Known: fisher."
        ),
    ),
    "activation that a treatment cannot take": (
        ("interventions.treatments.rescale_layers.settings", ["row", "other"]),
        (
            "interventions.treatments.rescale_layers cannot be applied in other: its "
            "network.activation is tanh, and rescale_layers works only with relu, leaky_relu, "
            "identity, crelu. Limit it by `settings`."
        ),
    ),
    "activation that a treatment cannot take, in all settings": (
        ("interventions.treatments.rescale_layers.settings", ABSENT),
        (
            "interventions.treatments.rescale_layers cannot be applied in other: its "
            "network.activation is tanh, and rescale_layers works only with relu, leaky_relu, "
            "identity, crelu. Limit it by `settings`."
        ),
    ),
    "activation that no setting of a treatment has": (
        ("interventions.treatments.rescale_layers.settings", ["other"]),
        (
            "interventions.treatments.rescale_layers cannot be applied in other: its "
            "network.activation is tanh, and rescale_layers works only with relu, leaky_relu, "
            "identity, crelu. Remove it."
        ),
    ),
}


@pytest.mark.parametrize(("change", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_sentence(change, sentence):
    assert mistakes(change) == [sentence]


def test_strength_of_zero_is_refused_with_the_meaning_of_the_key():
    (sentence,) = mistakes((f"{SHRINK}.strength", 0))
    assert sentence.startswith(f"{SHRINK}.strength is 0. It must be above 0. Meaning: How much")


@pytest.mark.parametrize(
    ("strength_range", "allowed", "refused", "words"),
    [
        ("share", [1e-9, 1], [0, -1, 1.0001], "above 0 and at most 1"),
        ("positive", [1e-9, 1e9], [0, -1], "above 0"),
        ("above_one", [1.0001, 1e9], [1, 0.5], "above 1"),
    ],
)
def test_ranges_have_the_bounds_that_they_say(strength_range, allowed, refused, words):
    bounds = interventions.RANGES[strength_range]
    assert all(value in bounds for value in allowed)
    assert not any(value in bounds for value in refused)
    assert str(bounds) == words


def test_treatment_whose_settings_train_no_treated_method_is_refused():
    assert mistakes(("interventions.arms", ["wasserstein"])) == [
        (
            "interventions.treatments.low_rank is limited to other, where no method of "
            "interventions.arms is trained. Choose other settings, or remove the treatment."
        )
    ]


def test_setting_that_is_not_treated_needs_no_treated_task_and_no_activation():
    short = study.read(
        treated(
            ("interventions.arms", ["wasserstein"]),
            ("interventions.treatments", {"rescale_layers": {"strength": 2}}),
            ("settings.other.problem.tasks", 1),
        )
    )
    assert [ensemble.setting for ensemble in short.treated_ensembles()] == ["row"] * 3


def test_activation_that_a_method_sets_counts():
    section = {
        "treatments": {"reset_dead_units": {"settings": ["row"]}},
        "tasks": [1],
        "arms": ["none", "crelu"],
    }
    lines = refusals(("methods", {"none": {}, "crelu": {}}), ("interventions", section))
    assert lines == [
        (
            "config.yaml: interventions.treatments.reset_dead_units cannot be applied in row with "
            "the method crelu: its network.activation is crelu, and reset_dead_units works only "
            "with relu. Remove it."
        )
    ]


def test_network_that_a_treatment_refuses_is_refused_in_each_setting_that_has_it():
    norm = ("settings.row.network.norm", "layer")
    split = ("interventions.treatments.split_units", {"settings": ["row"]})
    assert mistakes(norm, split) == [
        (
            "interventions.treatments.split_units cannot be applied in row: split_units does not "
            "work with network.norm: layer. Remove it."
        )
    ]
    both = [
        ("settings.other.network.activation", "relu"),
        ("interventions.treatments.split_units", {}),
    ]
    (sentence,) = mistakes(norm, *both)
    assert sentence.endswith("work with network.norm: layer. Limit it by `settings`.")


def test_too_many_samples_for_copies_are_refused_for_each_setting():
    assert mistakes(("interventions.operators", {"fisher": {"samples": 65}})) == [
        f"interventions.operators.fisher.samples is 65, but a task of {setting} has only 64 "
        "samples. Lower it."
        for setting in ("row", "other")
    ]


def test_each_mistake_has_its_own_line():
    lines = mistakes(
        ("interventions.treatments.shrnk", {}),
        (f"{SHRINK}.strength", 2),
        ("interventions.arms", ["fresh"]),
        ("interventions.operators", ["ggn"]),
    )
    assert len(lines) == 4


def test_constant_that_is_not_literal_is_refused(treatment_file):
    treatment_file("FAMILY = OTHER")
    with pytest.raises(StudyError, match=re.escape("treatments/mine.py: FAMILY is OTHER, which")):
        read_treated(("interventions.treatments.mine", {}))
