"""Estimates: one number or arrays of numbers, and the columns of a row."""

import numpy as np

from plasticity.statistics.estimate import Estimate, join_notes


def test_estimate_at_an_index_takes_the_number_of_each_array():
    estimate = Estimate(value=np.array([[1.0, 2.0]]), low=np.array([[0.5, 1.5]]), method="m")
    assert estimate.at(0, 1).row() | {"high": None, "p": None, "power": None} == {
        "estimate": 2.0,
        "low": 1.5,
        "high": None,
        "p": None,
        "power": None,
        "interval": "m",
        "note": "",
    }


def test_single_number_holds_for_every_index():
    estimate = Estimate(value=np.zeros((2, 3)), p=0.5, note="n").at(1, 2)
    assert estimate.p == 0.5
    assert np.isnan(estimate.high)
    assert estimate.note == "n"


def test_empty_notes_are_not_joined():
    assert join_notes("", "a", "", "b") == "a; b"
    assert join_notes("", "") == ""
