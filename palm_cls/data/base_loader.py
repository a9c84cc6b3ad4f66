"""The protocol of all loaders: what training, evaluation and reports need of one."""

import random

from palm_cls.core.errors import InputError
from palm_cls.data.data_root import is_in_demo_set
from palm_cls.data.images import PIXEL_RANGE


class BaseLoader:
    """A loader: each call yields the batches of an epoch, (imgs, labels).

    A subclass defines `iter_from(batch)`, which yields the batches of the present order from number `batch` on, and
    `name_of(sample)`, which is unique.

    Attributes:
        samples: list of what stands for an image, in the present order.
        batch_size: number of images of a batch; the last batch may be smaller.
        shuffle: whether each epoch shuffles the samples on top of the last order.
        directory: of the images, or None.
        labels: of the samples in the present order, a list of int, or None.
        classes: names of the labels, or None.
        valid_fraction: share of the images to validate on by which `palm_cls.data.split` divided them, or None.
        fingerprint: sha256 of images and labels, or None.
        input_spec: size and channels of the network's input, or None; with `pixel_range`, the values of the bytes 0
            and 255, it is stored with the weights.
        seed, epoch: the augmentation's random numbers follow from them; each call increments `epoch` at its end.
        augmentation: None, or a name of `palm_cls.data.augment`.
        views: of each image in a batch: 1; 8, its turns and mirror images; or 10, crops. Several make batches float32
            [N, views, channels, height, width].
        shard: (first, step), the samples of each batch that are yielded; the others are for other processes, see
            `palm_cls.training.distributed`.
        resumable: whether an epoch can be resumed, by `order` and `iter_from`.
    """

    directory = labels = classes = fingerprint = input_spec = valid_fraction = None
    pixel_range = PIXEL_RANGE
    seed = epoch = 0
    augmentation = None
    views = 1
    shard = 0, 1
    resumable = True

    def __init__(self, samples, batch_size, shuffle):
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is not positive")
        self.samples, self.batch_size, self.shuffle = samples, batch_size, shuffle

    def __call__(self):
        if self.shuffle:
            random.shuffle(self.samples)
        yield from self.iter_from(0)
        self.epoch += 1

    @property
    def num_samples(self):
        """Number of images of an epoch, or None if unknown."""
        return len(self.samples)

    @property
    def num_batches(self):
        """Number of batches of an epoch, or None if unknown."""
        return -(-self.num_samples // self.batch_size)

    @property
    def metadata(self):
        """Metadata stored with weights trained on these batches: {"input", "classes", "demo"}, or {}."""
        spec = {**self.input_spec, "range": list(self.pixel_range)}
        return {"input": spec, "classes": self.classes, "demo": is_in_demo_set(self.directory)}

    @property
    def order(self):
        """Names of the samples in the present order, or None; settable to another order."""
        return [self.name_of(sample) for sample in self.samples]

    @order.setter
    def order(self, names):
        sample_of = {self.name_of(sample): sample for sample in self.samples}
        if sorted(names) != sorted(sample_of):
            raise InputError("these are other images than those whose order is restored; resume with the same images")
        self.samples[:] = [sample_of[name] for name in names]

    def names(self, batch):
        """List the names of the samples in batch number `batch`; [] if unknown."""
        return [self.name_of(sample) for sample in self._batch(batch)]

    def check_fits(self, model):
        """Raise InputError if a network states another size of its images than these have."""
        shape, spec = getattr(model, "input_shape", None), self.input_spec
        if shape and spec and shape[-1] != spec["size"]:
            raise InputError(
                f"the network takes images of {shape[-1]} x {shape[-1]} pixels, and those of {self.directory} are "
                f"loaded with {spec['size']} x {spec['size']}; set the loader's image_size to {shape[-1]}"
            )

    def load_image(self, name):
        """Return the image of that name for people: uint8 BGR [height, width, 3]."""
        raise InputError(f"{type(self).__name__} cannot load single images; use data_loader and valid_data_loader")

    def load_input(self, name):
        """Return the image of that name as the network's input: float32 [channels, height, width]."""
        raise InputError(f"{type(self).__name__} cannot load single images; use data_loader and valid_data_loader")

    def _batch(self, batch):
        return self.samples[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _local_batches(self, batch):
        """List the samples of this shard, batch by batch; of a batch without any, the first one."""
        (first, step), batches = self.shard, [self._batch(number) for number in range(batch, self.num_batches)]
        return [samples[first::step] or samples[:1] for samples in batches]


class CallableLoader(BaseLoader):
    """A function as a loader; names, order and labels are unknown.

    Args:
        function: without arguments, returns an iterable of (imgs, labels).
        num_samples, num_batches: of an epoch, if known.
    """

    num_samples = num_batches = order = None
    batch_size = 0  # unknown
    metadata = {}
    resumable = False

    def __init__(self, function, num_samples=None, num_batches=None):
        self._function, self.num_samples, self.num_batches = function, num_samples, num_batches

    def __call__(self):
        return iter(self._function())

    def iter_from(self, batch):
        """Yield the batches of an epoch; it cannot start at a later one."""
        if batch:
            raise InputError(f"this loader cannot resume at batch {batch}: it is a function; use data_loader")
        return self()

    def names(self, batch):
        """Return []."""
        return []


def as_loader(loader):
    """Return a BaseLoader as it is, and any other callable wrapped in a CallableLoader."""
    return loader if isinstance(loader, BaseLoader) else CallableLoader(loader)
