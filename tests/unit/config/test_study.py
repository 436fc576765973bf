"""A config becomes a study: settings, arms, blocks of seeds, and descriptions of jobs."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from configs import (
    ABSENT,
    CNN,
    CONFIG,
    HYPOTHESIS,
    OPERATORS,
    OPTIMIZER,
    PROBLEM,
    VIT,
    changed,
    refusals,
)
from hypothesis import given
from hypothesis import strategies as st

from plasticity.config import layers, registry, study
from plasticity.config.models import (
    Curvature,
    Setting,
    Spectra,
    Statistics,
    Training,
    Tuning,
    arm_name,
    baseline_of,
)

ROOT = Path(__file__).resolve().parents[3]
STUDIES = ROOT / "studies"
WITHOUT_SMALL_TWIN = (  # they are small themselves
    "evidence",
    "evidence_methods",
    "drawn",
)
FULL = [path for path in sorted(STUDIES.glob("*.yaml")) if path.stem not in WITHOUT_SMALL_TWIN]
SCALED = [(path, STUDIES / "small" / path.name, 0.01) for path in FULL] + [
    (STUDIES / "paper.yaml", STUDIES / "evidence.yaml", 1)  # some of its budgets are in full
]
SHIPPED = [ROOT / "config.yaml", *sorted(STUDIES.rglob("*.yaml"))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_study_is_valid(path):
    config = layers.read_config([path])
    read = study.read(config)
    assert read.name == config["study"]
    methods = sum(len(read.methods_of(setting)) for setting in read.settings)
    blocks = len(study.pack_seeds(range(read.seeds), read.seeds_per_job))
    assert len(read.ensembles()) == methods * blocks


@pytest.mark.parametrize(
    ("path", "scaled", "share"),
    SCALED,
    ids=[f"{scaled.parent.name}-{scaled.name}" for _, scaled, _ in SCALED],
)
def test_scaled_study_has_same_settings_and_smaller_budget(path, scaled, share):
    full_config, small_config = (
        yaml.safe_load(file.read_text(encoding="utf-8")) for file in (path, scaled)
    )
    is_small = scaled.parent.name == "small"
    expected = f"{full_config['study']}_small" if is_small else scaled.stem
    assert small_config["study"] == expected
    assert set(small_config["settings"]) == set(full_config["settings"])
    if is_small:
        assert set(small_config["methods"]) <= set(full_config["methods"])
    budget = {"samples", "batch", "epochs", "tasks"}
    for name, setting in full_config["settings"].items():
        full, small = setting["problem"], small_config["settings"][name]["problem"]
        problem = full | {key: small[key] for key in budget}
        assert small_config["settings"][name] == setting | {"problem": problem}, name
        assert images_seen(small) <= share * images_seen(full), name


def images_seen(problem):
    return problem["samples"] * problem["epochs"] * problem["tasks"]


def test_title_of_a_setting_reaches_only_the_job_that_gathers_it():
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    name = "digits_labels_tanh"
    plain = study.read(config)
    config["settings"][name]["title"] = "Digits with tanh"
    titled = study.read(config)
    jobs = (
        ("training_job", (name, "none", "0-4")),
        ("intervention_job", (name,)),
        ("gather_job", ("digits_labels_relu",)),
        ("analyse_job", ()),
    )
    for job, arguments in jobs:
        assert getattr(titled, job)(*arguments) == getattr(plain, job)(*arguments), job
    gathered = json.loads(titled.gather_job(name))
    assert gathered == json.loads(plain.gather_job(name)) | {"title": "Digits with tanh"}


def test_paper_study_contains_settings_of_paper():
    config = yaml.safe_load((STUDIES / "paper.yaml").read_text(encoding="utf-8"))
    settings = config["settings"]
    separable = {
        values["network"]["activation"]
        for values in settings.values()
        if values["problem"].get("separable")
    }
    assert separable == {"relu", "leaky_relu", "tanh", "identity"}
    combinations = {
        (
            values["problem"]["dataset"],
            values["problem"]["shift"],
            values["network"]["kind"],
            values["optimizer"]["kind"],
        )
        for values in settings.values()
        if "separable" not in values["problem"]
    }
    assert combinations >= {
        ("mnist", "shuffle_labels", "mlp", "adam"),
        ("mnist", "shuffle_labels", "mlp", "sgd"),
        ("mnist", "permute_pixels", "mlp", "adam"),
        ("mnist", "remap_labels", "mlp", "adam"),
        ("cifar10", "shuffle_labels", "mlp", "adam"),
        ("cifar10", "shuffle_labels", "cnn", "adam"),
        ("cifar10", "permute_pixels", "mlp", "adam"),
        ("imagenet", "class_pairs", "cnn", "adam"),
    }


def test_study_has_values_of_config():
    read = study.read(CONFIG)
    assert (read.name, read.seeds, read.seeds_per_job) == ("small", 5, 2)
    assert list(read.settings) == ["other", "row"]  # by name, whatever the order in the config
    assert read.settings["other"] == Setting.of(CONFIG["settings"]["other"])
    assert read.training == Training()
    assert read.curvature == Curvature(
        {"fisher": Spectra(32, 1, ("previous", "next"))}, ("previous", "next"), 1
    )


def test_own_keys_of_operator_override_common_keys_and_defaults():
    own = {"ggn": {"samples": 8, "evaluation_points": ["next"], "steps": 9}, "fisher": {}}
    read = study.read(
        changed((OPERATORS, own), ("curvature.probes", 7), ("curvature.levels", [0.9]))
    ).curvature
    assert list(read.operators) == ["fisher", "ggn"]
    assert read.operators["fisher"] == Spectra(32, 1, ("previous", "next"), probes=7)
    assert read.operators["ggn"] == Spectra(8, 1, ("next",), steps=9, probes=7)
    assert (read.evaluation_points, read.every, read.levels, read.top) == (
        ("previous", "next"),
        1,
        (0.9,),
        10,
    )
    assert Curvature.of(json.loads(json.dumps(asdict(read)))) == read
    as_list, as_mapping = (
        study.read(changed((OPERATORS, names))).curvature
        for names in (["ntk", "ggn"], {"ggn": {}, "ntk": {}})
    )
    assert as_list == as_mapping


def test_every_operator_with_a_file_is_valid():
    names = registry.names("operators")
    for operators in (names, {name: {} for name in names}):
        read = study.read(changed((OPERATORS, operators)))
        assert list(read.curvature.operators) == names


def test_training_has_values_of_config():
    written = {"checkpoint_every": 4, "curve_points": 3, "precision": "bfloat16"}
    read = study.read(changed(("training", written), ("curvature.every", 8)))
    assert read.training == Training(4, 3, "bfloat16")


def test_option_needed_for_convolutions_is_optional_elsewhere():
    spectral, network = {"spectral": {"strength": 1}}, ("settings.row.network", CNN)
    assert study.read(changed(("methods", spectral)))
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "kernels": "flat"}}), network)
    )
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "settings": ["other"]}}), network)
    )


def test_hypotheses_have_unique_names_and_survive_json():
    (line,) = refusals(("statistics", {"hypotheses": [HYPOTHESIS, HYPOTHESIS]}))
    assert "hypotheses.1.name is 'H1', but another hypothesis has this name" in line
    assert "Rename one" in line
    read = study.read(changed(("statistics", {"hypotheses": [HYPOTHESIS], "draws": 199})))
    again = Statistics.of(json.loads(read.analyse_job()))
    assert again == read.statistics
    assert again.hypotheses[0].against == "mismatched"


def test_figure_shows_named_settings_in_order_or_all():
    read = study.read(changed(("figures", {"scatter": ["row"]})))
    assert read.drawn("scatter") == ["row"]
    assert read.drawn("curvature") == list(read.settings)


def test_method_refused_in_one_setting_can_be_limited_to_another():
    resets = {
        "self_normalized_resets": {"rejection": 0.1, "settings": ["row"]},
        "layer_norm": {"settings": ["other"]},
    }
    read = study.read(changed(("methods", resets), ("settings.row.network", VIT)))
    assert read.methods_of("row") == ["self_normalized_resets", "fresh"]
    assert read.methods_of("other") == ["layer_norm", "fresh", "fresh+layer_norm"]


def test_composed_method_ignores_spaces_and_changes_only_its_own_networks():
    composed = {"layer_norm + crelu+l2": {"l2.strength": [0.1, 0.2]}, "l2": {"strength": 0.1}}
    read = study.read(changed(("methods", composed)))
    methods = ["l2", "layer_norm+crelu+l2", "fresh", "fresh+crelu+layer_norm"]
    assert read.methods_of("row") == methods
    row = read.settings["row"]
    assert read.setting("row", "l2") == read.setting("row") == row
    network = read.setting("row", "layer_norm+crelu+l2").network
    assert network == replace(
        row.network,
        activation="crelu",
        matched=True,
        options=row.network.options | {"norm": "layer"},
    )
    assert read.arms("layer_norm+crelu+l2") == [{"l2.strength": 0.1}, {"l2.strength": 0.2}]
    job = json.loads(read.training_job("row", "layer_norm+crelu+l2", "0"))
    assert job["setting"]["network"] == asdict(network)
    assert Setting.of(job["setting"]) == read.setting("row", "layer_norm+crelu+l2")


def test_common_samples_that_no_operator_uses_are_not_checked():
    config = changed((OPERATORS, {"ggn": {"samples": 8}}), ("curvature.samples", 100))
    assert study.read(config).curvature.operators["ggn"].samples == 8


def study_with_seeds(seeds, per_job, methods=None):
    return study.read(
        changed(
            ("seeds.report", seeds),
            ("seeds_per_job", per_job),
            ("methods", methods or CONFIG["methods"]),
        )
    )


@given(seeds=st.integers(1, 60), per_job=st.integers(1, 80))
def test_blocks_partition_seeds_in_order(seeds, per_job):
    blocks = [study.block_seeds(block) for block in study.pack_seeds(range(seeds), per_job)]
    assert [seed for block in blocks for seed in block] == list(range(seeds))
    assert all(len(block) == per_job for block in blocks[:-1])
    assert 1 <= len(blocks[-1]) <= per_job


def test_blocks_are_named_by_their_first_and_last_seed():
    assert study.pack_seeds(range(5), 2) == ["0-1", "2-3", "4"]
    assert study.pack_seeds(range(3), 1) == ["0", "1", "2"]
    assert study.pack_seeds(range(12), 20) == ["0-11"]
    assert study.block_seeds("9-11") == [9, 10, 11]


@pytest.mark.parametrize(
    ("seeds", "per_job", "done", "blocks"),
    [
        (10, 5, ["0-4", "5-6"], ["0-4", "5-6", "7-9"]),
        (7, 1, ["0-4"], ["0-4", "5", "6"]),
        (5, 5, ["1", "3"], ["0", "1", "2", "3", "4"]),
        (4, 2, ["0", "1", "0-1"], ["0-1", "2-3"]),
        (4, 4, ["0-2", "1-3", "0"], ["0", "1-3"]),
        (4, 2, ["2-5"], ["0-1", "2-3"]),
        (12, 5, ["10-11"], ["0-4", "5-9", "10-11"]),
    ],
    ids=str,
)
def test_finished_blocks_stay_and_seeds_between_them_are_packed(seeds, per_job, done, blocks):
    assert study.pack_seeds(range(seeds), per_job, done) == blocks


@given(data=st.data(), seeds=st.integers(1, 30), per_job=st.integers(1, 8))
def test_finishing_planned_blocks_in_any_order_keeps_plan(data, seeds, per_job):
    done = data.draw(
        st.lists(
            st.builds(
                lambda first, length: study.block_name(range(first, first + length)),
                first=st.integers(0, 29),
                length=st.integers(1, 9),
            )
        )
    )
    plan = study.pack_seeds(range(seeds), per_job, done)
    assert [seed for block in plan for seed in study.block_seeds(block)] == list(range(seeds))
    some = data.draw(st.lists(st.sampled_from(plan)))
    assert study.pack_seeds(range(seeds), per_job, [*done, *some]) == plan


def test_finished_blocks_are_folders_with_outcomes_and_valid_name(tmp_path):
    for name in (
        "runs/a/l2/0-4",
        "runs/a/l2/5",
        "runs/a/l2/old",
        "runs/a/l2/7-6",
        "tuning/a/l2/1000",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "outcomes.nc").touch()
    (tmp_path / "runs/a/none/0-4/resume").mkdir(parents=True)
    assert study.finished_blocks(tmp_path) == {"runs/a/l2": ["0-4", "5"], "tuning/a/l2": ["1000"]}
    made = replace(
        study_with_seeds(6, 2), finished={"runs/row/l2": ["0-4"], "tuning/row/l2": ["1000"]}
    )
    assert [ensemble.seeds for ensemble in made.ensembles("row") if ensemble.method == "l2"] == [
        "0-4",
        "5",
    ]
    assert [ensemble.seeds for ensemble in made.ensembles("row") if ensemble.method == "none"] == [
        "0-1",
        "2-3",
        "4-5",
    ]


def test_methods_are_limited_to_settings_and_baseline_is_everywhere():
    read = study.read(CONFIG)
    assert read.methods_of("row") == ["none", "l2", "wasserstein", "fresh"]
    assert read.methods_of("other") == ["none", "l2", "fresh"]
    assert study_with_seeds(1, 1, {"fresh": {}, "none": {}}).methods_of("row") == ["none", "fresh"]


def test_planning_reads_the_file_of_a_method_once(monkeypatch):
    """A study of 100 settings and 20 arms asks for the methods of a setting 60,000 times."""
    planned = study.read(CONFIG)
    reads = []
    monkeypatch.setattr(registry, "network_of", reads.append)
    for setting in [*planned.settings, *planned.settings]:
        planned.methods_of(setting)
        planned.treated_ensembles(setting)
    assert reads
    assert len(reads) == len(set(reads))


def test_ensembles_contain_each_setting_method_and_block_once():
    read = study.read(CONFIG)
    folders = [ensemble.folder for ensemble in read.ensembles()]
    methods = {"other": ["none", "l2", "fresh"], "row": ["none", "l2", "wasserstein", "fresh"]}
    expected = [
        f"{setting}/{method}/{block}"
        for setting in methods
        for method in methods[setting]
        for block in ("0-1", "2-3", "4")
    ]
    assert folders == expected
    assert [ensemble.folder for ensemble in read.ensembles("row")] == expected[9:]


@given(
    values=st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=5, unique=True)
)
def test_list_makes_one_arm_per_value(values):
    read = study_with_seeds(
        1,
        1,
        {
            "l2": {"strength": values},
            "l2_init": {"strength": values[0], "settings": ["row"]},
            "none": {},
        },
    )
    assert read.arms("l2") == [{"strength": value} for value in sorted(values)]
    assert read.arms("l2_init") == [{"strength": values[0]}]
    assert read.arms("none") == read.arms("fresh") == [{}]


@given(
    values=st.lists(st.floats(0, 10, allow_subnormal=False), min_size=2, max_size=2, unique=True)
)
def test_different_arms_have_different_names(values):
    first, second = (arm_name("l2", {"strength": value}) for value in values)
    assert first != second


def test_arm_name_has_method_and_values():
    assert arm_name("l2", {"strength": 0.001}) == "l2(strength=0.001)"
    assert arm_name("none", {}) == "none"
    assert arm_name("l2+redo", {"l2.strength": 1e-5, "redo.period": 1000, "kernels": "flat"}) == (
        "l2+redo(l2.strength=1e-05, redo.period=1000, kernels=flat)"
    )


def test_arms_that_differ_in_fourteenth_decimal_have_different_names():
    assert arm_name("l2", {"strength": 0.1}) != arm_name("l2", {"strength": 0.1 + 1e-14})


def with_methods(methods):
    """Build a study whose methods have several hyperparameters, without a check of their names."""
    return replace(study.read(CONFIG), methods=methods)


@pytest.mark.parametrize(
    ("arm", "baseline"),
    [
        ("none", "fresh"),
        ("l2(strength=0.1)", "fresh"),
        ("crelu", "fresh+crelu"),
        ("crelu+l2(l2.strength=0.1)", "fresh+crelu"),
        ("l2+crelu(l2.strength=0.1)", "fresh+crelu"),
        ("layer_norm+crelu", "fresh+layer_norm+crelu"),
        ("fresh", "fresh"),
        ("fresh+crelu", "fresh+crelu"),
    ],
)
def test_baseline_of_an_arm_has_its_architecture(arm, baseline):
    assert baseline_of(arm, ["fresh", "fresh+crelu", "fresh+layer_norm+crelu", arm]) == baseline


def test_methods_with_the_same_network_share_a_baseline():
    read = with_methods({"crelu+layer_norm": {}, "layer_norm+l2+crelu": {"l2.strength": 0.1}})
    assert [name for name in read.methods_of("row") if name.startswith("fresh")] == [
        "fresh",
        "fresh+crelu+layer_norm",
    ]


def test_baselines_of_changed_networks_are_trained_once_with_that_network():
    read = with_methods({"crelu": {}, "crelu+l2": {"l2.strength": [0.1, 0.2]}, "l2": {}})
    assert read.methods_of("row") == ["crelu", "crelu+l2", "l2", "fresh", "fresh+crelu"]
    assert read.trained_methods() == read.methods_of("row")
    job = json.loads(read.training_job("row", "fresh+crelu", "0"))
    assert job["setting"] == json.loads(read.training_job("row", "crelu", "0"))["setting"]
    assert job["arms"] == [{}]


def test_several_lists_make_one_arm_per_combination():
    arms = with_methods({"l2": {"a": [1, 2], "b": [3, 4], "c": 5}}).arms("l2")
    assert len(arms) == 4
    assert {(arm["a"], arm["b"], arm["c"]) for arm in arms} == {
        (1, 3, 5),
        (1, 4, 5),
        (2, 3, 5),
        (2, 4, 5),
    }


def reversed_keys(value):
    """Reverse the order of keys in every mapping."""
    if not isinstance(value, dict):
        return value
    return {key: reversed_keys(inner) for key, inner in reversed(value.items())}


def test_training_job_does_not_depend_on_order_of_keys():
    first, second = study.read(CONFIG), study.read(reversed_keys(CONFIG))
    for ensemble in first.ensembles():
        text = first.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
        assert text == second.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
    grid = {"l2": {"a": [1, 2], "b": [3, 4]}}
    text = with_methods(grid).training_job("row", "l2", "0")
    assert text == with_methods(reversed_keys(grid)).training_job("row", "l2", "0")


def test_training_job_contains_only_what_it_uses():
    job = study.read(CONFIG).training_job("row", "l2", "2-3")
    assert json.loads(job) == {
        "setting": asdict(Setting.of(CONFIG["settings"]["row"])),
        "training": {"checkpoint_every": 1, "curve_points": 10, "precision": "float32"},
        "method": "l2",
        "arms": [{"strength": 0.001}, {"strength": 0.01}],
        "seeds": [2, 3],
    }
    elsewhere = changed(
        ("study", "x"),
        ("seeds.report", 4),
        ("curvature.every", 2),
        ("methods.none", ABSENT),
        ("settings.other.network.width", 9),
    )
    assert study.read(elsewhere).training_job("row", "l2", "2-3") == job
    for key, value in [
        (f"{PROBLEM}.epochs", 3),
        (f"{OPTIMIZER}.lr", 0.1),
        ("methods.l2.strength", 0.5),
        ("settings.row.network.width", 9),
        ("training", {"curve_points": 3}),
    ]:
        assert study.read(changed((key, value))).training_job("row", "l2", "2-3") != job


# Tuning


def tuned_study(*changes):
    return study.read(changed(("seeds.tune", 3), *changes))


def test_no_method_is_tuned_without_tuning_seeds():
    read = study.read(CONFIG)
    assert read.tuned_methods() == []
    assert read.tuning_blocks("row", "l2") == []
    assert read.reported_arms("l2") == ["l2(strength=0.001)", "l2(strength=0.01)"]


def test_method_with_several_arms_is_tuned_and_reported_by_bare_name():
    read = tuned_study()
    assert read.tuned_methods() == [("other", "l2"), ("row", "l2")]
    assert tuned_study(("methods.l2.settings", ["row"])).tuned_methods() == [("row", "l2")]
    assert [read.reported_arms(method) for method in ("none", "l2", "wasserstein", "fresh")] == [
        ["none"],
        ["l2"],
        ["wasserstein(strength=0.1)"],
        ["fresh"],
    ]
    assert json.loads(read.gather_job("row"))["arms"] == [
        "none",
        "l2",
        "wasserstein(strength=0.1)",
        "fresh",
    ]


@given(tune=st.integers(0, 9), report=st.integers(1, 1000), per_job=st.integers(1, 7))
def test_tuning_and_reporting_seeds_are_disjoint_and_independent(tune, report, per_job):
    read = study.read(
        changed(("seeds", {"tune": tune, "report": report}), ("seeds_per_job", per_job))
    )
    tuning, reporting = (
        [seed for block in blocks for seed in study.block_seeds(block)]
        for blocks in (read.tuning_blocks("row", "l2"), read.blocks("row", "l2"))
    )
    assert reporting == list(range(report))
    assert tuning == list(range(1000, 1000 + tune))
    assert not set(tuning) & set(reporting)


def test_criterion_is_in_no_training_job():
    first = tuned_study()
    criterion = {"outcome": "final_loss", "stage": "late"}
    second = tuned_study(("tuning", criterion), ("seeds.tune", 4))
    assert (first.tuning, second.tuning) == (Tuning(), Tuning("final_loss", "late"))
    for ensemble in first.ensembles():
        job = first.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
        assert job == second.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
    assert first.tuning_job("row", "l2", "1000-1001") == second.tuning_job("row", "l2", "1000-1001")


def test_training_job_of_tuned_method_contains_all_but_arms():
    tuned, untuned = tuned_study(), study.read(CONFIG)
    job = json.loads(untuned.training_job("row", "l2", "0-1"))
    del job["arms"]
    assert json.loads(tuned.training_job("row", "l2", "0-1")) == job
    for method in ("none", "wasserstein", "fresh"):
        assert tuned.training_job("row", method, "0") == untuned.training_job("row", method, "0")


def test_tuning_job_contains_all_arms_and_no_checkpoints():
    assert json.loads(tuned_study().tuning_job("row", "l2", "1000-1001")) == {
        "setting": asdict(Setting.of(CONFIG["settings"]["row"])),
        "training": {"curve_points": 10, "precision": "float32"},
        "method": "l2",
        "arms": [{"strength": 0.001}, {"strength": 0.01}],
        "seeds": [1000, 1001],
    }


def test_cost_counts_all_arms_on_tuning_seeds_and_one_on_reporting_seeds():
    runs = json.loads(tuned_study().cost_job())["runs"]
    counts = {
        (run["name"], run["method"], run["tuning"]): (len(run["arms"]), run["blocks"])
        for run in runs
    }
    assert len(counts) == len(runs) == 7 + 2
    assert counts["row", "l2", False] == (1, [[0, 1], [2, 3], [4]])
    assert counts["row", "l2", True] == (2, [[1000, 1001], [1002]])
    assert counts["row", "wasserstein", False] == (1, [[0, 1], [2, 3], [4]])
    untuned = json.loads(study.read(CONFIG).cost_job())["runs"]
    assert not any(run["tuning"] for run in untuned)
