"""Batches of image files, decoded by threads ahead of their turn, and kept resized in a cache on disk."""

import collections
import contextlib
import functools
from pathlib import Path

import numpy as np

from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.errors import InputError
from palm_cls.data import augment
from palm_cls.data.cache import ImageCache
from palm_cls.data.images import IMAGE_SIZE, normalize, pixel_lut, read_image, resize

PREFETCH_BATCHES = 2  # batches that are decoded while one is in use
CHUNK = 64  # images in memory when all are gone through


def load_batches(loader, shards):
    """Yield the batches of an ImageLoader: (imgs float32 [N, 3, 224, 224], labels float32 [N, 1]).

    With `ten_crop`, imgs are ten views of each image, float32 [N, 10, 3, 224, 224].

    Args:
        loader: The ImageLoader. An epoch belongs to the process that started it: threads do not survive a fork.
        shards: The samples of each batch, a list of lists of (path, label).
    """
    shape = (10,) if loader.ten_crop else ()
    with _decoding(loader, _resize_size(loader)) as (pool, read):
        fill = _make_transform(loader, pool, read)
        submit = functools.partial(_submit_batch, pool=pool, fill=fill, shape=(*shape, 3, IMAGE_SIZE, IMAGE_SIZE))
        yield from prefetch(map(submit, shards))


def prefetch(submitted):
    """Yield finished batches while PREFETCH_BATCHES are decoded in the background.

    Args:
        submitted: An iterator that submits a batch to threads at each step, and yields a function that waits for it.
    """
    waiting = collections.deque()
    for wait in submitted:
        waiting.append(wait)
        if len(waiting) > PREFETCH_BATCHES:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _submit_batch(samples, pool, fill, shape):
    """Have threads fill the batch of these samples; return a function that waits for it."""
    imgs = np.empty((len(samples), *shape), "float32")
    labels = np.array([[label] for _, label in samples], "float32")
    futures = [pool.submit(fill, out, path) for out, (path, _) in zip(imgs, samples)]
    return functools.partial(_wait_batch, imgs, labels, futures)


def _wait_batch(imgs, labels, futures):
    for future in futures:
        future.result()  # raises what the thread raised
    return imgs, labels


@contextlib.contextmanager
def _decoding(loader, size):
    """Provide a pool of threads, and the function path -> resized image, from the cache if there is one."""
    with contextlib.ExitStack() as stack:
        read = functools.partial(_read_resized, size=size)
        if loader.cache:
            cache = stack.enter_context(ImageCache(loader.directory, size))
            cache.tell(loader.num_samples)
            read = functools.partial(cache.image, make=read)
        yield stack.enter_context(environment.thread_pool()), read


def _read_resized(path, size):
    return resize(read_image(path), size)


def _resize_size(loader):
    """Return the pixels to which the images are resized first."""
    if loader.ten_crop:
        return augment.PAPER_SIZE
    return augment.SIDES[loader.augmentation] if loader.augmentation else IMAGE_SIZE


def _make_transform(loader, pool, read):
    """Return the function (out, path) that fills in what the network takes of an image."""
    lut = pixel_lut(loader.pixel_range)
    if loader.ten_crop:
        return lambda out, path: np.copyto(out, augment.ten_crops(read(path), lut))
    if loader.augmentation is None:
        return lambda out, path: normalize(read(path), out, lut)
    vary, seed, epoch = _augmentation(loader, pool, read), loader.seed, loader.epoch
    return lambda out, path: normalize(vary(read(path), augment.generator(seed, epoch, path.name)), out, lut)


def _augmentation(loader, pool, read):
    """Return the loader's augmentation, which is made when first needed: (image, rng) -> image."""
    if loader.augmentation not in loader.augmentations:
        made = augment.variation(loader.augmentation, lambda: _iter_resized(loader, pool, read))
        loader.augmentations[loader.augmentation] = made
    return loader.augmentations[loader.augmentation]


def _iter_resized(loader, pool, read):
    """Yield all resized images, sorted by name, with no more than CHUNK of them in memory at once."""
    paths = sorted(path for path, _ in loader.samples)
    for start in range(0, len(paths), CHUNK):
        yield from pool.map(read, paths[start : start + CHUNK])


def augmented_samples(loader, name, epochs):
    """Return an image as its augmentation varies it in some epochs.

    Args:
        loader: An ImageLoader with an augmentation.
        name: Name of the image.
        epochs: Numbers of the epochs.

    Returns:
        A list of uint8 BGR [224, 224, 3].
    """
    with _decoding(loader, _resize_size(loader)) as (pool, read):
        vary, img = _augmentation(loader, pool, read), read(Path(loader.directory, name))
        return [vary(img, augment.generator(loader.seed, epoch, name)) for epoch in epochs]


def drop_unreadable(loader):
    """Leave out the training images that cannot be decoded; notices name and count them.

    Args:
        loader: An ImageLoader in mode "train".

    Raises:
        InputError: No image can be decoded.
        ValueError: The mode is another: a measure must not depend on what was left out.
    """
    if loader.mode != "train":
        raise ValueError(f"skip_bad is for training only: a measure must not depend on it (mode {loader.mode!r})")
    with _decoding(loader, IMAGE_SIZE) as (pool, read):
        errors = list(pool.map(lambda sample: _error_of(sample[0], read), loader.samples))
    for error in filter(None, errors):
        log(f"Skipped: {error}.")
    good = [sample for sample, error in zip(loader.samples, errors) if not error]
    if not good:
        raise InputError(f"{loader.directory}: none of its {loader.num_samples} images can be decoded")
    if len(good) < loader.num_samples:
        log(f"{loader.num_samples - len(good)} of {loader.num_samples} training images are skipped.")
    loader.samples = good


def _error_of(path, read):
    try:
        read(path)
    except InputError as error:
        return str(error)  # the exception itself would keep hold of the file's content
    return ""
