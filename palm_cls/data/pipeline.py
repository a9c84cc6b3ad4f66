"""From an image file to a batch of ImageLoader: threads, the cache (`palm_cls.data.cache`), augmentation, views."""

import contextlib
import functools
from pathlib import Path

import numpy as np

from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.errors import InputError
from palm_cls.data import augment
from palm_cls.data.cache import ImageCache
from palm_cls.data.images import IMAGE_SIZE, normalize, pixel_lut, read_image, resize, shrink
from palm_cls.data.prefetch import submit_batch

IMAGES_IN_MEMORY = 64  # at once, for a pass over all images


@contextlib.contextmanager
def open_pipeline(loader):
    """Yield the function that submits samples, [(path, label), ...], to threads, see `submit_batch`."""
    shape = (3, loader.image_size, loader.image_size)
    shape = (loader.views, *shape) if loader.views > 1 else shape
    with _decoding(loader, _resize_size(loader)) as (pool, read):
        load = _make_transform(loader, pool, read)
        yield lambda samples: submit_batch(samples, pool, load, shape, loader.label_dtype)


def iter_resized(loader):
    """Yield the images of a loader, sorted by path, each uint8 BGR [224, 224, 3]."""
    with _decoding(loader, IMAGE_SIZE) as (pool, read):
        yield from _iter_resized(loader, pool, read)


def augmented_samples(loader, name, epochs):
    """Return the image of that name as the loader's augmentation varies it in these epochs.

    Returns:
        A list of uint8 BGR [size, size, 3].
    """
    with _decoding(loader, _resize_size(loader)) as (pool, read):
        vary, img = _augment(loader, pool, read), read(Path(loader.directory, name))
        return [vary(img, augment.sample_rng(loader.seed, epoch, Path(name).name)) for epoch in epochs]


def check_images(loader, skip_bad=False):
    """Raise InputError for an empty file; with `skip_bad`, drop undecodable images first."""
    if skip_bad:
        loader.samples = _drop_unreadable(loader)
    for path, _ in loader.samples:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty (0 bytes); replace the file or remove it")


def _drop_unreadable(loader):
    """Return the samples whose images decode; notices give the names and the number of the others."""
    if loader.mode != "train":
        raise ValueError(f"skip_bad is for training only: metrics must not depend on it (mode {loader.mode!r})")
    with _decoding(loader, IMAGE_SIZE) as (pool, read):
        errors = list(pool.map(lambda sample: _error_of(sample[0], read), loader.samples))
    for error in filter(None, errors):
        log(f"Skipped: {error}.")
    good = [sample for sample, error in zip(loader.samples, errors) if not error]
    if not good:
        raise InputError(f"{loader.directory}: none of its {loader.num_samples} images can be decoded")
    if len(good) < loader.num_samples:
        log(f"{loader.num_samples - len(good)} of {loader.num_samples} training images are skipped.")
    return good


@contextlib.contextmanager
def _decoding(loader, size):
    """Yield a pool of threads, and the function path -> resized image, through the cache if the loader uses it."""
    with contextlib.ExitStack() as stack:
        read = functools.partial(_read_resized, size=size)
        if loader.cache:
            cache = stack.enter_context(ImageCache(loader.directory, size))
            cache.log_location()
            read = functools.partial(cache.get_or_compute, compute=read)
        yield stack.enter_context(environment.thread_pool()), read


def _resize_size(loader):
    """Return the size in pixels to which the images are resized before augmentation."""
    if loader.views == augment.TEN_CROP:
        return augment.PAPER_SIZE
    return augment.RESIZE_SIZE[loader.augmentation] if loader.augmentation else IMAGE_SIZE


def _make_transform(loader, pool, read):
    """Return the function (path, out) that writes the network's input for an image file to `out`."""
    table, size = pixel_lut(loader.pixel_range), loader.image_size
    if loader.views > 1:
        views_of = augment.ten_crops if loader.views == augment.TEN_CROP else augment.eight_views
        return lambda path, out: np.copyto(out, views_of(read(path), table, size))
    if loader.augmentation is None:
        return lambda path, out: normalize(shrink(read(path), size), out, table)
    vary, seed, epoch = _augment(loader, pool, read), loader.seed, loader.epoch
    return lambda path, out: normalize(vary(read(path), augment.sample_rng(seed, epoch, path.name)), out, table)


def _augment(loader, pool, read):
    """Return the loader's augmentation, built when first needed."""
    built, name = loader.built_augmentations, loader.augmentation
    if name not in built:
        images = functools.partial(_iter_resized, loader, pool, read)
        built[name] = augment.build_augmentation(name, images, loader.image_size)
    return built[name]


def _iter_resized(loader, pool, read):
    """Yield all resized images, sorted by name."""
    paths = sorted(path for path, _ in loader.samples)
    for start in range(0, len(paths), IMAGES_IN_MEMORY):
        yield from pool.map(read, paths[start : start + IMAGES_IN_MEMORY])


def _read_resized(path, size):
    return resize(read_image(path), size)


def _error_of(path, read):
    try:
        read(path)
    except InputError as error:
        return str(error)  # the exception itself would keep hold of the file's content
    return ""
