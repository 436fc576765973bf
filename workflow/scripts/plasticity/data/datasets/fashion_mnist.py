"""Fashion-MNIST's 60,000 training images of clothes (Xiao, Rasul & Vollgraf 2017), from files of MNIST's format."""

from torchvision.datasets import FashionMNIST

from plasticity.data.datasets import mnist


class Dataset(mnist.Dataset):
    """Training images and labels of the original idx files, `FashionMNIST/raw/*.gz` below the data root."""

    origin = FashionMNIST
