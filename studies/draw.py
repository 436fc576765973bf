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
STEP_SIZES = {"adam": (0.0003, 0.001), "sgd": (0.003, 0.01)}  # log-uniform between these
BATCHES = (16, 32, 64)
SHIFTS = (
    "shift: shuffle_labels",
    "shift: shuffle_labels",
    "shift: shuffle_labels",
    "shift: permute_pixels",
    "shift: redraw_labels, fraction: 0.5",
    "shift: remap_labels",
)
# Equal in all settings.
SAMPLES, EPOCHS, TASKS = 320, 30, 24

HEADER = """\
# {settings} small settings, drawn with seed {seed}: do settings whose curvature falls more
# also lose more plasticity? studies/draw.py wrote this file, so do not edit it.
# No value was chosen by its results. The distribution is at the top of studies/draw.py. Sources:
# - Activations, and networks of 2 to 4 layers of at most 128 units: what is known of Lewandowski et
#   al. (arXiv 2312.00246).
# - Batches of 16, width 100, the initialisation `pytorch`, and the ends of the step sizes: Kumar et
#   al., "L2 Init" (arXiv 2308.11958). Its grids are 0.0001 to 0.001 for Adam and 0.001 to 0.01 for
#   SGD. Its tasks of random labels have 50 to 200 times as many steps, so only the upper half of
#   each grid (in logarithms) is drawn from.
# - Shuffled labels and permuted pixels: the same paper. Redrawing half of the labels, a less abrupt
#   shift: Lyle et al. (arXiv 2303.01486). Renamed classes, a mild shift: UPGD (arXiv 2404.00781).
# All settings have {samples} images per task. So the Fisher is that of all images, and its
# rank has the same limit everywhere. It is measured often early, where it changes most.
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
  operators: {{fisher: {{tasks: [0, 1, 2, 3, 4, 6, 8, 11, 15, 19, 21, 23], blocks: [all]}}}}
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
    header = HEADER.format(settings=settings, seed=seed, samples=SAMPLES)
    return header + "".join(drawn) + FOOTER.format(samples=SAMPLES)


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
        f"dataset: digits, {choose(random, SHIFTS)}, samples: {SAMPLES}, "
        f"batch: {choose(random, BATCHES)}, epochs: {EPOCHS}, tasks: {TASKS}"
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
