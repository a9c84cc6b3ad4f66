"""Decode image files of unknown origin; find damage, transparency and more than 8 bits."""

import re

import cv2
import numpy as np

from palm_cls.core import environment
from palm_cls.core.errors import is_out_of_memory
from palm_cls.data import libjpeg

environment.tune_malloc()  # a decoded photograph takes 13 MB, and the next one takes the same

MAX_SCANS = 1000  # of one JPEG; progressive ones have about 10, and a few bytes for each cost a pass over all pixels
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # the first bytes of these files
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"
PALETTE, GRAY_ALPHA, COLOR_ALPHA = 3, 4, 6  # colour types of PNG
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"  # markers of JPEG: the pixels follow; nothing follows
_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # ff 00, ff ff and ff d0..d7 start no segment


class DecodeError(ValueError):
    """A file is no image that can be used; the message follows its name.

    Args:
        reason: what is wrong, or "".
        kind: a key of `palm_cls.data.checks.ISSUE_TYPES`.
    """

    def __init__(self, reason="", kind="damaged"):
        self.kind, self.reason = kind, reason
        super().__init__(
            f"{reason}, and only images of 8 are read; save it as PNG or JPEG of 8 bits"
            if kind == "depth"
            else f"not an image that can be decoded{reason and f' ({reason})'}; replace the file or remove it"
        )


def decode(content):
    """Decode the content of an image file to uint8 BGR [height, width, 3].

    Opaque images of 8 bits are as `cv2.imread` gives them, byte for byte: rotated by EXIF, grey as three equal
    channels, CMYK as inverted (Adobe's way), colour profiles and gamma ignored. Transparent pixels become black, the
    background of fundus photographs: colour times alpha (`cv2.imread` shows the hidden colours).

    More than 8 bits, and floating point, are refused: the file does not store which value is white. (12 bits in a PNG
    of 16 are the usual case, and nearly black.)

    Args:
        content: bytes of the file.

    Raises:
        DecodeError: The content is empty, truncated, damaged, of more than 8 bits, or no image. A JPEG is damaged if
            libjpeg warns; `cv2.imread` returns a picture that is grey, or shifted, from the damage on.
    """
    if not content:
        raise DecodeError("it is empty", "empty")
    if is_truncated(content):
        raise DecodeError("it is truncated", "truncated")
    if content.startswith(JPEG):
        return _decode_jpeg(content)
    return _decode_png(content) if content.startswith(PNG) else _decode_other(content)


def _decode_jpeg(content):
    if content.count(b"\xff\xda") > MAX_SCANS:
        raise DecodeError(f"it has more than {MAX_SCANS:,} scans")
    writes = libjpeg.count_writes()
    img = _imdecode(content)
    if writes is None or writes != libjpeg.count_writes():  # perhaps a warning
        warning = libjpeg.read_warning(content)
        if warning:
            raise DecodeError(warning[0].lower() + warning[1:])
    return img


def _decode_png(content):
    header = _png_chunk(content, b"IHDR") or b""
    if len(header) != 13:
        raise DecodeError
    bits, color_type = header[8:10]
    if bits > 8:
        raise DecodeError(f"{bits} bits per channel", "depth")
    img, transparent = _imdecode(content), _png_chunk(content, b"tRNS")
    if color_type in (GRAY_ALPHA, COLOR_ALPHA) or (color_type == PALETTE and transparent):
        return _over_black(img, _imdecode(content, cv2.IMREAD_UNCHANGED))
    if len(transparent or b"") in (2, 6):  # one transparent colour, 16 bits a channel
        color = np.frombuffer(transparent, ">u2")[::-1].astype(int)
        img[(img == color * (255 // (2**bits - 1))).all(axis=2)] = 0
    return img


def _decode_other(content):
    """Decode TIFF, WebP, BMP and what else OpenCV reads, whatever the name of the file."""
    whole = _imdecode(content, cv2.IMREAD_UNCHANGED)
    if whole.dtype != np.uint8:
        raise DecodeError(f"{8 * whole.dtype.itemsize} bits per channel", "depth")
    img = _imdecode(content)
    if not content.startswith(TIFF):
        return _over_black(img, whole)
    if _tiff_channels(content) == 2:  # OpenCV ignores this alpha; that of colour, libtiff has applied
        raise DecodeError("a TIFF of grey with transparency")
    return img


def _tiff_channels(content):
    """Read SamplesPerPixel (tag 277) from the first directory of a TIFF; 1 if absent."""
    order = "little" if content.startswith(b"II") else "big"
    start = int.from_bytes(content[4:8], order)
    end = start + 2 + 12 * int.from_bytes(content[start : start + 2], order)
    entries = (content[position : position + 12] for position in range(start + 2, end, 12))
    return next((int.from_bytes(e[8:10], order) for e in entries if int.from_bytes(e[:2], order) == 277), 1)


def _over_black(img, whole):
    """Apply the alpha of `whole`, the image as stored, to `img`, the same in BGR."""
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
    except cv2.error as error:  # raised by the header, before a pixel is decoded
        if is_out_of_memory(error):  # no fault of the image
            raise MemoryError(str(error)) from error
        raise DecodeError(f"it has more than {environment.MAX_PIXELS:,} pixels") from None
    if img is None:
        raise DecodeError
    return img


def is_truncated(content):
    """Return whether `content` (bytes) is a JPEG or PNG without its end.

    Bytes after the end, which some cameras write, are allowed. The end of a thumbnail within a JPEG does not count.
    """
    if content.startswith(JPEG):
        scan = jpeg_segments(content).get(START_OF_SCAN)
        return scan is None or content.find(END_OF_IMAGE, scan) < 0
    return content.startswith(PNG) and _png_chunk(content, b"IEND") is None


def jpeg_segments(content):
    """Return {marker: position after it} of a JPEG's segments, up to the first scan."""
    segments, position = {}, 2
    while START_OF_SCAN not in segments and (match := _SEGMENT.search(content, position)):
        start = match.end()
        segments[match[1][0]] = start
        position = start + int.from_bytes(content[start : start + 2], "big")
    return segments


def _png_chunk(content, name):
    """Return the data of the first chunk `name` of a PNG (bytes), or None."""
    position = len(PNG)
    while position + 12 <= len(content):  # a chunk: 4 bytes of length, 4 of name, its data, 4 of checksum
        length, chunk = int.from_bytes(content[position : position + 4], "big"), content[position + 4 : position + 8]
        if chunk == name:
            return content[position + 8 : position + 8 + length]
        if chunk == b"IEND":
            return None
        position += 12 + length
    return None
