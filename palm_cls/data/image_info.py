"""Inspect one image file: format, channels, size, thumbnail, or the problem with it."""

import hashlib
import re
from dataclasses import dataclass

import cv2
import numpy as np

from palm_cls.data.decode import JPEG, PNG, DecodeError, decode, is_truncated, jpeg_segments

# the first bytes of files, as regular expressions
SIGNATURES = {
    "JPEG": JPEG,
    "PNG": PNG,
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{4}\0{4}",
    "TIFF": rb"II\*\0|MM\0\*",
    "WebP": rb"RIFF.{4}WEBP",
}
SIGNATURE_BYTES = 16
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the JPEG segments that store size and channels

THUMBNAIL = 32  # pixels
BLOCK = 1024  # images compared with all others at a time
BLANK = 1.0  # standard deviation of a thumbnail, in grey levels; the flattest of the real images has 18

# Two images are nearly identical if their thumbnails correlate above 1 - SIMILAR. Measured on the 600 images of the
# course's set at 224x224: of the pairs of different eyes the closest is 0.0133 from 1 (on 8000 images some 0.005 is to
# be expected, since that distance falls with about the fifth root of the number of pairs); copies are within 0.0008
# when rescaled by 0.9 and saved at JPEG quality 60, 0.0012 at quality 30, 0.0009 when brightened by a tenth, 0.0002
# against the originals of 1444 and 2124 pixels. The usual 64-bit hashes (DCT, differences) do not serve: fundus
# photographs are a bright disc on black, and different eyes have equal hashes.
SIMILAR = 0.003


@dataclass(frozen=True)
class ImageInfo:
    """The result of reading an image file; with a problem, only `detail` is set besides."""

    problem: str = None  # a key of `palm_cls.data.checks.ISSUE_TYPES`, or None
    detail: str = ""  # of the problem
    digest: bytes = None  # sha256 of the content
    format: str = None  # "JPEG", "PNG", ... or "unknown"
    channels: str = None  # "colour", "grey", "CMYK", ... or "unknown"
    size: tuple = None  # (width, height)
    thumbnail: np.ndarray = None  # uint8 [THUMBNAIL, THUMBNAIL], grey

    @property
    def is_blank(self):
        """Whether the image is of one colour."""
        return self.thumbnail.std() < BLANK

    @property
    def size_text(self):
        """The size as "WxH"."""
        return "{}x{}".format(*self.size)


def inspect_image(path):
    """Read and decode an image file: an ImageInfo."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return ImageInfo("unreadable", error.strerror)
    if not content:
        return ImageInfo("empty")
    format = detect_image_format(content)
    if is_truncated(content):
        return ImageInfo("truncated", f"{len(content)} bytes, and the end of the {format} is not among them")
    try:
        img = decode(content)
    except DecodeError as error:
        if format is None:
            return ImageInfo("not-an-image", f"begins with {content[:SIGNATURE_BYTES]!r}")
        return ImageInfo(error.kind, ": ".join(filter(None, (format, error.reason))))
    return ImageInfo(
        digest=hashlib.sha256(content).digest(),
        format=format or "unknown",
        channels=_channels(content, format),
        size=(img.shape[1], img.shape[0]),
        thumbnail=gray_thumbnail(img),
    )


def gray_thumbnail(img):
    """Shrink an image, uint8 BGR [height, width, 3], to compare it: uint8 [THUMBNAIL, THUMBNAIL]."""
    gray = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def detect_image_format(content):
    """Return the name in SIGNATURES that the first bytes of a file match, or None."""
    return next((name for name, start in SIGNATURES.items() if re.match(start, content, re.DOTALL)), None)


def _channels(content, format):
    """Return what the header of a decodable JPEG or PNG contains: "colour", "grey with alpha", "CMYK", ..."""
    if format == "JPEG":
        frame = next((start for marker, start in jpeg_segments(content).items() if marker in FRAMES), None)
        number = content[frame + 7] if frame else None
        return {1: "grey", 3: "colour", 4: "CMYK"}.get(number, "unknown")
    if format == "PNG":
        return {0: "grey", 4: "grey with alpha", 6: "colour with alpha"}.get(content[25], "colour")
    return "unknown"


def similar_groups(thumbnails):
    """Group nearly identical images; an image similar to one of a group belongs to it.

    Args:
        thumbnails: uint8 [N, height, width], none of one colour.

    Returns:
        Lists of two or more indices.
    """
    count = len(thumbnails)
    vectors = np.reshape(thumbnails, (count, -1)).astype("float32") if count else np.zeros((0, 1), "float32")
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group_of = np.arange(count)
    for start in range(0, count, BLOCK):
        similar = vectors[start : start + BLOCK] @ vectors[start:].T > 1 - SIMILAR  # [BLOCK, count - start]
        for row in np.flatnonzero(similar.sum(axis=1) > 1):
            joined = group_of[start + np.flatnonzero(similar[row])]
            group_of[np.isin(group_of, joined)] = joined.min()
    sizes = np.bincount(group_of, minlength=count)
    return [np.flatnonzero(group_of == group).tolist() for group in np.flatnonzero(sizes > 1)]
