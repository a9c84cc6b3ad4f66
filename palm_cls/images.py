"""Decoding image files, and the lesson's `transform_img`."""

import re
from pathlib import Path

import cv2
import numpy as np

from palm_cls import machine
from palm_cls.messages import InputError, is_out_of_memory

machine.keep_freed_memory()  # a decoded photograph takes 13 MB, and the next one takes the same

MOST_SCANS = 1000  # of one JPEG; progressive ones have about 10, and a few bytes for each cost a pass over all pixels
IMAGE_SIZE = 224  # pixels, height and width that the lesson's networks take
PIXEL_RANGE = (-1.0, 1.0)  # what the bytes 0 and 255 become in the lesson
# What `transform_img` makes, as checkpoints tell it: height and width in pixels, order of the channels, range of values
INPUT = {"size": IMAGE_SIZE, "channels": "BGR", "range": list(PIXEL_RANGE)}
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how these files begin
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"  # markers of JPEG: the pixels follow; nothing follows
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # of a segment: ff 00, ff ff and ff d0..d7 are none


def read_image(path):
    """Decode an image file to uint8 BGR [height, width, 3], as `cv2.imread` does.

    Unlike it, works with any path on Windows too, and raises InputError for what is missing, truncated or does not
    decode.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    img = decode(content)
    if img is None:
        raise InputError(f"{path}: not an image that can be decoded{_reason(content)}; replace the file or remove it")
    return img


def _reason(content):
    if not content:
        return " (it is empty)"
    if is_truncated(content):
        return " (it is truncated)"
    if _has_absurd_scans(content):
        return f" (it has more than {MOST_SCANS:,} scans)"
    return f" (it has more than {machine.MOST_PIXELS:,} pixels)" if _claims_too_much(content) else ""


def _claims_too_much(content):
    try:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # told by the header, before a pixel is decoded
        return True
    return False


def decode(content):
    """The content of an image file (bytes) as uint8 BGR [height, width, 3]; None for what is truncated or no image.

    Of a truncated JPEG `cv2.imdecode` makes nothing in OpenCV 4.11 and 5.0, and a picture with leftovers in 4.5 to 4.8.
    """
    if not content or is_truncated(content) or _has_absurd_scans(content):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # a header that claims more pixels than OpenCV allows
        if is_out_of_memory(error):  # which says nothing about the image
            raise MemoryError(str(error)) from error
        return None


def is_truncated(content):
    """Whether `content` (bytes) begins like a JPEG or PNG file and breaks off before its end.

    Bytes after the end, which some cameras write, are no fault; the end of a thumbnail within a JPEG is not its own.
    """
    if content.startswith(JPEG):
        scan = jpeg_segments(content).get(START_OF_SCAN)
        return scan is None or content.find(END_OF_IMAGE, scan) < 0
    return content.startswith(PNG) and not _png_is_whole(content)


def _has_absurd_scans(content):
    return content.startswith(JPEG) and content.count(b"\xff\xda") > MOST_SCANS


def jpeg_segments(content):
    """{marker: position after it} of a JPEG's segments, up to the first scan; what lies within a segment is passed."""
    segments, position = {}, 2
    while START_OF_SCAN not in segments and (found := _MARKER.search(content, position)):
        start = found.end()
        segments[found[1][0]] = start
        position = start + int.from_bytes(content[start : start + 2], "big")
    return segments


def _png_is_whole(content):
    position = len(PNG)
    while position + 12 <= len(content):  # a chunk: 4 bytes of length, 4 of name, its data, 4 of checksum
        if content[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return False


def transform_img(img):
    """The lesson's preprocessing: uint8 BGR [height, width, 3] -> float32 BGR [3, 224, 224] in -1..1.

    img: as `read_image` gives it, of any size; resized (bilinear, whatever its proportions), then byte / 255 * 2 - 1.
    Raises ValueError for images of other types than uint8.
    """
    return scale(resize(img))


def resize(img, side=IMAGE_SIZE):
    """uint8 BGR [height, width, 3] -> uint8 BGR [side, side, 3], bilinear."""
    return cv2.resize(img, (side, side))


def scale_table(pixel_range):
    """What each byte becomes in a range (low, high): float32 [1, 256]; in -1..1 by the lesson's formula, bit for bit.

    A byte has only 256 values: looking them up gives the same bits as computing them, in half the time.
    """
    low, high = pixel_range
    return (np.arange(256).astype("float32") / 255.0 * (high - low) + low).reshape(1, 256)


SCALED = scale_table(PIXEL_RANGE)


def scale(img, out=None, table=SCALED):
    """uint8 [height, width, 3] -> float32 [3, height, width] in -1..1, the lesson's formula; written to `out` if given.

    table: a `scale_table` for another range. Raises ValueError for images of other types.
    """
    if img.dtype != np.uint8:
        raise ValueError(f"an image of uint8 is expected, this one is of {img.dtype}")
    if out is None:
        out = np.empty((img.shape[2], *img.shape[:2]), "float32")
    for plane, scaled in zip(cv2.split(img), out):
        cv2.LUT(plane, table, dst=scaled)
    return out


def scale_grey(pixels, table):
    """uint8 [N, height, width] -> float32 [N, 1, height, width] by a `scale_table`."""
    count, height, width = pixels.shape
    return cv2.LUT(pixels.reshape(count * height, width), table).reshape(count, 1, height, width)
