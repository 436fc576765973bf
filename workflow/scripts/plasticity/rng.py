"""Counter-based randomness: a draw depends on its seed, purpose and task, not on earlier draws."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, task: int = 0) -> np.random.Generator:
    """Create the generator of one (seed, purpose, task).

    Each combination has an independent stream. Adding a seed, an arm or a method therefore changes
    no other run.

    Args:
        seed: of the run.
        purpose: what the numbers are used for, such as ``"batches"``.
        task: index of the task.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), task]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
