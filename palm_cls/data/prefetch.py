"""Batches that threads decode while another is in use."""

import collections
import functools

import numpy as np

AHEAD = 2  # batches being decoded while one is in use


def prefetch(batches):
    """The batches of a generator that has threads begin each, finished, and AHEAD of them begun before their turn.

    batches: of functions without arguments that wait for the threads and return the batch.
    """
    begun = collections.deque()
    for finish in batches:
        begun.append(finish)
        if len(begun) > AHEAD:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _begin(samples, pool, fill, shape):
    """Have threads fill the batch of these samples; returns the function that waits for it, see `prefetch`."""
    imgs = np.empty((len(samples), *shape), "float32")
    labels = np.array([[label] for _, label in samples], "float32")
    futures = [pool.submit(fill, out, path) for out, (path, _) in zip(imgs, samples)]
    return functools.partial(_finish, imgs, labels, futures)


def _finish(imgs, labels, futures):
    for future in futures:
        future.result()  # raises what the thread met
    return imgs, labels
