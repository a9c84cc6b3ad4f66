"""The lesson's readers: generators of (images, labels) in batches, ready for the network.

    reader = data_loader("PALM-Training400/PALM-Training400", batch_size=10, mode="train")
    for epoch in range(5):
        for imgs, labels in reader():      # float32 [N, 3, 224, 224], float32 [N, 1]
            ...

Python's `random` shuffles, each epoch on top of the last, as in the lesson: after `random.seed(0)` the order repeats.
"""

import hashlib
import random
from pathlib import Path

import numpy as np

from palm_cls.dataset import image_names
from palm_cls.images import read_image, transform_img
from palm_cls.labels import read_labels
from palm_cls.messages import InputError, notice

MODES = ("train", "valid", "eval")
LABEL_OF_LETTER = {"H": 0, "N": 0, "P": 1}  # high myopia and normal: not pathological; P: pathological


def data_loader(datadir, batch_size=10, mode="train", skip_bad=False):
    """Reader of a directory whose file names tell the label: H.., N.. -> 0, P.. -> 1.

    Images come in the order of their sorted names, with mode "train" shuffled anew each epoch. Returns a Reader; each
    call of it gives a generator of one epoch: (imgs float32 [N, 3, 224, 224] in -1..1, labels float32 [N, 1]); the last
    batch may be smaller. Raises InputError for a missing directory, a name with another first letter, an empty file,
    and, when it is reached, an image that does not decode. `skip_bad`, for training only, looks for the last two at the
    beginning and leaves them out; their names and number are told.
    """
    samples = [(Path(datadir, name), _label_of(datadir, name)) for name in image_names(datadir)]
    return Reader(_checked(samples, mode, skip_bad), batch_size, mode)


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
    samples = [(Path(datadir, row.name), row.label) for row in rows]
    return Reader(_checked(samples, mode, skip_bad), batch_size, mode)


def _checked(samples, mode, skip_bad):
    """`samples`, none of them an empty file; with `skip_bad` without those that do not decode, which is told."""
    if not skip_bad:
        for path, _ in samples:
            if path.stat().st_size == 0:
                raise InputError(f"{path}: empty (0 bytes); replace the file or remove it")
        return samples
    if mode != "train":
        raise ValueError(f"skip_bad is for training only: a measure must not depend on it (mode {mode!r})")
    good = [sample for sample in samples if _decodes(sample[0])]
    if not good:
        raise InputError(f"{samples[0][0].parent}: none of its {len(samples)} images can be decoded")
    if len(good) < len(samples):
        notice(f"{len(samples) - len(good)} of {len(samples)} training images are skipped.")
    return good


def _decodes(path):
    try:
        read_image(path)
    except InputError as error:
        notice(f"Skipped: {error}.")
        return False
    return True


class Reader:
    """What the loaders return: calling it gives a generator of one epoch of batches, (imgs, labels).

    images, batches: their numbers in an epoch. `order` and `rest` let a training go on in the middle of an epoch.
    """

    def __init__(self, samples, batch_size, mode):
        """samples: [(path, label), ...] with all names different."""
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is not positive")
        self.samples, self.batch_size, self.mode = samples, batch_size, mode
        self.images = len(samples)
        self.batches = -(-len(samples) // batch_size)

    def __call__(self):
        if self.mode == "train":
            random.shuffle(self.samples)
        yield from self.rest(0)

    def rest(self, batch):
        """The batches of the present order from number `batch` on."""
        for start in range(batch * self.batch_size, self.images, self.batch_size):
            yield self.load(self.samples[start : start + self.batch_size])

    def load(self, samples):
        """The batch of these samples: (float32 [N, 3, 224, 224], float32 [N, 1])."""
        imgs = np.stack([transform_img(read_image(path)) for path, _ in samples])
        return imgs, np.array([[label] for _, label in samples], dtype="float32")

    @property
    def fingerprint(self):
        """sha256 of the names, labels and sizes in bytes of the images, whatever their order."""
        lines = sorted(f"{path.name},{label},{path.stat().st_size}\n" for path, label in self.samples)
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @property
    def order(self):
        """Names of the images in the present order; can be set to another order of the same names."""
        return [path.name for path, _ in self.samples]

    @order.setter
    def order(self, names):
        sample_of = {path.name: (path, label) for path, label in self.samples}
        if sorted(names) != sorted(sample_of):
            raise InputError("these are other images than those whose order is to be taken up again")
        self.samples[:] = [sample_of[name] for name in names]

    def names(self, batch):
        """Names of the images in batch number `batch` of the present order."""
        return self.order[batch * self.batch_size : (batch + 1) * self.batch_size]


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
