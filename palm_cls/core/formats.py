"""Recognise a file's format by its first bytes, for messages about files of a wrong format."""

import re

HEAD_SIZE = 512  # bytes at the beginning of a file that `detect_format` needs
EMPTY = "an empty file"
ZIP = "a zip archive"
SPLIT_ZIP = "a part of a split zip archive"
PROGRAM = "a program for Paddle Inference"
PROGRAM_PARAMETERS = "the parameters of a program for Paddle Inference"
WEIGHTS_OF_EXPORT = "give the weights that it was exported from"
ACTIONS = {  # what to do, if the format alone decides that
    EMPTY: "copy or download it again",
    "a web page": "download the file itself",
    "a Git LFS pointer": "fetch the file itself: git lfs pull",
    SPLIT_ZIP: "join its parts into one zip first (zip -s 0 PART --out WHOLE, or 7-Zip)",
    PROGRAM: WEIGHTS_OF_EXPORT,
    PROGRAM_PARAMETERS: WEIGHTS_OF_EXPORT,
    "a file of torch.save": "in torch, write its state_dict with safetensors.torch.save_file (for alexnet-torchvision)",
}
_FORMATS = (
    (rb"\Z", EMPTY),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", "a web page"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
    (rb"PK\x03\x04.{26}[^/]+/(data\.pkl|\.format_version)", "a file of torch.save"),
    (rb"\x80.\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a file of torch.save"),  # before torch 1.6
    (rb"PK\x03\x04|PK\x05\x06", ZIP),
    (rb"PK\x07\x08", SPLIT_ZIP),
    (rb"Rar!", "a RAR archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"\x1f\x8b", "a gzip file (.tar.gz, .gz)"),
    (rb"BZh[1-9]", "a bzip2 file (.tar.bz2)"),
    (rb"\xfd7zXZ\0", "an xz file (.tar.xz)"),
    (rb".{257}ustar", "a tar archive"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\xff\xd8\xff|\x89PNG", "an image"),
    (rb'\{"base_code"', PROGRAM),  # of PaddlePaddle 3
    (rb"\n[\x80-\xff]*[\0-\x7f]\x08\0\x10\xff{9}\x01", PROGRAM),  # before
    (rb"\0{16}.\0\0\0\x08.\x10", PROGRAM_PARAMETERS),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _FORMATS)


def detect_format(head):
    """Name the format of a file by its first HEAD_SIZE bytes `head` (bytes), in words; None if it is none of these."""
    return next((name for pattern, name in _PATTERNS if pattern.match(head)), None)
