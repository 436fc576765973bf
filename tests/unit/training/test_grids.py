"""Values that lengthen a grid of hyperparameters."""

import pytest

from plasticity.training.grids import arms_beyond


def arms(**values):
    """Make an arm for each of the values of one hyperparameter."""
    ((name, listed),) = values.items()
    return [{name.replace("__", "."): value} for value in listed]


@pytest.mark.parametrize(
    ("method", "grid", "best", "expected"),
    [
        ("l2", arms(strength=[0.001, 0.01, 0.1]), 2, [{"strength": 1.0}]),
        ("l2", arms(strength=[0.001, 0.01, 0.1]), 0, [{"strength": 0.0001}]),
        ("l2", arms(strength=[0.1, 0.03]), 1, [{"strength": 0.009}]),
        ("l2", arms(strength=[0.001, 0.01, 0.1]), 1, []),
        ("l2", arms(strength=[0.1]), 0, []),
        ("l2", arms(strength=[0, 0.1]), 0, []),
        ("l2", arms(strength=[0, 0.1]), 1, []),
        # The largest allowed value of `shrink` is 1.
        ("shrink_perturb", arms(shrink=[0.01, 0.1]), 1, [{"shrink": 1.0}]),
        ("shrink_perturb", arms(shrink=[0.1, 0.5]), 1, []),
        # Steps between resets are whole numbers.
        ("redo", arms(period=[100, 250]), 1, [{"period": 625}]),
        ("redo", arms(period=[1, 2]), 0, []),
        ("layer_norm+l2", arms(l2__strength=[0.01, 0.1]), 1, [{"l2.strength": 1.0}]),
        ("l2+shrink_perturb", arms(shrink_perturb__shrink=[0.2, 0.9]), 1, []),
    ],
)
def test_grid_goes_on_by_its_ratio_within_the_allowed_values(method, grid, best, expected):
    assert arms_beyond(method, grid, grid[best]) == expected


def test_each_hyperparameter_at_an_end_gets_an_arm_of_its_own():
    grid = [
        {"shrink": shrink, "perturb": perturb, "law": "normal"}
        for shrink in (0.01, 0.1)
        for perturb in (0.1, 0.2, 0.4)
    ]
    best = {"shrink": 0.01, "perturb": 0.4, "law": "normal"}
    assert arms_beyond("shrink_perturb", grid, best) == [
        {"shrink": 0.001, "perturb": 0.4, "law": "normal"},
        {"shrink": 0.01, "perturb": 0.8, "law": "normal"},
    ]
    inside = {"shrink": 0.1, "perturb": 0.2, "law": "normal"}
    assert arms_beyond("shrink_perturb", grid, inside) == [
        {"shrink": 1.0, "perturb": 0.2, "law": "normal"}
    ]
