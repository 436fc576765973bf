"""Find out whether training would use a GPU. Standard library only, because the launcher asks."""

import functools
import os
import subprocess

SECONDS_TO_ANSWER = 20


@functools.cache
def is_present() -> bool:
    """Return whether the driver lists a CUDA device that ``CUDA_VISIBLE_DEVICES`` does not hide.

    PyTorch would answer the same, but its import takes seconds at every start of Snakemake.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS_TO_ANSWER,
        )
    except (OSError, subprocess.SubprocessError):  # no driver, or one that does not work
        return False
    return "GPU" in listing.stdout
