"""Decoding image files, and the lesson's `transform_img`."""

import re
from pathlib import Path

import cv2
import numpy as np

from palm_cls.core import environment
from palm_cls.core.errors import InputError, is_out_of_memory
from palm_cls.data import libjpeg

environment.keep_freed_memory()  # a decoded photograph takes 13 MB, and the next one takes the same

MOST_SCANS = 1000  # of one JPEG; progressive ones have about 10, and a few bytes for each cost a pass over all pixels
IMAGE_SIZE = 224  # pixels, height and width that the lesson's networks take
PIXEL_RANGE = (-1.0, 1.0)  # what the bytes 0 and 255 become in the lesson
# What `transform_img` makes, as checkpoints tell it: height and width in pixels, order of the channels, range of values
INPUT_SPEC = {"size": IMAGE_SIZE, "channels": "BGR", "range": list(PIXEL_RANGE)}
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how these files begin
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"
PALETTE, GREY_ALPHA, COLOUR_ALPHA = 3, 4, 6  # kinds of PNG, in its header
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"  # markers of JPEG: the pixels follow; nothing follows
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # of a segment: ff 00, ff ff and ff d0..d7 are none


class DecodeError(ValueError):
    """What the content of a file cannot be used for, said so that it reads on after the file's name.

    kind: as in `palm_cls.data.checks.ISSUE_TYPES`; reason: what is wrong, or "".
    """

    def __init__(self, reason="", kind="damaged"):
        self.kind, self.reason = kind, reason
        super().__init__(
            f"{reason}, and only images of 8 are read; save it as PNG or JPEG of 8 bits"
            if kind == "depth"
            else f"not an image that can be decoded{reason and f' ({reason})'}; replace the file or remove it"
        )


def read_image(path):
    """Decode an image file to uint8 BGR [height, width, 3], see `decode`.

    Unlike `cv2.imread`, works with any path on Windows too, and raises InputError, which names the file, for what is
    missing or cannot be decoded.
    """
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from None


def decode(content):
    """The content of an image file (bytes) as uint8 BGR [height, width, 3]; raises DecodeError where there is none.

    - Ordinary images, of 8 bits and opaque, are what `cv2.imread` makes of them, byte for byte: turned as EXIF says,
      grey as three equal channels, CMYK as inverted (Adobe's way), without regard to colour profiles and gamma.
    - Transparent pixels become black, as the background of fundus photographs: colour times alpha. `cv2.imread` shows
      the colours that are hidden there.
    - More than 8 bits, and floating point, are refused. Which value is white is not told by the file (12 bits in a PNG
      of 16 are the usual case, and nearly black), and whoever saved it knows.
    - What is truncated or damaged is refused: any JPEG of which libjpeg warns, too, where `cv2.imread` gives a picture
      that is grey, or shifted, from the damage on.
    """
    if not content:
        raise DecodeError("it is empty", "empty")
    if is_truncated(content):
        raise DecodeError("it is truncated", "truncated")
    if content.startswith(JPEG):
        return _decode_jpeg(content)
    return _decode_png(content) if content.startswith(PNG) else _decode_other(content)


def _decode_jpeg(content):
    if content.count(b"\xff\xda") > MOST_SCANS:
        raise DecodeError(f"it has more than {MOST_SCANS:,} scans")
    writes = libjpeg.count_writes()
    img = _imdecode(content)
    if writes is None or writes != libjpeg.count_writes():  # perhaps of a warning
        warning = libjpeg.warning(content)
        if warning:
            raise DecodeError(warning[0].lower() + warning[1:])
    return img


