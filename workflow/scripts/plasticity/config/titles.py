"""Names that people read: of settings and methods, in figures, tables, captions and sentences.

No job that trains or measures imports this module, so a new name reruns none of them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from plasticity.config.models import BASELINE, is_baseline, method_of, parts

NO_INTERVENTION = "none"
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
}
SHIFTS = {
    "shuffle_labels": "shuffled labels",
    "redraw_labels": "redrawn labels",
    "remap_labels": "renamed classes",
    "permute_pixels": "permuted pixels",
    "class_pairs": "pairs of classes",
    "class_incremental": "more and more classes",
    "flip_bits": "flipped bits",
    "stationary": "nothing changes",
    "memorize": "random labels that stay",
}
ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "crelu": "CReLU", "leaky_relu": "leaky ReLU"}
NETWORKS = {"cnn": "CNN", "resnet18": "ResNet-18", "vit": "ViT"}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "adam": "Adam"}
USUAL_NETWORK = "mlp"
USUAL_OPTIMIZER = "adam"

METHODS = {
    NO_INTERVENTION: "no intervention",
    BASELINE: "from scratch",
    "l2": "L2",
    "l2_init": "L2 Init",
    "l2_er": "L2-ER",
    "wasserstein": "Wasserstein",
    "crelu": "CReLU",
    "redo": "ReDo",
    "shrink_perturb": "shrink and perturb",
    "shrink_perturb_switch": "shrink and perturb at task boundaries",
    "hare_tortoise": "Hare and Tortoise",
    "self_normalized_resets": "self-normalized resets",
}


def setting_title(setting: Mapping[str, Any]) -> str:
    """Describe a setting in a few words: ``MNIST, shuffled labels, ReLU``.

    The network and the optimizer are named only if they are not an MLP and Adam.

    Args:
        setting: problem, network and optimizer, as in a config or from `dataclasses.asdict`.
    """
    problem, network = setting["problem"], setting["network"]
    shift = SHIFTS.get(problem["shift"], _as_words(problem["shift"]))
    if problem.get("separable"):
        shift = "separable labels"
    activation = network["activation"]
    words = [
        DATASETS.get(problem["dataset"], _as_words(problem["dataset"])),
        shift,
        ACTIVATIONS.get(activation, _as_words(activation)),
    ]
    if network["kind"] != USUAL_NETWORK:
        words[-1] += f" {NETWORKS.get(network['kind'], _as_words(network['kind']))}"
    optimizer = setting["optimizer"]["kind"]
    if optimizer != USUAL_OPTIMIZER:
        words.append(OPTIMIZERS.get(optimizer, _as_words(optimizer)))
    return ", ".join(words)


def setting_titles(
    settings: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return a title for each setting.

    Args:
        settings: problem, network and optimizer by the name of the setting.
        chosen: titles that the config gives some settings.

    Returns:
        By name: the chosen title, else the description. Settings with the same description are
        told apart by their names.
    """
    chosen = dict(chosen or {})
    described = {
        name: chosen.get(name) or setting_title(values) for name, values in settings.items()
    }
    counts = Counter(described.values())
    return {
        name: title if counts[title] == 1 else _as_words(name) for name, title in described.items()
    }


def method_title(method: str) -> str:
    """Return the name of a method: ``layer_norm+l2`` → ``layer norm + L2``."""
    if is_baseline(method):
        others = [METHODS.get(part, _as_words(part)) for part in parts(method)[1:]]
        return " + ".join([METHODS[BASELINE], *others])
    return " + ".join(METHODS.get(part, _as_words(part)) for part in parts(method))


def arm_title(arm: str) -> str:
    """Return the name of an arm: ``l2_init(strength=0.01)`` → ``L2 Init 0.01``."""
    _, _, options = arm.rstrip(")").partition("(")
    title = method_title(method_of(arm))
    values = [option.partition("=") for option in options.split(", ") if option]
    if len(values) == 1:
        return f"{title} {values[0][2]}"
    listed = ", ".join(f"{_as_words(key)} {value}" for key, _, value in values)
    return f"{title} ({listed})" if listed else title


def _as_words(name: str) -> str:
    """Write a name of a config as words."""
    return name.replace("_", " ")
