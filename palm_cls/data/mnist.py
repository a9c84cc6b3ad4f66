"""MNIST and Fashion-MNIST: where their four files lie, what is in them, and how they are fetched.

    images, labels = find_mnist("mnist").read("train")      # uint8 [60000, 28, 28], int64 [60000, 1]

The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each
as it is or gzipped (.gz). They are read here and not by paddle.vision.datasets.MNIST, which (in 2.6.2 and 3.3.1) reads
gzipped files only, looks at no magic number and no size, and ends in a struct.error for a file that is cut off or whose
number of images is no multiple of 100. Where they can be fetched, and their checksums, are taken from it.

Imports neither cv2 nor, unless files are fetched, paddle.
"""

import gzip
import zlib
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.core.files import fetch, require_directory
from palm_cls.data import palm

SIDE = 28  # pixels, height and width
PARTS = {"train": "train", "test": "t10k"}  # how the names of their files begin
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"  # how they go on
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # the first four bytes: of uint8, with three axes, with one
MOST_IMAGES = 500_000  # a gzipped file of 400 kB could claim, and hold, any number

# title: its name for people; source: class in paddle.vision.datasets; classes: names of the labels 0 to 9
Kind = namedtuple("Kind", ("title", "source", "classes"))
VARIANTS = {
    "mnist": Kind("MNIST", "MNIST", list("0123456789")),
    "fashion-mnist": Kind(
        "Fashion-MNIST",
        "FashionMNIST",
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
    ),
}


@dataclass(frozen=True)
class MnistDataset:
    """The files of `kind`, a key of VARIANTS, in the directory `root`."""

    kind: str
    root: Path
    is_demo = False
    disclaimer = ""  # beside results, as a `palm_cls.data.palm.Dataset` has one

    @property
    def classes(self):
        """Names of the labels, a list of ten str."""
        return VARIANTS[self.kind].classes

    def read(self, part):
        """The images, uint8 [N, 28, 28], 0 background, and labels, int64 [N, 1], of part "train" or "test".

        In the order of the files. Raises InputError, naming the file, for one that is missing, damaged or not of this
        kind, for labels above 9, and for another number of labels than of images.
        """
        images_file, labels_file = (self._file(f"{PARTS[part]}-{what}") for what in (IMAGES, LABELS))
        images, labels = read_idx_images(images_file), read_idx_labels(labels_file)
        if len(images) != len(labels):
            raise InputError(
                f"{labels_file}: {len(labels)} labels, but {images_file.name} has {len(images)} images; "
                "the two do not belong together"
            )
        return images, labels.astype("int64").reshape(-1, 1)

    @property
    def missing(self):
        """Names, without .gz, of those of the four files that are not there."""
        names = [f"{part}-{what}" for part in PARTS.values() for what in (IMAGES, LABELS)]
        return [name for name in names if not self._file(name).is_file()]

    def _file(self, name):
        plain = self.root / name
        return plain if plain.is_file() else self.root / f"{name}.gz"


def find_mnist(kind, directory=None, download=False):
    """The MnistDataset of `kind` ("mnist" or "fashion-mnist") in `directory`, else in data/mnist or data/fashion-mnist.

    download: fetch the files that are missing there. Raises InputError where files are missing and not to be fetched,
    RunError where they cannot be.
    """
    found = MnistDataset(kind, Path(directory) if directory else palm.PROJECT / "data" / kind)
    if found.root.exists():
        require_directory(found.root, f"that of {VARIANTS[kind].title}")
    missing = found.missing
    if missing and download:
        _fetch(found, missing)
    elif missing:
        raise InputError(
            f"{found.root}: {missing[0]} is not there, nor is it with .gz ({len(missing)} of the four files of "
            f"{VARIANTS[kind].title} are missing)\n"
            "Put them there, or say where they are with --data DIR, or have them fetched with --download."
        )
    return found


def read_idx_images(path):
    """The images of an idx file, gzipped or not: uint8 [N, 28, 28], read-only. Raises InputError for what is none."""
    return _read_idx(path, IMAGES_MAGIC, (SIDE, SIDE), "images")


def read_idx_labels(path):
    """The labels of an idx file, gzipped or not: uint8 [N], 0 to 9, read-only. Raises InputError for what is none."""
    labels = _read_idx(path, LABELS_MAGIC, (), "labels")
    if labels.max() > 9:
        at = int(labels.argmax())
        raise InputError(f"{path}: label {labels[at]} of image {at}; expected 0 to 9")
    return labels


def _read_idx(path, magic, shape, what):
    """The entries, uint8 [N, *shape], of an idx file that holds `what`."""
    try:
        with _open(path) as file:
            header = file.read(4 * (2 + len(shape)))
            count = _count(path, np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist(), magic, shape, what)
            size = count * int(np.prod(shape))
            # One byte more than there should be: so a longer file shows, and a gzipped one is read to its checksum.
            content = file.read(size + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged ({error}); replace it, or delete it and have it fetched again") from None
    if len(content) < size:
        raise InputError(f"{path}: truncated: {count} {what} are {size} bytes, and {len(content)} are there")
    if len(content) > size:
        raise InputError(f"{path}: goes on after the {count} {what} that its header tells of; replace it")
    return np.frombuffer(content, "uint8").reshape(count, *shape)


def _open(path):
    """A file to read from, unzipped while reading where it is gzipped, whatever its name."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if gzipped else open(path, "rb")


def _count(path, header, magic, shape, what):
    """The number of entries that a header, a list of int, tells of, if it is that of an idx file of `what`."""
    if header[:1] != [magic]:
        raise InputError(f"{path}: not an idx file of {what}: it does not begin with the number {magic}; replace it")
    if len(header) < 2 + len(shape):
        raise InputError(f"{path}: truncated: it ends within its header")
    if tuple(header[2:]) != shape:
        raise InputError(f"{path}: {what} of {' x '.join(map(str, header[2:]))} pixels; expected {SIDE} x {SIDE}")
    if not 1 <= header[1] <= MOST_IMAGES:
        raise InputError(f"{path}: its header tells of {header[1]} {what}; expected 1 to {MOST_IMAGES}")
    return header[1]


def _fetch(digits, names):
    from paddle.vision import datasets

    source = getattr(datasets, VARIANTS[digits.kind].source)
    for name in names:
        which = ("TRAIN" if name.startswith("train") else "TEST") + ("_IMAGE" if name.endswith(IMAGES) else "_LABEL")
        fetch(getattr(source, f"{which}_URL"), getattr(source, f"{which}_MD5"), digits.root / f"{name}.gz")
