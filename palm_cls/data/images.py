"""From an image file to what the network takes: the lesson's `transform_img`."""

from pathlib import Path

import cv2
import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.data.decode import DecodeError, decode

IMAGE_SIZE = 224  # pixels, height and width that the lesson's networks take
PIXEL_RANGE = (-1.0, 1.0)  # what the bytes 0 and 255 become in the lesson
INPUT_SPEC = {"size": IMAGE_SIZE, "channels": "BGR", "range": list(PIXEL_RANGE)}  # stored with the weights


def read_image(path):
    """Decode an image file.

    Unlike `cv2.imread` it works with any path on Windows, and refuses what `palm_cls.data.decode` refuses.

    Args:
        path: Path of the file.

    Returns:
        uint8 BGR [height, width, 3].

    Raises:
        InputError: The file is missing or cannot be decoded.
    """
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from None


def transform_img(img):
    """Preprocess an image as the lesson does: resize to 224 x 224, then byte / 255 * 2 - 1.

    Args:
        img: uint8 BGR [height, width, 3] of any size, as `read_image` returns it.

    Returns:
        float32 BGR [3, 224, 224] in -1..1.

    Raises:
        ValueError: The image has another dtype than uint8.
    """
    return normalize(resize(img))


def resize(img, size=IMAGE_SIZE):
    """Resize bilinearly, whatever the proportions: uint8 [height, width, 3] -> uint8 [size, size, 3]."""
    return cv2.resize(img, (size, size))


def pixel_lut(pixel_range):
    """Return the lesson's formula for a range (low, high) as a table of all 256 bytes: float32 [1, 256].

    Looking the bytes up gives the same bits as computing them, in half the time.
    """
    low, high = pixel_range
    return (np.arange(256).astype("float32") / 255.0 * (high - low) + low).reshape(1, 256)


DEFAULT_LUT = pixel_lut(PIXEL_RANGE)


def normalize(img, out=None, lut=DEFAULT_LUT):
    """Convert uint8 [height, width, 3] to float32 [3, height, width], by default in -1..1; into `out` if given."""
    if img.dtype != np.uint8:
        raise ValueError(f"an image of uint8 is expected, this one is of {img.dtype}")
    if out is None:
        out = np.empty((img.shape[2], *img.shape[:2]), "float32")
    for plane, normalized in zip(cv2.split(img), out):
        cv2.LUT(plane, lut, dst=normalized)
    return out
