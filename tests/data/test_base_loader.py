"""Functions as loaders: what training and evaluation may ask of them."""

import numpy as np
import pytest

from palm_cls.core.errors import InputError
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.base_loader import CallableLoader, as_loader

BATCHES = [(np.zeros((2, 1, 4, 4), "float32"), np.zeros((2, 1), "float32")) for _ in range(3)]


def test_a_loader_stays_as_it_is():
    loader = ArrayLoader(None, np.zeros((3, 4, 4), "uint8"), np.zeros((3, 1), "int64"), 2, ["0"])
    assert as_loader(loader) is loader
    wrapped = as_loader(lambda: BATCHES)
    assert as_loader(wrapped) is wrapped


def test_a_function_has_the_whole_protocol():
    loader = as_loader(lambda: BATCHES)
    for batches in (loader(), loader.iter_from(0)):
        assert [labels.shape for _, labels in batches] == [(2, 1)] * 3
    assert (loader.num_samples, loader.num_batches, loader.order, loader.labels, loader.fingerprint) == (None,) * 5
    assert (loader.metadata, loader.names(0), loader.resumable, loader.shard) == ({}, [], False, (0, 1))
    assert (loader.seed, loader.epoch, loader.augmentation, loader.views) == (0, 0, None, 1)
    loader.seed, loader.epoch = 3, 1  # as training does


def test_a_function_cannot_resume_within_an_epoch_or_show_an_image():
    loader = as_loader(lambda: BATCHES)
    with pytest.raises(InputError, match="cannot resume at batch 2"):
        loader.iter_from(2)
    for load in (loader.load_image, loader.load_input):
        with pytest.raises(InputError, match="cannot load single images"):
            load("P0001.jpg")


def test_numbers_that_are_known():
    loader = CallableLoader(lambda: BATCHES, num_samples=6, num_batches=3)
    assert (loader.num_samples, loader.num_batches) == (6, 3)
