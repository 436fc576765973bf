"""Draw settings from a declared distribution, and print them as a study.

    python studies/draw.py --settings 60 --seed 0 > studies/drawn.yaml

A setting depends only on the seed and its own number, so that more settings leave the others as
they are.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from plasticity.rng import generator

Value = TypeVar("Value")

# The distribution. All rows are independent; a value that occurs twice is twice as likely.
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "identity")
WIDTHS = (32, 64, 100, 128)
DEPTHS = (2, 3, 4)
INITIALIZATIONS = ("he", "pytorch")
OPTIMIZERS = ("adam", "adam", "sgd")
STEP_SIZES = {"adam": (0.001, 0.005), "sgd": (0.01, 0.05)}  # log-uniform between these
SAMPLES = (96, 128, 192, 256)
BATCHES = (16, 32, 64)
SHIFTS = (
    "shift: shuffle_labels",
    "shift: shuffle_labels",
    "shift: shuffle_labels",
    "shift: permute_pixels",
    "shift: redraw_labels, fraction: 0.5",
    "shift: remap_labels",
)
# Equal in all settings. A task has as many steps whatever its samples and batch, so that all jobs
# take about as long.
STEPS, TASKS = 150, 16
MEASURED_SAMPLES = min(SAMPLES)

HEADER = """\
# {settings} small settings, drawn with seed {seed}: do settings whose curvature falls more
# also lose more plasticity? studies/draw.py wrote this file, so do not edit it.
# No value was chosen by its results. The distribution is at the top of studies/draw.py. Sources:
# - Activations, and networks of 2 to 4 layers of at most 128 units: what is known of Lewandowski et
#   al. (arXiv 2312.00246).
# - Batches of 16, width 100, and the initialisation `pytorch`: Kumar et al., "L2 Init" (arXiv
#   2308.11958). Step sizes begin where its grids end, at 0.001 for Adam and 0.01 for SGD, and go to
#   five times as much, because its tasks of random labels have 100 to 400 times as many steps.
# - Shuffled labels and permuted pixels: the same paper. Redrawing half of the labels, a less abrupt
#   shift: Lyle et al. (arXiv 2303.01486). Renamed classes, a mild shift: UPGD (arXiv 2404.00781).
# - Images, steps and tasks are ours, so that the study takes minutes.
# The Fisher is that of {samples} images, the fewest that a task has, so its rank has the same limit
# everywhere. It is measured at the early and the late tasks, at the first, and at three between.
study: drawn
data_root: data # not needed for digits; the variable PLASTICITY_DATA overrides it
seeds: {{tune: 0, report: 5}}
seeds_per_job: 5
settings:
"""
FOOTER = """\
methods:
  none: {{}}
curvature:
  operators: {{fisher: {{tasks: [0, 1, 2, 5, 8, 11, 14, 15], blocks: [all]}}}}
  samples: {samples}
  evaluation_points: [next]
  every: 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.stdout.write(draw_study(arguments.settings, arguments.seed))


def draw_study(settings: int, seed: int) -> str:
    """Return the text of the study."""
    drawn = [draw_setting(number, seed) for number in range(1, settings + 1)]
    header = HEADER.format(settings=settings, seed=seed, samples=MEASURED_SAMPLES)
    return header + "".join(drawn) + FOOTER.format(samples=MEASURED_SAMPLES)


def draw_setting(number: int, seed: int) -> str:
    """Return the lines of one setting."""
    random = generator(seed, "drawn setting", number)
    optimizer = choose(random, OPTIMIZERS)
    low, high = np.log(STEP_SIZES[optimizer])
    step_size = float(f"{np.exp(random.uniform(low, high)):.2g}")
    network = {
        "kind": "mlp",
        "width": choose(random, WIDTHS),
        "depth": choose(random, DEPTHS),
        "activation": choose(random, ACTIVATIONS),
        "initialization": choose(random, INITIALIZATIONS),
    }
    problem = (
        f"dataset: digits, {choose(random, SHIFTS)}, samples: {choose(random, SAMPLES)}, "
        f"batch: {choose(random, BATCHES)}, steps_per_task: {STEPS}, tasks: {TASKS}"
    )
    return (
        f"  drawn_{number:02d}:\n"
        f"    problem: {{{problem}}}\n"
        f"    network: {{{as_yaml(network)}}}\n"
        f"    optimizer: {{kind: {optimizer}, lr: {step_size:f}}}\n"
    )


def choose(random: np.random.Generator, values: Sequence[Value]) -> Value:
    """Choose one of some values."""
    return values[random.integers(len(values))]


def as_yaml(section: Mapping[str, object]) -> str:
    """Write a section of a config in one line, without braces."""
    return ", ".join(f"{key}: {value}" for key, value in section.items())


if __name__ == "__main__":
    main()
