"""A loader of grey images in memory, such as MNIST's."""

import functools
import hashlib

import cv2
import numpy as np

from palm_cls.data.base_loader import BaseLoader
from palm_cls.data.images import pixel_lut
from palm_cls.data.mnist import SIDE


class ArrayLoader(BaseLoader):
    """A loader of grey images in memory: (imgs float32 [N, 1, height, width], labels int64 [N, 1]) in batches.

    An image's name is its number, in five digits ("00017").
    """

    input_spec = {"size": SIDE, "channels": "grey"}

    def __init__(self, directory, pixels, labels, batch_size, classes, shuffle=False):
        """directory: where they are from; pixels: uint8 [images, height, width]; labels: int64 [images, 1].

        classes: names of the labels, a list of str.
        """
        super().__init__(list(range(len(pixels))), batch_size, shuffle)
        self.directory, self.classes = directory, classes
        self._pixels, self._labels = pixels, labels

    def name_of(self, sample):
        return f"{sample:05d}"

    def iter_from(self, batch):
        """Yield the batches of the present order from number `batch`."""
        lut = pixel_lut(self.pixel_range)
        for chosen in self._shards(batch):
            yield normalize_gray(self._pixels[chosen], lut), self._labels[chosen]

    @functools.cached_property
    def fingerprint(self):
        """sha256 of the pixels and labels, in the order of the file."""
        digest = hashlib.sha256(self._pixels)
        digest.update(self._labels)
        return digest.hexdigest()

    @property
    def labels(self):
        """Labels of the images in the present order: a list of int."""
        return self._labels[self.samples].ravel().tolist()

    def load_image(self, name):
        """The image of that name for people: uint8 BGR [height, width, 3]."""
        return np.repeat(self._pixels[int(name), :, :, None], 3, axis=2)

    def load_input(self, name):
        """The image of that name as the network takes it: float32 [1, height, width]."""
        return normalize_gray(self._pixels[int(name)][None], pixel_lut(self.pixel_range))[0]


def normalize_gray(pixels, lut):
    """uint8 [N, height, width] -> float32 [N, 1, height, width] by a `pixel_lut`."""
    count, height, width = pixels.shape
    return cv2.LUT(pixels.reshape(count * height, width), lut).reshape(count, 1, height, width)
