"""Names that people read."""

import pytest

from plasticity.config.titles import arm_title, method_title, setting_title, setting_titles


def setting(**changes):
    """Describe a setting on MNIST with shuffled labels, an MLP with ReLU, and Adam."""
    problem = {"dataset": "mnist", "shift": "shuffle_labels", "separable": False}
    network = {"kind": "mlp", "activation": "relu"}
    optimizer = {"kind": "adam"}
    for key, value in changes.items():
        for section in (problem, network, optimizer):
            if key in section and (key != "kind"):
                section[key] = value
    network["kind"] = changes.get("network", network["kind"])
    optimizer["kind"] = changes.get("optimizer", optimizer["kind"])
    return {"problem": problem, "network": network, "optimizer": optimizer}


@pytest.mark.parametrize(
    ("values", "title"),
    [
        (setting(), "MNIST, shuffled labels, ReLU"),
        (setting(separable=True, activation="identity"), "MNIST, separable labels, identity"),
        (setting(dataset="cifar10", network="cnn"), "CIFAR-10, shuffled labels, ReLU CNN"),
        (setting(optimizer="sgd"), "MNIST, shuffled labels, ReLU, SGD"),
        (setting(dataset="own_images", shift="own_shift"), "own images, own shift, ReLU"),
    ],
)
def test_setting_is_described_in_words(values, title):
    assert setting_title(values) == title


def test_title_of_the_config_comes_first():
    titles = setting_titles({"a": setting(), "b": setting(optimizer="sgd")}, {"a": "Mine"})
    assert titles == {"a": "Mine", "b": "MNIST, shuffled labels, ReLU, SGD"}


def test_settings_with_one_description_are_told_apart_by_their_names():
    titles = setting_titles({"few_images": setting(), "many_images": setting()})
    assert titles == {"few_images": "few images", "many_images": "many images"}


@pytest.mark.parametrize(
    ("arm", "title"),
    [
        ("none", "no intervention"),
        ("fresh", "from scratch"),
        ("fresh+layer_norm", "from scratch + layer norm"),
        ("l2_init(strength=0.01)", "L2 Init 0.01"),
        ("layer_norm+l2(l2.strength=0.1)", "layer norm + L2 0.1"),
        ("redo(period=400, threshold=0.1)", "ReDo (period 400, threshold 0.1)"),
        ("wasserstein", "Wasserstein"),
    ],
)
def test_arm_has_the_name_of_its_method_and_its_values(arm, title):
    assert arm_title(arm) == title
    if "(" not in arm:
        assert method_title(arm) == title
