"""A network of one layer and a reader of arrays."""

import numpy as np

from palm_cls.core.device import set_seed
from palm_cls.models.lenet import LeNet


def reader(sizes, classes=1, seed=0):
    """A reader of learnable 1x28x28 images in batches of the given sizes: the brighter, the higher the class."""
    rng = np.random.RandomState(seed)
    batches = []
    for size in sizes:
        labels = rng.randint(0, max(classes, 2), (size, 1))
        imgs = rng.rand(size, 1, 28, 28) + labels.reshape(-1, 1, 1, 1)
        batches.append((imgs.astype("float32"), labels.astype("float32" if classes == 1 else "int64")))
    return lambda: iter(batches)


def network(classes=1, seed=0, activation="relu"):
    set_seed(seed)
    return LeNet(classes, in_channels=1, image_size=28, activation=activation)
