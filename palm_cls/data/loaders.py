"""The lesson's readers: generators of (images, labels) in batches, ready for the network.

    reader = data_loader("PALM-Training400/PALM-Training400", batch_size=10, mode="train")
    for epoch in range(5):
        for imgs, labels in reader():      # float32 [N, 3, 224, 224], float32 [N, 1]
            ...

Python's `random` shuffles, each epoch on top of the last, as in the lesson: after `random.seed(0)` the order repeats.
Threads decode ahead of the batch that is asked for (OpenCV lets them run at once), and the resized images are kept in a
cache on disk (`palm_cls.data.cache`); every value is what the lesson's reader gives, bit for bit.

`make_loaders` gives the readers that a recipe trains with, of fundus images or of MNIST's, which lie in memory.
"""

import contextlib
import functools
import hashlib
import os
import random
from pathlib import Path

import numpy as np

from palm_cls.core import environment
from palm_cls.core.console import notice, notice_once
from palm_cls.core.errors import InputError, excerpt
from palm_cls.core.files import require_directory
from palm_cls.data import augment
from palm_cls.data.cache import ImageCache
from palm_cls.data.images import (
    IMAGE_SIZE,
    INPUT_SPEC,
    PIXEL_RANGE,
    normalize,
    normalize_gray,
    pixel_lut,
    read_image,
    resize,
)
from palm_cls.data.labels import CLASSES, LABEL_BY_PREFIX
from palm_cls.data.mnist import SIDE, find_mnist
from palm_cls.data.palm import find_dataset, image_names, is_in_demo_set, labelled_images, workbook_difference
from palm_cls.data.prefetch import _begin, prefetch

MODES = ("train", "valid", "eval")
CHUNK = 64  # images in memory where all are gone through
IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)


def data_loader(datadir, batch_size=10, mode="train", skip_bad=False, cache=True):
    """ImageLoader of a directory, `datadir`, whose file names tell the label: H.., N.. -> 0, P.. -> 1.

    Images come in the order of their sorted names, with mode "train" shuffled anew each epoch, with "valid" or "eval"
    not. Returns an ImageLoader; each call gives a generator of one epoch: (imgs float32 [N, 3, 224, 224] in -1..1,
    labels float32 [N, 1]), N being the batch_size; the last batch may be smaller. Raises InputError for a missing
    directory, a name with another first letter, an empty file, and, when it is reached, an image that does not decode.
    `skip_bad`, for training only, looks for the last two at the beginning and leaves them out; their names and number
    are told. Without `cache` every epoch decodes the files anew. Raises ValueError for another mode.
    """
    samples = [(Path(datadir, name), _label_of(datadir, name)) for name in image_names(datadir)]
    return _reader(datadir, samples, batch_size, mode, skip_bad, cache)


def _label_of(datadir, name):
    if name[0] not in LABEL_BY_PREFIX:
        raise InputError(
            f"{Path(datadir, name)}: the label is the first letter of the name, H, N or P, and this is none of them; "
            "rename the file, or give the labels in a table (--train-csv)"
        )
    return LABEL_BY_PREFIX[name[0]]


def valid_data_loader(datadir, csvfile, batch_size=10, mode="valid", skip_bad=False, cache=True):
    """ImageLoader of the images in `datadir` that a table, `csvfile`, lists: labels.csv, or the .xlsx it is made from.

    Images come in the order of the table, with mode "train" shuffled anew each epoch; `labelled_images` says which file
    a name stands for. Where a workbook beside labels.csv has other labels, this is told. Returns and yields what
    `data_loader` does; batch_size, skip_bad and cache are as there. Raises InputError for a faulty table, an image it
    names that is missing (with its row) or empty, and, when it is reached, an image that does not decode.
    """
    require_directory(datadir, f"the images that {csvfile} lists")
    rows = labelled_images(datadir, csvfile)
    for path, row in rows.items():
        if not os.path.isfile(path):
            raise InputError(f"{excerpt(path)}: no such image; it is listed in {csvfile}, row {row.row}")
    difference = workbook_difference(csvfile)
    if difference:
        notice_once(f"{csvfile} {difference}")
    samples = [(path, row.label) for path, row in rows.items()]
    return _reader(datadir, samples, batch_size, mode, skip_bad, cache)


