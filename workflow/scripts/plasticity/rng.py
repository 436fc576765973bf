"""Counter-based randomness: a draw is known by what it is for, never by what was drawn before it."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, task: int = 0) -> np.random.Generator:
    """A generator of its own for each (seed, purpose, task).

    So a run's numbers depend on no other run, and adding a seed, an arm or a method changes nobody's.
    """
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), task]))
    )
