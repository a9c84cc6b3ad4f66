"""Runs that are made up, and a small network and reader to train in no time."""

import json
from pathlib import Path

import numpy as np

from helpers import tiny  # noqa: F401  the recipe
from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.data.loaders import ImageLoader
from palm_cls.eval.engine import MIN_IMAGES
from palm_cls.models.lenet import LeNet

import paddle
import paddle.nn.functional as F


def made_up_run(directory, accuracies, model="lenet", seed=0, **settings):
    """A run with these validation accuracies; its other numbers follow from them."""
    directory.mkdir(parents=True)
    settings = {"model": model, "seed": seed, "epochs": len(accuracies), "valid_sha256": "same", **settings}
    (directory / "settings.json").write_text(json.dumps({**settings, "versions": {}}))
    rows = [
        f"{epoch},0.001,{1.1 - accuracy},{accuracy - 0.1},{1 - accuracy},{accuracy},10"
        for epoch, accuracy in enumerate(accuracies)
    ]
    header = "epoch,learning_rate,train_loss,train_accuracy,valid_loss,valid_accuracy,valid_images"
    if rows:
        (directory / "log.csv").write_text("\n".join([header, *rows, ""]))
    return directory


STEPS, EPOCHS = 4, 3  # steps an epoch


VALID = MIN_IMAGES + 20  # validation images: so many that Paddle Inference evaluates them


class SmallReader(ImageLoader):
    """A reader of 1x28x28 images that are drawn from their names; nothing is read from the disk."""

    image_size = 28

    def iter_from(self, batch):
        yield from map(self.load, self._local_batches(batch))

    def load(self, samples):
        imgs = [np.random.RandomState(int(path.name[1:5])).rand(1, 28, 28) + label for path, label in samples]
        return np.stack(imgs).astype("float32"), np.array([[label] for _, label in samples], dtype="float32")


def small_reader(mode, images=None):
    images = images or {"train": 4 * STEPS - 1, "valid": VALID}[mode]
    samples = [(Path(f"P{k:04d}.jpg"), k % 2) for k in range(images)]
    return SmallReader(Path(), samples, batch_size=4, mode=mode)


class Network(paddle.nn.Layer):
    """LeNet with dropout, so that paddle's random numbers matter, and a layer whose bits depend on the threads."""

    def __init__(self):
        super().__init__()
        self.lenet = LeNet(1, in_channels=1, image_size=28)
        self.wide = paddle.nn.Linear(28 * 28, 64)

    def forward(self, x):
        x = F.dropout(x, 0.2, training=self.training)
        return self.lenet(x) + F.relu(self.wide(paddle.flatten(x, 1))).mean(1, keepdim=True)


def contents(directory):
    """What a run leaves behind, to the bit, but for paddle's own names of parameters, which count up in a process."""
    return {path.name: content(path) for path in directory.iterdir() if path.name != run_dir.LOCK}


def content(path):
    if path.suffix == ".json":
        return {name: value for name, value in json.loads(path.read_text()).items() if name not in ("sha256", "files")}
    if path.suffix in (".pdparams", ".pdopt"):
        return {name: value.tobytes() for name, value in read_state(path).items() if isinstance(value, np.ndarray)}
    return path.read_bytes()
