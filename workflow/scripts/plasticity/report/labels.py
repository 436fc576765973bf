"""Write names next to points of a panel, so that no name covers a point or another name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from plasticity.report.panels import SMALL_FONT

DIRECTIONS = 24  # in which a place is sought, evenly around the point
DISTANCES = (5, 8, 12, 18, 26, 36, 48, 64, 84)  # points; nearer places come first
MARGIN = 1.0  # points, around names
POINT_RADIUS = 2.5  # points
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Label:
    """A name, and the point that it names in the coordinates of the data."""

    name: str
    x: float
    y: float
    colour: str


def place(
    anchors: np.ndarray, sizes: np.ndarray, obstacles: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Choose for each box the nearest place around its anchor that is free.

    Places are given in the order of the boxes, and a place that is given is an obstacle for those
    that follow.

    Args:
        anchors: in points, shape ``(box, 2)``.
        sizes: width and height in points, shape ``(box, 2)``.
        obstacles: left, bottom, right and top in points, shape ``(obstacle, 4)``.
        bounds: left, bottom, right and top in points, shape ``(4,)``.

    Returns:
        The centre of each box, shape ``(box, 2)``; NaN where no place is free.
    """
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    centres = np.full(np.shape(anchors), np.nan)
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        for distance in DISTANCES:
            candidates = anchor + directions * (distance + size / 2)
            boxes = np.hstack([candidates - size / 2, candidates + size / 2])
            is_free = _are_inside(boxes, bounds) & ~_overlap(boxes, obstacles)
            if is_free.any():
                chosen = int(np.argmax(is_free))
                centres[index] = candidates[chosen]
                obstacles = np.vstack([obstacles, boxes[chosen]])
                break
    return centres


def _are_inside(boxes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Tell which boxes lie within bounds."""
    is_right_and_above = (boxes[:, :2] >= bounds[:2]).all(axis=1)
    is_left_and_below = (boxes[:, 2:] <= bounds[2:]).all(axis=1)
    return np.asarray(is_right_and_above & is_left_and_below)


def _overlap(boxes: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """Tell which boxes overlap with an obstacle, shape ``(box,)``."""
    is_beyond = (boxes[:, None, :2] >= obstacles[None, :, 2:]).any(axis=-1)
    is_before = (boxes[:, None, 2:] <= obstacles[None, :, :2]).any(axis=-1)
    is_apart = np.logical_or(is_beyond, is_before)
    return np.asarray(~is_apart.all(axis=1))


def label_points(
    figure: Figure, axis: Axes, labels: Sequence[Label], points: np.ndarray, texts: Sequence[Text]
) -> None:
    """Write names next to their points, with a thin line from each name to its point.

    The layout must be final. If no place is free, a name may cover points, but no other text. If
    there is no such place either, it is left out.

    Args:
        figure: of the panel.
        axis: the panel.
        labels: what to write, the most important first.
        points: all points of the panel in the coordinates of the data, shape ``(point, 2)``.
        texts: other texts in the panel.
    """
    if not labels:
        return
    scale = POINTS_PER_INCH / figure.dpi  # points per pixel
    to_pixels = axis.transData
    anchors = scale * to_pixels.transform([(label.x, label.y) for label in labels])
    bounds = scale * np.asarray(axis.bbox.extents)
    sizes = np.array([_size(figure, label.name) for label in labels])
    of_texts = scale * np.array([_extents(text) for text in texts]).reshape(-1, 4)
    at_points = scale * to_pixels.transform(points)
    of_points = np.hstack([at_points - POINT_RADIUS, at_points + POINT_RADIUS])

    centres = place(anchors, sizes, np.vstack([of_texts, of_points]), bounds)
    has_place = np.isfinite(centres[:, 0])
    half_sizes = sizes[has_place] / 2
    of_names = np.hstack([centres[has_place] - half_sizes, centres[has_place] + half_sizes])
    centres[~has_place] = place(
        anchors[~has_place], sizes[~has_place], np.vstack([of_texts, of_names]), bounds
    )
    for label, centre in zip(labels, centres, strict=True):
        if np.isfinite(centre[0]):
            _write(axis, label, axis.transAxes.inverted().transform(centre / scale))


def _write(axis: Axes, label: Label, centre: np.ndarray) -> None:
    """Write a name at a place in fractions of the panel, with a thin line to its point."""
    annotation = axis.annotate(
        label.name,
        (label.x, label.y),
        xytext=tuple(centre),
        textcoords="axes fraction",
        ha="center",
        va="center",
        fontsize=SMALL_FONT,
        color=label.colour,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        arrowprops={
            "arrowstyle": "-",
            "color": "black",
            "linewidth": 0.5,
            "shrinkA": 0,
            "shrinkB": POINT_RADIUS,
        },
    )
    annotation.set_in_layout(False)


def _size(figure: Figure, name: str) -> np.ndarray:
    """Measure width and height of a name in points, with a margin."""
    text = figure.text(0, 0, name, fontsize=SMALL_FONT)
    left, bottom, right, top = _extents(text)
    text.remove()
    size: np.ndarray = np.array([right - left, top - bottom]) * POINTS_PER_INCH / figure.dpi
    return size + 2 * MARGIN


def _extents(text: Text) -> np.ndarray:
    """Measure left, bottom, right and top of a text in pixels."""
    extents = text.get_window_extent()
    return np.array([extents.x0, extents.y0, extents.x1, extents.y1])
