"""Decoding image files, and the lesson's `transform_img`."""

import os

MOST_PIXELS = 100_000_000  # fundus cameras give up to 50 million; a header of 100 bytes can claim any number
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))  # cv2 reads it when imported, and allowed 2**30

import cv2
import numpy as np

from palm_cls.messages import InputError

MOST_SCANS = 1000  # of one JPEG; progressive ones have about 10, and a few bytes for each cost a pass over all pixels
IMAGE_SIZE = 224  # pixels, height and width that the lesson's networks take


def read_image(path):
    """Decode an image file to uint8 BGR [height, width, 3], as `cv2.imread` does.

    Unlike it, works with any path on Windows too, and raises InputError for what is missing or does not decode.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    try:
        img = cv2.imdecode(content, cv2.IMREAD_COLOR) if _is_decodable(content) else None
    except cv2.error:  # a header that claims more pixels than allowed
        img = None
    if img is None:
        raise InputError(f"{path}: not an image that can be decoded; replace the file or remove it")
    return img


def _is_decodable(content):
    is_jpeg = content[:2].tobytes() == b"\xff\xd8"
    return content.size and not (is_jpeg and content.tobytes().count(b"\xff\xda") > MOST_SCANS)


def transform_img(img):
    """The lesson's preprocessing: uint8 BGR [height, width, 3] -> float32 BGR [3, 224, 224] in -1..1."""
    img = cv2.resize(img, (IMAGE_SIZE, IMAGE_SIZE))
    img = np.transpose(img, (2, 0, 1))
    img = img.astype("float32")
    img = img / 255.0
    return img * 2.0 - 1.0
