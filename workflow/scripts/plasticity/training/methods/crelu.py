"""Concatenated ReLU instead of the setting's activation (Shang et al. 2016, arXiv 1603.05201).

Against loss of plasticity: Abbas et al. 2023, arXiv 2303.07507. A unit outputs relu(x) and
relu(−x), so no unit can be dead. The next layer has twice as many inputs, so layers are made
narrower: the number of parameters is as near as possible to that with relu. For layers of full
width, give a setting the network `activation: crelu`.
"""

from plasticity.training.method import Intervention


class Method(Intervention):
    """The setting's network with another activation."""

    NETWORK = {"activation": "crelu", "matched": True}
    REFUSES = {"activation": ["identity", "crelu", "fourier"]}
