"""Write docs/results/peers.md from the published study of a peer's own setting.

Usage: python tests/unit/peers.py
"""

from pathlib import Path

import numpy as np
import xarray as xr

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "results" / "peers.md"
DATA = DOCS / "l2_init" / "drawn" / "mnist_labels_relu.nc"
# Tasks of a stage, and the mean accuracy at the end of these tasks that the authors' program gives.
# It was run with the budgets of studies/peers/l2_init.yaml, outside of this repository.
STAGES = {"first task": slice(0, 1), "tasks 2 to 5": slice(1, 5), "last 5 tasks": slice(15, 20)}
AUTHORS = {
    "none": {"first task": 0.36, "tasks 2 to 5": 0.165, "last 5 tasks": 0.117},
    "l2_init(strength=0.01)": {"first task": 0.267, "tasks 2 to 5": 0.228, "last 5 tasks": 0.224},
}
NAMES = {"none": "no intervention", "l2_init(strength=0.01)": "L2 Init 0.01"}


def accuracies(arm: str, stage: str) -> np.ndarray:
    """Return the mean accuracy of a stage's tasks, shape ``(seed,)``."""
    with xr.open_dataset(DATA) as data:
        errors = data["final_error"].sel(arm=arm).transpose("seed", "task").values
    return np.asarray(1 - errors[:, STAGES[stage]].mean(axis=1))


def rows() -> list[str]:
    """Write the rows of the table of accuracies."""
    lines = []
    for arm, stages in AUTHORS.items():
        for stage, authors in stages.items():
            seeds = accuracies(arm, stage)
            is_within = seeds.min() <= authors <= seeds.max()
            lines.append(
                f"| {NAMES[arm]} | {stage} | {authors:g} | {seeds.mean():.3f} |"
                f" {seeds.min():.3f} to {seeds.max():.3f} | {'yes' if is_within else 'no'} |"
            )
    return lines


def page() -> str:
    """Write the page."""
    agreeing = sum(row.endswith("yes |") for row in rows())
    share = f"{agreeing} of {len(rows())}"
    table = "\n".join(rows())
    return f"""# A peer's own setting

We trained the setting of the L2 Init authors with our code. In {share} comparisons the accuracy of
their program lies between our lowest and our highest seed.

| arm | accuracy at the end of | their program | ours, mean | ours, 3 seeds | within? |
| --- | --- | --- | --- | --- | --- |
{table}

- **Setting:** random labels on 1,200 images of MNIST, pixels from −1 to 1, 20 tasks of 2,500 steps
  each ([study](../../studies/peers/l2_init.yaml)). Source: Kumar, Marklund & Van Roy
  ([arXiv 2308.11958](https://arxiv.org/abs/2308.11958)).
- **Their program** was run once with these budgets, outside of this repository. Its paper trains 12
  times as many steps per task.
- **Limits:** three seeds here, and an unknown spread of their program.
- **Reproduce it:** `make run STUDY=peers/l2_init`, then compare [the tables](../l2_init/tables).
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
