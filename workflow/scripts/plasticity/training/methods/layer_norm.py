"""Layer norm before each activation (Ba, Kiros & Hinton 2016, arXiv 1607.06450).

Against loss of plasticity: Lyle et al. 2023, arXiv 2303.01486; together with L2 regularization, `layer_norm + l2`: Lyle et
al. 2024, arXiv 2402.18762 (with decoupled decay: `layer_norm + weight_decay`). Which layers: those that the network's option
`norm` has; after a convolution each image's channels and places together.
"""

from plasticity.training.method import Intervention


class Method(Intervention):
    """The network is the setting's but for its `norm`."""

    NETWORK = {"norm": "layer"}
    REFUSES = {"norm": ["layer"]}
