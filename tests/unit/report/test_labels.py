"""Names of points are near their points, and cover neither points nor each other."""

import itertools

import numpy as np

from plasticity.report.labels import DISTANCES, place

BOUNDS = np.array([0.0, 0.0, 200.0, 150.0])
NOTHING = np.empty((0, 4))


def boxes_of(centres, sizes):
    """Return left, bottom, right and top of boxes."""
    return np.hstack([centres - sizes / 2, centres + sizes / 2])


def overlap(first, second):
    """Compute the area that two boxes share, as a plain product of lengths."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def test_boxes_in_a_crowd_cover_no_obstacle_and_no_other_box():
    random = np.random.default_rng(0)
    anchors = random.uniform([60, 50], [140, 100], (12, 2))
    sizes = np.tile([45.0, 8.0], (12, 1))
    obstacles = boxes_of(anchors, np.full((12, 2), 5.0))
    placed = boxes_of(place(anchors, sizes, obstacles, BOUNDS), sizes)
    assert np.isfinite(placed).all()
    for box, obstacle in itertools.product(placed, obstacles):
        assert overlap(box, obstacle) == 0
    for box, other in itertools.combinations(placed, 2):
        assert overlap(box, other) == 0
    assert (placed[:, :2] >= BOUNDS[:2]).all()
    assert (placed[:, 2:] <= BOUNDS[2:]).all()


def test_box_without_obstacles_is_to_the_right_of_its_anchor():
    centres = place(np.array([[100.0, 75.0]]), np.array([[40.0, 8.0]]), NOTHING, BOUNDS)
    np.testing.assert_allclose(centres, [[100 + DISTANCES[0] + 20, 75]])


def test_box_of_an_anchor_at_the_right_edge_stays_inside():
    centres = place(np.array([[195.0, 75.0]]), np.array([[40.0, 8.0]]), NOTHING, BOUNDS)
    assert centres[0, 0] + 20 <= 200


def test_box_without_room_has_no_place():
    everything = BOUNDS[None]
    centres = place(np.array([[100.0, 75.0]]), np.array([[40.0, 8.0]]), everything, BOUNDS)
    assert np.isnan(centres).all()
