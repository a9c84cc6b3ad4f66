"""Batches that threads load while another one is in use."""

import collections
import functools

import numpy as np

PREFETCH_BATCHES = 2  # loaded while one is in use


def prefetch(batches):
    """Yield finished batches while PREFETCH_BATCHES are loaded in the background.

    Args:
        batches: an iterable that submits a batch to threads at each step, and gives a function without arguments that
            waits for it and returns it.
    """
    pending = collections.deque()
    for wait in batches:
        pending.append(wait)
        if len(pending) > PREFETCH_BATCHES:
            yield pending.popleft()()
    while pending:
        yield pending.popleft()()


def submit_batch(samples, pool, load, shape, label_dtype="float32"):
    """Load a batch in threads; return the function that waits for (imgs, labels).

    Args:
        samples: [(path, label), ...].
        pool: an executor.
        load: a function (path, out) that writes the network's input, float32 `shape`, to `out`.
        shape: of one sample.
        label_dtype: of the labels.
    """
    imgs = np.empty((len(samples), *shape), "float32")
    labels = np.array([[label] for _, label in samples], label_dtype)
    futures = [pool.submit(load, path, out) for out, (path, _) in zip(imgs, samples)]
    return functools.partial(_wait_batch, imgs, labels, futures)


def _wait_batch(imgs, labels, futures):
    for future in futures:
        future.result()  # raises the thread's exception
    return imgs, labels
