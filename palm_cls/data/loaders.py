"""The lesson's loaders: generators of (images, labels) in batches, ready for the network.

    loader = data_loader("PALM-Training400/PALM-Training400", batch_size=10, mode="train")
    for epoch in range(5):
        for imgs, labels in loader():      # float32 [N, 3, 224, 224], float32 [N, 1]
            ...

Python's `random` shuffles, each epoch on top of the last, as in the lesson: after `random.seed(0)` the order repeats.
Every value is what the lesson's reader gives, bit for bit; threads and a cache on disk make it fast
(`palm_cls.data.prefetch`).
"""

import hashlib
import os
from pathlib import Path

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import require_directory
from palm_cls.data.base_loader import BaseLoader
from palm_cls.data.images import normalize, pixel_lut, read_image, resize
from palm_cls.data.labels import LABEL_BY_PREFIX
from palm_cls.data.palm import image_names, labelled_images, workbook_difference
from palm_cls.data.prefetch import drop_unreadable, load_batches

MODES = ("train", "valid", "eval")


class ImageLoader(BaseLoader):
    """A loader of image files, decoded by threads.

    Args:
        directory: Directory of the images.
        samples: [(path, label), ...] with different names.
        batch_size: Images per batch.
        mode: "train" shuffles before each epoch; "valid" and "eval" do not.
        cache: Whether to keep the resized images on disk.
    """

    def __init__(self, directory, samples, batch_size, mode, cache=True):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        super().__init__(samples, batch_size, shuffle=mode == "train")
        self.directory, self.mode, self.cache = directory, mode, cache
        self.augmentations = {}  # by name, made when first needed

    def iter_from(self, batch):
        yield from load_batches(self, self._shards(batch))

    def name_of(self, sample):
        return os.path.relpath(sample[0], self.directory)  # a table may list images of several folders

    @property
    def labels(self):
        return [label for _, label in self.samples]

    @property
    def fingerprint(self):
        """sha256 of the names, labels and sizes in bytes of the images, whatever their order."""
        lines = sorted(f"{path.name},{label},{path.stat().st_size}\n" for path, label in self.samples)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()  # any name of a file

    def load_image(self, name):
        """Return the image of that name as it is on the disk: uint8 BGR [height, width, 3]."""
        return read_image(Path(self.directory, name))

    def load_input(self, name):
        """Return the image of that name as the network takes it: float32 [3, 224, 224]."""
        return normalize(resize(self.load_image(name)), lut=pixel_lut(self.pixel_range))


def data_loader(datadir, batch_size=10, mode="train", skip_bad=False, cache=True):
    """Load the images of a directory whose file names contain the label: H.., N.. -> 0, P.. -> 1.

    Args:
        datadir: Directory of the images; they come in the order of their sorted names.
        batch_size: Images per batch; the last batch may be smaller.
        mode: "train" shuffles before each epoch; "valid" and "eval" do not.
        skip_bad: Whether to leave out, with a notice, empty files and images that cannot be decoded; training only.
        cache: Whether to keep the resized images on disk.

    Returns:
        An ImageLoader; each call of it yields an epoch of (imgs float32 [N, 3, 224, 224] in -1..1, labels float32
        [N, 1]).

    Raises:
        InputError: The directory is missing, a name begins with another letter, a file is empty, or, in the epoch, an
            image cannot be decoded.
        ValueError: There is no such mode.
    """
    samples = [(Path(datadir, name), _label_of(datadir, name)) for name in image_names(datadir)]
    return _checked(ImageLoader(datadir, samples, batch_size, mode, cache), skip_bad)


def _label_of(datadir, name):
    if name[0] not in LABEL_BY_PREFIX:
        raise InputError(
            f"{Path(datadir, name)}: the label is the first letter of the name, H, N or P, and this is none of them; "
            "rename the file, or give the labels in a table (--train-csv)"
        )
    return LABEL_BY_PREFIX[name[0]]


def valid_data_loader(datadir, csvfile, batch_size=10, mode="valid", skip_bad=False, cache=True):
    """Load the images of a directory that a table of labels lists.

    Args:
        datadir: Directory of the images.
        csvfile: The table: labels.csv, or the .xlsx that it is made from; its order is that of the images.
        batch_size, mode, skip_bad, cache: As for `data_loader`.

    Returns:
        An ImageLoader, as `data_loader` returns it.

    Raises:
        InputError: The table is faulty, an image that it lists is missing or empty, or, in the epoch, an image cannot
            be decoded.
        ValueError: There is no such mode.
    """
    require_directory(datadir, f"the images that {csvfile} lists")
    rows = labelled_images(datadir, csvfile)
    for path, row in rows.items():
        if not os.path.isfile(path):
            raise InputError(f"{shorten(path)}: no such image; it is listed in {csvfile}, row {row.row}")
    if difference := workbook_difference(csvfile):
        log_once(f"{csvfile} {difference}")
    samples = [(path, row.label) for path, row in rows.items()]
    return _checked(ImageLoader(datadir, samples, batch_size, mode, cache), skip_bad)


def _checked(loader, skip_bad):
    if skip_bad:
        drop_unreadable(loader)
    for path, _ in loader.samples:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty (0 bytes); replace the file or remove it")
    return loader