def _reader(datadir, samples, batch_size, mode, skip_bad, cache):
    reader = ImageLoader(datadir, samples, batch_size, mode, cache)
    if skip_bad:
        reader.drop_unreadable()
    for path, _ in reader.samples:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty (0 bytes); replace the file or remove it")
    return reader


class BaseLoader:
    """What all readers have in common: calling one gives a generator of one epoch of batches, (imgs, labels).

    images, batches: their numbers in an epoch; pixel_range: what the bytes 0 and 255 become; epoch: the number of those
    that were gone through. `order`, `epoch` and `rest` let a training go on in the middle of an epoch. Each kind of
    reader has its own `rest`, and its own `name_of` a sample, which is unique. part: (first, step), which samples of
    each batch are given; the others are for other processes, see `palm_cls.training.distributed`.
    """

    shard = 0, 1

    def __init__(self, samples, batch_size, shuffle):
        """samples: a list of what stands for an image; shuffle: whether each epoch shuffles it on top of the last."""
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is not positive")
        self.samples, self.batch_size, self.shuffle = samples, batch_size, shuffle
        self.pixel_range, self.epoch = PIXEL_RANGE, 0

    @property
    def num_samples(self):
        return len(self.samples)

    @property
    def num_batches(self):
        return -(-self.num_samples // self.batch_size)

    def __call__(self):
        if self.shuffle:
            random.shuffle(self.samples)
        yield from self.iter_from(0)
        self.epoch += 1

    @property
    def metadata(self):
        """Metadata stored with weights that are trained on these batches: their input, classes, and whether drawn."""
        made = {**self.input_spec, "range": list(self.pixel_range)}
        return {"input": made, "classes": self.classes, "demo": is_in_demo_set(self.directory)}

    @property
    def order(self):
        """Names of the images in the present order; can be set to another order of the same names."""
        return [self.name_of(sample) for sample in self.samples]

    @order.setter
    def order(self, names):
        sample_of = {self.name_of(sample): sample for sample in self.samples}
        if sorted(names) != sorted(sample_of):
            raise InputError("these are other images than those whose order is to be taken up again")
        self.samples[:] = [sample_of[name] for name in names]

    def names(self, batch):
        """Names of the images in batch number `batch` of the present order."""
        return [self.name_of(sample) for sample in self._batch(batch)]

    def _batch(self, batch):
        return self.samples[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _local_batches(self, batch):
        """The samples to give, from batch number `batch` on, a list each; where that has none, the batch's first."""
        (first, step), batches = self.shard, [self._batch(number) for number in range(batch, self.num_batches)]
        return [samples[first::step] or samples[:1] for samples in batches]


class ImageLoader(BaseLoader):
    """What the loaders return: a reader of image files.

    An epoch belongs to the process that began it: its threads do not live on in a fork. augmentation: None, or
    a way of `palm_cls.data.augment`, in which the images are varied, from `seed` and `epoch`. ten_crop: batches are of
    ten views of each image, float32 [N, 10, 3, 224, 224].
    """

    input_spec, classes = INPUT_SPEC, CLASSES
    augmentation, seed, ten_crop = None, 0, False

    def __init__(self, directory, samples, batch_size, mode, cache=True):
        """directory: of the images; samples: [(path, label), ...] with all names different."""
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        super().__init__(samples, batch_size, shuffle=mode == "train")
        self.directory, self.mode, self.cache = directory, mode, cache
        self._variations = {}  # by the name of the augmentation, made when first needed

    def name_of(self, sample):
        return os.path.relpath(sample[0], self.directory)  # a table may list images of several folders

    def iter_from(self, batch):
        """The batches of the present order from number `batch` on."""
        shape = (10, *IMAGE_SHAPE) if self.ten_crop else IMAGE_SHAPE
        with self._decoding(self._side) as (pool, read):
            fill = self._filler(pool, read)
            yield from prefetch(_begin(samples, pool, fill, shape) for samples in self._local_batches(batch))

    @property
    def _side(self):
        """Pixels to which the images are resized first."""
        if self.ten_crop:
            return augment.PAPER_SIZE
        return augment.SIDES[self.augmentation] if self.augmentation else IMAGE_SIZE

    def _filler(self, pool, read):
        """The function (out, path) that fills in what the network takes of an image."""
        table = pixel_lut(self.pixel_range)
        if self.ten_crop:
            return lambda out, path: np.copyto(out, augment.ten_crops(read(path), table))
        if self.augmentation is None:
            return lambda out, path: normalize(read(path), out, table)
        vary, seed, epoch = self._vary(pool, read), self.seed, self.epoch
        return lambda out, path: normalize(vary(read(path), augment.sample_rng(seed, epoch, path.name)), out, table)

    def _vary(self, pool, read):
        if self.augmentation not in self._variations:
            made = augment.build_augmentation(self.augmentation, lambda: self._all(pool, read))
            self._variations[self.augmentation] = made
        return self._variations[self.augmentation]

    def augmented_samples(self, name, epochs):
        """The image of that name as its augmentation varies it in these epochs: a list of uint8 [224, 224, 3] BGR."""
        with self._decoding(self._side) as (pool, read):
            vary, img = self._vary(pool, read), read(Path(self.directory, name))
            return [vary(img, augment.sample_rng(self.seed, epoch, name)) for epoch in epochs]

    def _all(self, pool, read):
        """All resized images, sorted by name; no more than CHUNK of them in memory at once."""
        paths = sorted(path for path, _ in self.samples)
        for start in range(0, len(paths), CHUNK):
            yield from pool.map(read, paths[start : start + CHUNK])

    def drop_unreadable(self):
        """Leave out, for training only, the images that do not decode; their names and number are told."""
        if self.mode != "train":
            raise ValueError(f"skip_bad is for training only: a measure must not depend on it (mode {self.mode!r})")
        with self._decoding(IMAGE_SIZE) as (pool, read):
            errors = list(pool.map(lambda sample: _error_of(sample[0], read), self.samples))
        for error in filter(None, errors):
            notice(f"Skipped: {error}.")
        good = [sample for sample, error in zip(self.samples, errors) if not error]
        if not good:
            raise InputError(f"{self.directory}: none of its {self.num_samples} images can be decoded")
        if len(good) < self.num_samples:
            notice(f"{self.num_samples - len(good)} of {self.num_samples} training images are skipped.")
        self.samples = good

    @contextlib.contextmanager
    def _decoding(self, side):
        """A pool of threads, and the function path -> resized image, from the cache if there is one."""
        with contextlib.ExitStack() as stack:
            read = functools.partial(_read_resized, side=side)
            if self.cache:
                cache = stack.enter_context(ImageCache(self.directory, side))
                cache.log_location(self.num_samples)
                read = functools.partial(cache.get_or_compute, make=read)
            yield stack.enter_context(environment.own_threads()), read

    @property
    def fingerprint(self):
        """sha256 of the names, labels and sizes in bytes of the images, whatever their order."""
        lines = sorted(f"{path.name},{label},{path.stat().st_size}\n" for path, label in self.samples)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()  # any name of a file

    @property
    def labels(self):
        """Labels of the images in the present order: a list of int."""
        return [label for _, label in self.samples]

    def load_image(self, name):
        """The image of that name as it is on the disk: uint8 BGR [height, width, 3]."""
        return read_image(Path(self.directory, name))

    def load_input(self, name):
        """The image of that name as the network takes it: float32 [3, 224, 224]."""
        return normalize(resize(self.load_image(name)), table=pixel_lut(self.pixel_range))


class ArrayLoader(BaseLoader):
    """A reader of grey images in memory: (imgs float32 [N, 1, height, width], labels int64 [N, 1]) in batches.

    An image's name is its number, in five digits ("00017").
    """

    input_spec = {"size": SIDE, "channels": "grey"}

    def __init__(self, directory, pixels, labels, batch_size, classes, shuffle=False):
        """directory: where they are from; pixels: uint8 [images, height, width]; labels: int64 [images, 1].

        classes: names of the labels, a list of str.
        """
        super().__init__(list(range(len(pixels))), batch_size, shuffle)
        self.directory, self.classes = directory, classes
        self._pixels, self._labels = pixels, labels

    def name_of(self, sample):
        return f"{sample:05d}"

    def iter_from(self, batch):
        """The batches of the present order from number `batch` on."""
        table = pixel_lut(self.pixel_range)
        for chosen in self._local_batches(batch):
            yield normalize_gray(self._pixels[chosen], table), self._labels[chosen]

    @functools.cached_property
    def fingerprint(self):
        """sha256 of the pixels and labels, in the order of the file."""
        digest = hashlib.sha256(self._pixels)
        digest.update(self._labels)
        return digest.hexdigest()

    @property
    def labels(self):
        """Labels of the images in the present order: a list of int."""
        return self._labels[self.samples].ravel().tolist()

    def load_image(self, name):
        """The image of that name for people: uint8 BGR [height, width, 3]."""
        return np.repeat(self._pixels[int(name), :, :, None], 3, axis=2)

    def load_input(self, name):
        """The image of that name as the network takes it: float32 [1, height, width]."""
        return normalize_gray(self._pixels[int(name)][None], pixel_lut(self.pixel_range))[0]


def _read_resized(path, side):
    return resize(read_image(path), side)


def _error_of(path, read):
    try:
        read(path)
    except InputError as error:
        return str(error)  # the exception itself would keep hold of the file's content
    return ""


def palm_loaders(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """The two readers of a Dataset: (training, validation).

    Training labels come from `train_csv`, else from the dataset's own table, else from the names of the images.
    `skip_bad` passes over training images that do not decode.
    """
    return palm_train_loader(dataset, batch_size, train_csv, skip_bad, cache), palm_valid_loader(
        dataset, batch_size, cache
    )


def palm_train_loader(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """The shuffled reader of a Dataset's training images."""
    table = train_csv or dataset.train_labels
    if table:
        return valid_data_loader(dataset.train_images, table, batch_size, "train", skip_bad, cache)
    return data_loader(dataset.train_images, batch_size, "train", skip_bad, cache)


def palm_valid_loader(dataset, batch_size=10, cache=True):
    """The reader of a Dataset's validation images, in the order of their table."""
    return valid_data_loader(dataset.valid_images, dataset.valid_labels, batch_size, cache=cache)


def make_loaders(recipe, data=None, train_csv=None, skip_bad=False, cache=True, download=False):
    """Readers of a Recipe and where their images come from: (training, validation, Dataset or MnistDataset).

    All that trains a recipe has its batches from here; `make_valid_loader` is for evaluation. data: directory
    of the data set, else where that of the recipe usually lies. train_csv, skip_bad, cache: as `palm_loaders` takes
    them, of fundus images. download: fetch the files of MNIST or Fashion-MNIST that are missing. Raises InputError for
    what is missing, damaged, or not for the recipe's data.
    """
    found = _find_data(recipe, data, download)
    if recipe.data == "palm":
        train_loader = palm_train_loader(found, recipe.batch_size, train_csv, skip_bad, cache)
    elif train_csv or skip_bad:
        raise InputError(f"{'--train-csv' if train_csv else '--skip-bad'} is for fundus images, not for {recipe.data}")
    else:
        train_loader = _array_reader(found, "train", recipe.batch_size)
    if recipe.augmentation and recipe.data != "palm":
        raise InputError(f"--augment is for fundus images, not for {recipe.data}")
    train_loader.shuffle, train_loader.pixel_range = recipe.shuffle, recipe.pixel_range
    train_loader.augmentation = recipe.augmentation
    return train_loader, _valid_reader(recipe, found, recipe.batch_size, cache), found


def make_valid_loader(recipe, data=None, batch_size=10, cache=True, download=False, ten_crop=False):
    """The reader of the images that a Recipe is measured on, and where they come from; see `make_loaders`.

    ten_crop: of ten views of each fundus image, see `ImageLoader`.
    """
    found = _find_data(recipe, data, download)
    if ten_crop and recipe.data != "palm":
        raise InputError(f"--ten-crop is for fundus images, not for {recipe.data}")
    loader = _valid_reader(recipe, found, batch_size, cache)
    loader.ten_crop = ten_crop
    return loader, found


def _find_data(recipe, directory, download):
    if recipe.data != "palm":
        return find_mnist(recipe.data, directory, download)
    if download:
        raise InputError("--download fetches MNIST and Fashion-MNIST; data/README.md says how to get the fundus images")
    return find_dataset(directory)


def _valid_reader(recipe, found, batch_size, cache):
    palm = recipe.data == "palm"
    loader = palm_valid_loader(found, batch_size, cache) if palm else _array_reader(found, "test", batch_size)
    loader.pixel_range = recipe.pixel_range
    return loader


def _array_reader(digits, part, batch_size):
    return ArrayLoader(digits.root, *digits.read(part), batch_size, digits.classes)