def _decode_png(content):
    header = _png_chunk(content, b"IHDR") or b""
    if len(header) != 13:
        raise DecodeError
    bits, colours = header[8:10]
    if bits > 8:
        raise DecodeError(f"{bits} bits per channel", "depth")
    img, transparent = _imdecode(content), _png_chunk(content, b"tRNS")
    if colours in (GREY_ALPHA, COLOUR_ALPHA) or (colours == PALETTE and transparent):
        return _over_black(img, _imdecode(content, cv2.IMREAD_UNCHANGED))
    if len(transparent or b"") in (2, 6):  # one colour, 16 bits a channel
        colour = np.frombuffer(transparent, ">u2")[::-1].astype(int)
        img[(img == colour * (255 // (2**bits - 1))).all(axis=2)] = 0
    return img


def _decode_other(content):
    """TIFF, WebP, BMP and what else OpenCV decodes, whatever the name of the file."""
    whole = _imdecode(content, cv2.IMREAD_UNCHANGED)
    if whole.dtype != np.uint8:
        raise DecodeError(f"{8 * whole.dtype.itemsize} bits per channel", "depth")
    img = _imdecode(content)
    if not content.startswith(TIFF):
        return _over_black(img, whole)
    if _tiff_channels(content) == 2:  # of grey with alpha OpenCV reads the grey; of colour, libtiff has used the alpha
        raise DecodeError("a TIFF of grey with transparency")
    return img


def _tiff_channels(content):
    """Samples of a pixel, as the first directory of a TIFF (bytes) says; 1 where it does not."""
    order = "little" if content.startswith(b"II") else "big"
    start = int.from_bytes(content[4:8], order)
    end = start + 2 + 12 * int.from_bytes(content[start : start + 2], order)
    entries = (content[position : position + 12] for position in range(start + 2, end, 12))
    return next((int.from_bytes(e[8:10], order) for e in entries if int.from_bytes(e[:2], order) == 277), 1)


def _over_black(img, whole):
    """`img`, BGR, with the alpha of the same image as it is in the file, `whole`."""
    if whole.ndim < 3 or whole.shape[2] < 4 or whole[..., 3].min() == 255:
        return img
    if whole[..., 3].max() == 0:
        raise DecodeError("it is transparent all over")
    if not np.array_equal(img, whole[..., :3]):
        raise DecodeError("transparent and turned by its EXIF data")
    return ((whole[..., :3] * whole[..., 3:].astype("uint16") + 127) // 255).astype("uint8")


def _imdecode(content, flags=cv2.IMREAD_COLOR):
    try:
        img = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # told by the header, before a pixel is decoded
        if is_out_of_memory(error):  # which says nothing about the image
            raise MemoryError(str(error)) from error
        raise DecodeError(f"it has more than {environment.MOST_PIXELS:,} pixels") from None
    if img is None:
        raise DecodeError
    return img


def is_truncated(content):
    """Whether `content` (bytes) begins like a JPEG or PNG file and breaks off before its end.

    Bytes after the end, which some cameras write, are no fault; the end of a thumbnail within a JPEG is not its own.
    """
    if content.startswith(JPEG):
        scan = jpeg_segments(content).get(START_OF_SCAN)
        return scan is None or content.find(END_OF_IMAGE, scan) < 0
    return content.startswith(PNG) and _png_chunk(content, b"IEND") is None


def jpeg_segments(content):
    """{marker: position after it} of a JPEG's segments, up to the first scan; what lies within a segment is passed."""
    segments, position = {}, 2
    while START_OF_SCAN not in segments and (found := _MARKER.search(content, position)):
        start = found.end()
        segments[found[1][0]] = start
        position = start + int.from_bytes(content[start : start + 2], "big")
    return segments


def _png_chunk(content, name):
    """Data of the first chunk of that name in a PNG (bytes), which ends before IEND; None where there is none."""
    position = len(PNG)
    while position + 12 <= len(content):  # a chunk: 4 bytes of length, 4 of name, its data, 4 of checksum
        length, found = int.from_bytes(content[position : position + 4], "big"), content[position + 4 : position + 8]
        if found == name:
            return content[position + 8 : position + 8 + length]
        if found == b"IEND":
            return None
        position += 12 + length
    return None


def transform_img(img):
    """The lesson's preprocessing: uint8 BGR [height, width, 3] -> float32 BGR [3, 224, 224] in -1..1.

    img: as `read_image` gives it, of any size; resized (bilinear, whatever its proportions), then byte / 255 * 2 - 1.
    Raises ValueError for images of other types than uint8.
    """
    return normalize(resize(img))


def resize(img, side=IMAGE_SIZE):
    """uint8 BGR [height, width, 3] -> uint8 BGR [side, side, 3], bilinear."""
    return cv2.resize(img, (side, side))


def pixel_lut(pixel_range):
    """What each byte becomes in a range (low, high): float32 [1, 256]; in -1..1 by the lesson's formula, bit for bit.

    A byte has only 256 values: looking them up gives the same bits as computing them, in half the time.
    """
    low, high = pixel_range
    return (np.arange(256).astype("float32") / 255.0 * (high - low) + low).reshape(1, 256)


DEFAULT_LUT = pixel_lut(PIXEL_RANGE)


def normalize(img, out=None, table=DEFAULT_LUT):
    """uint8 [height, width, 3] -> float32 [3, height, width] in -1..1, the lesson's formula; written to `out` if given.

    table: a `pixel_lut` for another range. Raises ValueError for images of other types.
    """
    if img.dtype != np.uint8:
        raise ValueError(f"an image of uint8 is expected, this one is of {img.dtype}")
    if out is None:
        out = np.empty((img.shape[2], *img.shape[:2]), "float32")
    for plane, scaled in zip(cv2.split(img), out):
        cv2.LUT(plane, table, dst=scaled)
    return out


def normalize_gray(pixels, table):
    """uint8 [N, height, width] -> float32 [N, 1, height, width] by a `pixel_lut`."""
    count, height, width = pixels.shape
    return cv2.LUT(pixels.reshape(count * height, width), table).reshape(count, 1, height, width)
