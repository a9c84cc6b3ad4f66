"""The lesson's readers: generators of (images, labels) in batches, ready for the network.

    reader = data_loader("PALM-Training400/PALM-Training400", batch_size=10, mode="train")
    for epoch in range(5):
        for imgs, labels in reader():      # float32 [N, 3, 224, 224], float32 [N, 1]
            ...

Python's `random` shuffles, each epoch on top of the last, as in the lesson: after `random.seed(0)` the order repeats.
"""

import random
from pathlib import Path

import numpy as np

from palm_cls.dataset import image_names
from palm_cls.images import read_image, transform_img
from palm_cls.labels import read_labels
from palm_cls.messages import InputError, notice, notice_once

MODES = ("train", "valid", "eval")
LABEL_OF_LETTER = {"H": 0, "N": 0, "P": 1}  # high myopia and normal: not pathological; P: pathological


def data_loader(datadir, batch_size=10, mode="train", skip_bad=False):
    """Reader of a directory whose file names tell the label: H.., N.. -> 0, P.. -> 1.

    Images come in the order of their sorted names, with mode "train" shuffled anew each epoch. Returns a function; each
    call of it gives a generator of one epoch: (imgs float32 [N, 3, 224, 224] in -1..1, labels float32 [N, 1]); the last
    batch may be smaller. Raises InputError for a missing directory, a name with another first letter, an empty file,
    and, when it is reached, an image that does not decode. `skip_bad`, for training only, passes over the last two
    instead: it tells their names and, after each epoch, their number.
    """
    samples = [(Path(datadir, name), _label_of(datadir, name)) for name in image_names(datadir)]
    return _reader(samples, batch_size, mode, skip_bad)


def _label_of(datadir, name):
    if name[0] not in LABEL_OF_LETTER:
        raise InputError(
            f"{Path(datadir, name)}: the label is the first letter of the name, H, N or P, and this is none of them; "
            "rename the file, or give the labels in a table (--train-csv)"
        )
    return LABEL_OF_LETTER[name[0]]


def valid_data_loader(datadir, csvfile, batch_size=10, mode="valid", skip_bad=False):
    """Reader of the images in `datadir` that a table lists: `labels.csv`, or the .xlsx it is made from.

    Images come in the order of the table, with mode "train" shuffled anew each epoch. Returns and yields what
    `data_loader` does; so does `skip_bad`. Raises InputError for a faulty table, an image it names that is missing
    (with its row) or empty, and, when it is reached, an image that does not decode.
    """
    rows = read_labels(csvfile)
    if not rows:
        raise InputError(f"{csvfile}: lists no image")
    if not Path(datadir).is_dir():
        raise InputError(f"{datadir}: no such directory; expected the images that {csvfile} lists")
    for row in rows:
        if not Path(datadir, row.name).is_file():
            raise InputError(f"{Path(datadir, row.name)}: no such image; it is listed in {csvfile}, row {row.row}")
    return _reader([(Path(datadir, row.name), row.label) for row in rows], batch_size, mode, skip_bad)


def _reader(samples, batch_size, mode, skip_bad=False):
    """The function that yields one epoch of `samples`, [(path, label), ...]."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not positive")
    if skip_bad and mode != "train":
        raise ValueError(f"skip_bad is for training only: a measure must not depend on it (mode {mode!r})")
    if not skip_bad:
        _refuse_empty(samples)

    def reader():
        if mode == "train":
            random.shuffle(samples)
        skipped = 0
        for start in range(0, len(samples), batch_size):
            batch = [(_read(path, skip_bad), label) for path, label in samples[start : start + batch_size]]
            good = [(img, label) for img, label in batch if img is not None]
            skipped += len(batch) - len(good)
            if good:
                imgs = np.stack([img for img, _ in good])
                labels = np.array([[label] for _, label in good], dtype="float32")
                yield imgs, labels
        _tell_skipped(skipped, samples)

    reader.images = len(samples)
    reader.batches = -(-len(samples) // batch_size)
    return reader


def _refuse_empty(samples):
    for path, _ in samples:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty (0 bytes); replace the file or remove it")


def _read(path, skip_bad):
    """The image as the network takes it; None for one that does not decode, which is told, with `skip_bad`."""
    try:
        return transform_img(read_image(path))
    except InputError as error:
        if not skip_bad:
            raise
        notice_once(f"Skipped: {error}.")
        return None


def _tell_skipped(skipped, samples):
    if skipped == len(samples):
        raise InputError(f"{samples[0][0].parent}: none of its {len(samples)} images can be decoded")
    if skipped:
        notice(f"{skipped} of {len(samples)} training images were skipped in this epoch.")


def dataset_readers(dataset, batch_size=10, train_csv=None, skip_bad=False):
    """The two readers of a Dataset: (training, validation).

    Training labels come from `train_csv`, else from the dataset's own table, else from the names of the images.
    `skip_bad` passes over training images that do not decode.
    """
    return train_reader(dataset, batch_size, train_csv, skip_bad), valid_reader(dataset, batch_size)


def train_reader(dataset, batch_size=10, train_csv=None, skip_bad=False):
    """The shuffled reader of a Dataset's training images."""
    table = train_csv or dataset.train_labels
    if table:
        return valid_data_loader(dataset.train_images, table, batch_size, "train", skip_bad)
    return data_loader(dataset.train_images, batch_size, "train", skip_bad)


def valid_reader(dataset, batch_size=10):
    """The reader of a Dataset's validation images, in the order of their table."""
    return valid_data_loader(dataset.valid_images, dataset.valid_labels, batch_size)
