"""Layer norm before each activation (Ba, Kiros & Hinton 2016, arXiv 1607.06450).

Against loss of plasticity: Lyle et al. 2023, arXiv 2303.01486. With L2 regularization, `layer_norm
+ l2`: Lyle et al. 2024, arXiv 2402.18762; with decoupled decay it is `layer_norm + weight_decay`.
The layers are those of the network's option `norm`. After a convolution, all channels and places of
an image are normalised together.
"""

from plasticity.training.method import Intervention


class Method(Intervention):
    """The setting's network with another `norm`."""

    NETWORK = {"norm": "layer"}
    REFUSES = {"norm": ["layer"]}
