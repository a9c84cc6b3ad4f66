"""Batches of grey images in memory, as of MNIST."""

import functools
import hashlib

import cv2
import numpy as np

from palm_cls.data.base_loader import BaseLoader
from palm_cls.data.images import pixel_lut
from palm_cls.data.mnist import IMAGE_SIZE


class ArrayLoader(BaseLoader):
    """A loader of grey images in memory, each named by its number in five digits ("00017").

    Batches are imgs float32 [N, 1, height, width], labels int64 [N, 1].

    Args:
        directory: where the images are from.
        pixels: uint8 [images, height, width].
        labels: the labels, int64 [images, 1].
        batch_size: number of images of a batch.
        classes: names of the labels, a list of str.
        shuffle: whether each epoch shuffles.
    """

    input_spec = {"size": IMAGE_SIZE, "channels": "grey"}

    def __init__(self, directory, pixels, labels, batch_size, classes, shuffle=False):
        super().__init__(list(range(len(pixels))), batch_size, shuffle)
        self.directory, self.classes = directory, classes
        self._pixels, self._labels = pixels, labels

    def iter_from(self, batch):
        """Yield the batches of the present order from number `batch` on."""
        table = pixel_lut(self.pixel_range)
        for chosen in self._local_batches(batch):
            yield normalize_gray(self._pixels[chosen], table), self._labels[chosen]

    def name_of(self, sample):
        """Return the name of a sample."""
        return f"{sample:05d}"

    @functools.cached_property
    def fingerprint(self):
        """sha256 of the pixels and labels, in the order of the file."""
        digest = hashlib.sha256(self._pixels)
        digest.update(self._labels)
        return digest.hexdigest()

    @property
    def labels(self):
        """Labels of the images in the present order."""
        return self._labels[self.samples].ravel().tolist()

    def load_image(self, name):
        """Return an image for people: uint8 BGR [height, width, 3]."""
        return np.repeat(self._pixels[int(name), :, :, None], 3, axis=2)

    def load_input(self, name):
        """Return an image as the network's input: float32 [1, height, width]."""
        return normalize_gray(self._pixels[int(name)][None], pixel_lut(self.pixel_range))[0]


def normalize_gray(pixels, table):
    """Normalize by a `pixel_lut`: uint8 [N, height, width] -> float32 [N, 1, height, width]."""
    count, height, width = pixels.shape
    return cv2.LUT(pixels.reshape(count * height, width), table).reshape(count, 1, height, width)
