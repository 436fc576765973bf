"""Concatenated ReLU in the place of the setting's activation (Shang et al. 2016, arXiv 1603.05201; Abbas et al. 2023, arXiv 2303.07507).

Each unit puts out relu(x) and relu(−x), so none can be dead. The next layer has twice as many inputs; left free is whether
the layers get narrower for it: they do if the setting's network is `matched`, to as nearly as can be the number of
parameters that it had with relu.
"""

from plasticity.training.method import Intervention


class Method(Intervention):
    """The network is the setting's but for its activation."""

    NETWORK = {"activation": "crelu"}
    REFUSES = {"activation": ["identity", "crelu", "fourier"]}
