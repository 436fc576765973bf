"""The population of drawn settings is what its script draws."""

import importlib.util
from pathlib import Path

import yaml

from plasticity.config import study

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
    assert {setting["problem"]["batch"] for setting in settings} == set(script.BATCHES)
    shifts = {line.partition(",")[0].removeprefix("shift: ") for line in script.SHIFTS}
    assert {setting["problem"]["shift"] for setting in settings} == shifts
    for setting in settings:
        optimizer = setting["optimizer"]
        low, high = script.STEP_SIZES[optimizer["kind"]]
        assert low <= optimizer["lr"] <= high


def test_operator_is_averaged_over_all_images_and_measured_early_and_late():
    read = study.read(yaml.safe_load((STUDIES / "drawn.yaml").read_text()))
    fisher = read.curvature.operators["fisher"]
    assert len(read.settings) == 60
    assert len(read.ensembles()) == 120
    assert {setting.problem.samples for setting in read.settings.values()} == {fisher.samples}
    assert {setting.problem.tasks for setting in read.settings.values()} == {24}
    assert {1, 2, 3, 21, 23} <= set(fisher.tasks)
