"""MNIST and Fashion-MNIST: find, read and download their four files.

    images, labels = find_mnist("mnist").read("train")      # uint8 [60000, 28, 28], int64 [60000, 1]

The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each
plain or gzipped (.gz). paddle.vision.datasets.MNIST is used for the addresses and checksums only: it (in 2.6.2 and
3.3.1) reads gzipped files only, checks no magic number and no size, and raises struct.error for a file that is cut off
or whose number of images is no multiple of 100.

Imports neither cv2 nor, unless files are downloaded, paddle.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.core.files import download_file, require_directory
from palm_cls.data import palm

IMAGE_SIZE = 28  # pixels, height and width
SPLITS = {"train": "train", "test": "t10k"}  # first parts of the file names
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"  # second parts
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # the first four bytes: of uint8, with three axes, with one
MAX_IMAGES = 500_000  # a gzipped file of 400 kB could claim, and hold, any number


@dataclass(frozen=True)
class Variant:
    """A data set in MNIST's format."""

    title: str
    source: str  # class in paddle.vision.datasets
    classes: list  # names of the labels 0 to 9


VARIANTS = {
    "mnist": Variant("MNIST", "MNIST", list("0123456789")),
    "fashion-mnist": Variant(
        "Fashion-MNIST",
        "FashionMNIST",
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
    ),
}


@dataclass(frozen=True)
class MnistDataset:
    """The four files of a data set in MNIST's format.

    Args:
        name: "mnist" or "fashion-mnist".
        root: their directory.
    """

    name: str
    root: Path
    is_demo = False
    disclaimer = ""  # as of a `palm_cls.data.palm.Dataset`

    @property
    def classes(self):
        """Names of the labels, a list of ten str."""
        return VARIANTS[self.name].classes

    def read(self, split):
        """Read a split, "train" or "test", in the order of its files.

        Returns:
            images, uint8 [N, 28, 28], 0 background; labels, int64 [N, 1], 0 to 9.

        Raises:
            InputError: A file is missing, damaged or of another format, or the numbers of images and labels differ.
        """
        images_file, labels_file = (self._file(f"{SPLITS[split]}-{what}") for what in (IMAGES, LABELS))
        images, labels = read_idx_images(images_file), read_idx_labels(labels_file)
        if len(images) != len(labels):
            raise InputError(
                f"{labels_file}: {len(labels)} labels, but {images_file.name} has {len(images)} images; "
                "the two do not belong together"
            )
        return images, labels.astype("int64").reshape(-1, 1)

    @property
    def missing(self):
        """Names, without .gz, of the missing files."""
        names = [f"{prefix}-{what}" for prefix in SPLITS.values() for what in (IMAGES, LABELS)]
        return [name for name in names if not self._file(name).is_file()]

    def _file(self, name):
        plain = self.root / name
        return plain if plain.is_file() else self.root / f"{name}.gz"


def find_mnist(name, directory=None, download=False):
    """Find the files of MNIST or Fashion-MNIST.

    Args:
        name: "mnist" or "fashion-mnist".
        directory: of the files; default: data/mnist or data/fashion-mnist in the project.
        download: fetch the files that are missing.

    Returns:
        A MnistDataset.

    Raises:
        InputError: Files are missing, and `download` is not set.
        RunError: A download fails.
    """
    dataset = MnistDataset(name, Path(directory) if directory else palm.PROJECT / "data" / name)
    if dataset.root.exists():
        require_directory(dataset.root, f"that of {VARIANTS[name].title}")
    missing = dataset.missing
    if missing and download:
        _fetch(dataset, missing)
    elif missing:
        raise InputError(
            f"{dataset.root}: {missing[0]} is missing, with and without .gz ({len(missing)} of the four files of "
            f"{VARIANTS[name].title} are missing)\n"
            "Put them there, or name their directory with --data DIR, or fetch them with --download."
        )
    return dataset


def read_idx_images(path):
    """Read images of an idx file, gzipped or not: uint8 [N, 28, 28], read-only."""
    return _read_idx(path, IMAGES_MAGIC, (IMAGE_SIZE, IMAGE_SIZE), "images")


def read_idx_labels(path):
    """Read labels of an idx file, gzipped or not: uint8 [N], 0 to 9, read-only."""
    labels = _read_idx(path, LABELS_MAGIC, (), "labels")
    if labels.max() > 9:
        at = int(labels.argmax())
        raise InputError(f"{path}: label {labels[at]} of image {at}; expected 0 to 9")
    return labels


def _read_idx(path, magic, shape, what):
    """Read the entries of an idx file of `what`: uint8 [N, *shape]."""
    try:
        with _open(path) as file:
            header = file.read(4 * (2 + len(shape)))
            count = _count(path, np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist(), magic, shape, what)
            size = count * int(np.prod(shape))
            # One byte more, so that a longer file is found, and a gzipped one is read to its checksum.
            content = file.read(size + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged ({error}); replace it, or delete it and have it fetched again") from None
    if len(content) < size:
        raise InputError(f"{path}: truncated: {count} {what} are {size} bytes, the file has {len(content)}; replace it")
    if len(content) > size:
        raise InputError(f"{path}: longer than the {count} {what} of its header; replace it")
    return np.frombuffer(content, "uint8").reshape(count, *shape)


def _open(path):
    """Open a file for reading, unzipped if it is gzipped, whatever its name."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if gzipped else open(path, "rb")


def _count(path, header, magic, shape, what):
    """Return the number of entries in a header, a list of int, of an idx file of `what`."""
    if header[:1] != [magic]:
        raise InputError(f"{path}: not an idx file of {what}: it does not begin with the number {magic}; replace it")
    if len(header) < 2 + len(shape):
        raise InputError(f"{path}: truncated: it ends within its header")
    if tuple(header[2:]) != shape:
        raise InputError(
            f"{path}: {what} of {' x '.join(map(str, header[2:]))} pixels; expected {IMAGE_SIZE} x {IMAGE_SIZE}"
        )
    if not 1 <= header[1] <= MAX_IMAGES:
        raise InputError(f"{path}: its header gives {header[1]} {what}; expected 1 to {MAX_IMAGES}")
    return header[1]


def _fetch(dataset, names):
    from paddle.vision import datasets

    source = getattr(datasets, VARIANTS[dataset.name].source)
    for name in names:
        which = ("TRAIN" if name.startswith("train") else "TEST") + ("_IMAGE" if name.endswith(IMAGES) else "_LABEL")
        download_file(getattr(source, f"{which}_URL"), getattr(source, f"{which}_MD5"), dataset.root / f"{name}.gz")
