"""Training images of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 60,000 images of clothes."""

from torchvision.datasets import FashionMNIST

from plasticity.data.datasets import mnist


class Dataset(mnist.Dataset):
    """Training images and labels of the original idx files, in `FashionMNIST/raw/`."""

    IMAGES = 60_000
    FILES = (
        "FashionMNIST/raw/train-images-idx3-ubyte.gz",
        "FashionMNIST/raw/train-labels-idx1-ubyte.gz",
    )
    torchvision_class = FashionMNIST
