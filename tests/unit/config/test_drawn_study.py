"""The population of drawn settings is what its script draws."""

import importlib.util
from pathlib import Path

import yaml

from plasticity.config import study
from plasticity.training.outcomes import stages

STUDIES = Path(__file__).parents[3] / "studies"


def load_script():
    spec = importlib.util.spec_from_file_location("draw", STUDIES / "draw.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_committed_study_is_the_output_of_its_script():
    text = (STUDIES / "drawn.yaml").read_text()
    assert load_script().draw_study(settings=60, seed=0) == text


def test_setting_does_not_depend_on_the_number_of_settings():
    script = load_script()
    assert script.draw_setting(3, seed=0) in script.draw_study(settings=5, seed=0)
    assert script.draw_setting(3, seed=1) != script.draw_setting(3, seed=0)


def test_every_value_of_the_distribution_is_drawn():
    settings = yaml.safe_load((STUDIES / "drawn.yaml").read_text())["settings"].values()
    script = load_script()
    networks = [setting["network"] for setting in settings]
    assert {network["width"] for network in networks} == set(script.WIDTHS)
    assert {network["depth"] for network in networks} == set(script.DEPTHS)
    assert {network["activation"] for network in networks} == set(script.ACTIVATIONS)
    assert {network["initialization"] for network in networks} == set(script.INITIALIZATIONS)
    problems = [setting["problem"] for setting in settings]
    assert {problem["samples"] for problem in problems} == set(script.SAMPLES)
    assert {problem["batch"] for problem in problems} == set(script.BATCHES)
    shifts = {line.partition(",")[0].removeprefix("shift: ") for line in script.SHIFTS}
    assert {problem["shift"] for problem in problems} == shifts
    for setting in settings:
        optimizer = setting["optimizer"]
        low, high = script.STEP_SIZES[optimizer["kind"]]
        assert low <= optimizer["lr"] <= high


def test_fisher_has_the_same_limit_in_all_settings_and_is_measured_early_and_late():
    read = study.read(yaml.safe_load((STUDIES / "drawn.yaml").read_text()))
    fisher = read.curvature.operators["fisher"]
    problems = [setting.problem for setting in read.settings.values()]
    assert fisher.samples == min(problem.samples for problem in problems)
    for problem in problems:
        for stage in ("early", "late"):
            window = stages(problem.tasks)[stage]
            assert set(range(window.start, window.stop)) <= set(fisher.tasks)


def test_study_is_60_settings_of_equal_length_with_5_seeds():
    read = study.read(yaml.safe_load((STUDIES / "drawn.yaml").read_text()))
    assert len(read.settings) == 60
    assert read.seeds == 5
    assert len(read.ensembles()) == 120
    budgets = [(one.problem.steps, one.problem.tasks) for one in read.settings.values()]
    assert len(set(budgets)) == 1
