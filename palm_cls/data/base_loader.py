"""The protocol of a loader, which training and evaluation rely on."""

import random

from palm_cls.core.errors import InputError
from palm_cls.data.images import INPUT_SPEC, PIXEL_RANGE
from palm_cls.data.labels import CLASSES
from palm_cls.data.palm import is_in_demo_set


class BaseLoader:
    """What training and evaluation require of a loader; calling it yields one epoch of (imgs, labels) batches.

    Attributes:
        num_samples, num_batches, batch_size: Sizes of an epoch; None where they are unknown.
        metadata: What weights that are trained on these images store about their input, classes and origin.
        labels: The labels in the present order, a list of int.
        seed, epoch: From them follows what augmentation does.
        shard: (rank, number of processes) that share each batch.
        resumable: Whether `iter_from` and `order` can resume an epoch.
    """

    input_spec, classes, directory = INPUT_SPEC, CLASSES, ""
    augmentation, ten_crop, pixel_range = None, False, PIXEL_RANGE
    seed, epoch, shard, resumable = 0, 0, (0, 1), True

    def __init__(self, samples, batch_size, shuffle):
        """Divide a list of samples, each of which stands for an image, into batches."""
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is not positive")
        self.samples, self.batch_size, self.shuffle = samples, batch_size, shuffle

    def __call__(self):
        """Shuffle if this loader does, and yield the batches of one epoch."""
        if self.shuffle:
            random.shuffle(self.samples)
        yield from self.iter_from(0)
        self.epoch += 1

    def iter_from(self, batch):
        """Yield the batches of the present order from number `batch`."""
        raise NotImplementedError

    def name_of(self, sample):
        """Return the unique name of a sample."""
        raise NotImplementedError

    @property
    def num_samples(self):
        return len(self.samples)

    @property
    def num_batches(self):
        return -(-self.num_samples // self.batch_size)

    @property
    def metadata(self):
        spec = {**self.input_spec, "range": list(self.pixel_range)}
        return {"input": spec, "classes": self.classes, "demo": is_in_demo_set(self.directory)}

    @property
    def order(self):
        """Names of the images in the present order; can be set to another order of the same names."""
        return [self.name_of(sample) for sample in self.samples]

    @order.setter
    def order(self, names):
        sample_of = {self.name_of(sample): sample for sample in self.samples}
        if sorted(names) != sorted(sample_of):
            raise InputError("these are other images than those whose order is to be restored")
        self.samples[:] = [sample_of[name] for name in names]

    def names(self, batch):
        """Return the names of the images in batch number `batch`."""
        return [self.name_of(sample) for sample in self._batch(batch)]

    def _batch(self, batch):
        return self.samples[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _shards(self, batch):
        """Return this process's samples of each batch from number `batch`; never none: else the batch's first."""
        (rank, world_size), batches = self.shard, [self._batch(number) for number in range(batch, self.num_batches)]
        return [samples[rank::world_size] or samples[:1] for samples in batches]


class CallableLoader(BaseLoader):
    """Any callable that yields (imgs, labels) batches as a loader that cannot resume an epoch."""

    resumable, num_samples, num_batches, batch_size, order, metadata = False, None, None, 0, None, {}

    def __init__(self, batches):
        self._batches = batches
        self.num_samples = getattr(batches, "num_samples", None)  # a loader of the user's own may have it

    def __call__(self):
        return self._batches()

    def names(self, batch):
        return []


def as_loader(loader):
    """Return a BaseLoader as it is, another callable as a CallableLoader."""
    return loader if isinstance(loader, BaseLoader) else CallableLoader(loader)
