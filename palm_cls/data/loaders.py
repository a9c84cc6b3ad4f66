"""The lesson's loaders: batches of images and labels, ready for the network.

    loader = data_loader("PALM-Training400/PALM-Training400", batch_size=10, mode="train")
    for epoch in range(5):
        for imgs, labels in loader():      # float32 [N, 3, 224, 224], float32 [N, 1]
            ...

Python's `random` shuffles, each epoch on top of the last, as in the lesson: after `random.seed(0)` the order repeats.
"""

import hashlib
import os
from pathlib import Path

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import require_directory
from palm_cls.data.base_loader import BaseLoader
from palm_cls.data.image_files import image_names, labelled_images
from palm_cls.data.images import IMAGE_SIZE, INPUT_SPEC, normalize, pixel_lut, read_image, resize, shrink
from palm_cls.data.labels import CLASSES, label_from_name
from palm_cls.data.palm import workbook_difference
from palm_cls.data.pipeline import check_images, open_pipeline
from palm_cls.data.prefetch import prefetch

MODES = ("train", "valid", "eval")


def data_loader(datadir, batch_size=10, mode="train", skip_bad=False, cache=True):
    """Load the images of a directory whose names give the label.

    The first letter counts: H, N -> 0, P -> 1.

    Args:
        datadir: the directory.
        batch_size: images of a batch; the last batch may be smaller.
        mode: "train" shuffles anew each epoch, "valid" and "eval" keep the order of the sorted names.
        skip_bad: for training only, drop the images that do not decode; notices list them.
        cache: keep the resized images on disk; else every epoch decodes the files.

    Returns:
        An ImageLoader. Each call yields an epoch: imgs float32 [N, 3, 224, 224] in -1..1, labels float32 [N, 1].

    Raises:
        InputError: The directory is missing, a name has another first letter, a file is empty, or, when its batch is
            loaded, an image does not decode.
        ValueError: The mode is unknown.
    """
    paths = [Path(datadir, name) for name in image_names(datadir)]
    loader = ImageLoader(datadir, [(path, label_from_name(path)) for path in paths], batch_size, mode, cache)
    check_images(loader, skip_bad)
    return loader


def valid_data_loader(datadir, csvfile, batch_size=10, mode="valid", skip_bad=False, cache=True, classes=CLASSES):
    """Load the images that a table lists, in the order of the table.

    Args:
        datadir: the directory.
        csvfile: labels.csv, or the .xlsx it is made from; `labelled_images` finds the file for a name.
        batch_size, mode, skip_bad, cache: as for `data_loader`.
        classes: names of the labels, in order; of three or more, the batches have labels int64 [N, 1].

    Returns:
        An ImageLoader, as `data_loader`.

    Raises:
        InputError: The table is faulty, or an image it lists is missing, empty or does not decode.
    """
    require_directory(datadir, f"the images that {csvfile} lists")
    rows = labelled_images(datadir, csvfile, classes, split="train" if mode == "train" else "valid")
    for path, row in rows.items():
        if not os.path.isfile(path):
            raise InputError(f"{shorten(path)}: no such image; it is listed in {csvfile}, row {row.row}")
    if difference := workbook_difference(csvfile):
        log_once(f"{csvfile} {difference}")
    loader = ImageLoader(datadir, [(path, row.label) for path, row in rows.items()], batch_size, mode, cache, classes)
    loader.groups = {loader.name_of((path, row.label)): row.group for path, row in rows.items() if row.group}
    check_images(loader, skip_bad)
    return loader


class ImageLoader(BaseLoader):
    """Batches of image files, decoded by threads while another batch is in use.

    Use an epoch in the process that began it: its threads do not live on in a fork.
    """

    image_size, groups = IMAGE_SIZE, {}

    def __init__(self, directory, samples, batch_size, mode, cache=True, classes=CLASSES):
        """samples: [(path, number of the class), ...] of images in `directory`."""
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        super().__init__(samples, batch_size, shuffle=mode == "train")
        self.directory, self.mode, self.cache, self.classes = directory, mode, cache, classes
        self.built_augmentations = {}

    def iter_from(self, batch):
        """Yield the batches of the present order from number `batch` on."""
        with open_pipeline(self) as submit:
            yield from prefetch(map(submit, self._local_batches(batch)))

    @property
    def input_spec(self):
        """Size, channels and range of the network's input."""
        return {**INPUT_SPEC, "size": self.image_size}

    @property
    def labels(self):
        """Labels of the images in the present order."""
        return [label for _, label in self.samples]

    @property
    def label_dtype(self):
        """Type of the labels in a batch: float32 for sigmoid cross-entropy, int64 for softmax."""
        return "float32" if len(self.classes) == 2 else "int64"

    def name_of(self, sample):
        """Return the path within the directory; a table may list images of several folders."""
        return os.path.relpath(sample[0], self.directory)

    @property
    def fingerprint(self):
        """sha256 of the names, labels and sizes in bytes of the images, whatever their order."""
        lines = sorted(f"{path.name},{label},{path.stat().st_size}\n" for path, label in self.samples)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()  # names of any encoding

    def load_image(self, name):
        """Read an image: uint8 BGR [height, width, 3]."""
        return read_image(Path(self.directory, name))

    def load_input(self, name):
        """Read an image as the network's input: float32 [3, image_size, image_size]."""
        return normalize(shrink(resize(self.load_image(name)), self.image_size), table=pixel_lut(self.pixel_range))
