"""The lesson's preprocessing: from an image file to the array that the network takes.

img = read_image("PALM-Training400/PALM-Training400/P0001.jpg")  # uint8 BGR [height, width, 3]
transform_img(img)                                              # float32 BGR [3, 224, 224] in -1..1
"""

from pathlib import Path

import cv2
import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.data.decode import DecodeError, decode

IMAGE_SIZE = 224  # pixels, height and width of the network's input
PIXEL_RANGE = (-1.0, 1.0)  # the values of the bytes 0 and 255
INPUT_SPEC = {"size": IMAGE_SIZE, "channels": "BGR", "range": list(PIXEL_RANGE)}  # stored with the weights


def read_image(path):
    """Read an image file as `cv2.imread` does, but refuse a damaged one.

    Args:
        path: of a JPEG or PNG file, or of another format that OpenCV decodes.

    Returns:
        uint8 BGR [height, width, 3], see `palm_cls.data.decode.decode`.

    Raises:
        InputError: The file is missing, or is not an image that can be decoded.
    """
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from None


def transform_img(img, size=IMAGE_SIZE):
    """Resize to 224 x 224 pixels and normalize to -1..1, as the lesson does.

    Args:
        img: uint8 BGR [height, width, 3], of any size and proportions.
        size: pixels of the network's input, see `shrink`.

    Returns:
        float32 BGR [3, size, size] in -1..1.

    Raises:
        ValueError: The image is of another type than uint8.
    """
    return normalize(shrink(resize(img), size))


def resize(img, size=IMAGE_SIZE):
    """Resize bilinearly: uint8 BGR [height, width, 3] -> uint8 BGR [size, size, 3]."""
    return cv2.resize(img, (size, size))


def shrink(img, size):
    """Resize a square image again, for a network whose input is smaller; one of that size stays as it is."""
    return img if len(img) == size else resize(img, size)


def pixel_lut(pixel_range):
    """Tabulate byte / 255 * (high - low) + low, the lesson's formula: float32 [1, 256].

    A lookup gives the same bits as computing them, in half the time.
    """
    low, high = pixel_range
    return (np.arange(256).astype("float32") / 255.0 * (high - low) + low).reshape(1, 256)


DEFAULT_LUT = pixel_lut(PIXEL_RANGE)


def normalize(img, out=None, table=DEFAULT_LUT):
    """Normalize pixels, channels first: uint8 [height, width, 3] -> float32 [3, height, width].

    Writes to `out` if given. `table` is a `pixel_lut`. Raises ValueError for images of other types.
    """
    if img.dtype != np.uint8:
        raise ValueError(f"the image is of {img.dtype}; expected uint8")
    if out is None:
        out = np.empty((img.shape[2], *img.shape[:2]), "float32")
    for plane, normalized in zip(cv2.split(img), out):
        cv2.LUT(plane, table, dst=normalized)
    return out
