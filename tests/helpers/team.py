"""What each of several processes does in test_distributed.py.

python -m paddle.distributed.launch ... tests/helpers/team.py FUNCTION DIRECTORY calls that function of this module.
"""

import contextlib
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the project

from helpers.runs import Network, SmallReader, small_reader  # noqa: E402
from palm_cls.core import device, environment
from palm_cls.core.errors import RunError
from palm_cls.models.lenet import LeNet
from palm_cls.training.experiment import train

import paddle.nn as nn  # noqa: E402

IMAGES = 13  # in batches of 4: the last one has nothing for a second process
STEP = 6  # of eight, the second of the second epoch, in which a signal comes


class Stopped(Network):
    """It is sent SIGTERM in process 1, as the launcher sends it for a Ctrl-C."""

    number, in_backward, steps = signal.SIGTERM, False, 0

    def forward(self, x):
        logits = super().forward(x)
        self.steps += self.training
        if self.training and self.steps == STEP and environment.rank() == 1:
            logits.register_hook(self.send) if self.in_backward else self.send()
        return logits

    def send(self, _=None):
        os.kill(os.getpid(), self.number)


class Killed(Stopped):
    number = 9  # SIGKILL, which not every system knows by name


class KilledInBackward(Killed):
    in_backward = True


class Normalised(LeNet):
    """It has a batch normalisation whose running mean follows from the images alone, and a layer without a part."""

    def __init__(self):
        super().__init__(1, in_channels=1, image_size=28)
        self.norm, self.unused = nn.BatchNorm2D(1), nn.Linear(2, 2)

    def forward(self, x):
        self.norm(x)
        return super().forward(x)


class ThreeClasses(SmallReader):
    """A reader of images of three classes."""

    def load(self, samples):
        imgs, labels = super().load(samples)
        return imgs, labels.astype("int64")


def three_classes():
    """The history of a network for three classes, whose losses have weights."""
    device.set_seed(1)
    loaders = []
    for mode in ("train", "valid"):
        samples = [(Path(f"P{k:04d}.jpg"), k % 3) for k in range(IMAGES)]
        loaders.append(ThreeClasses(Path(), samples, batch_size=4, mode=mode, classes=["a", "b", "c"]))
    with contextlib.redirect_stdout(io.StringIO()):
        model = LeNet(3, in_channels=1, image_size=28)
        return train(model, *loaders, epochs=2, loss_weights=[0.5, 1.0, 3.0])


def run(network, seed=1, **options):
    """Train a fresh network: (network, the loss of each step as it is printed, history)."""
    device.set_seed(seed)
    model, printed = network(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        loaders = small_reader("train", IMAGES), small_reader("valid", IMAGES)
        history = train(model, *loaders, **{"epochs": 2, "save_every": 3, "log_every": 1, **options})
    assert bool(printed.getvalue()) == (environment.rank() == 0)
    return model, [float(text) for text in re.findall(r"loss is: (\S+)", printed.getvalue())], history


def fixed_steps():
    """The losses of fixed steps, the history, and the running mean of a batch normalisation."""
    model, losses, history = run(Normalised)
    return {"losses": losses, "history": history, "mean": model.norm._mean.item(), "three": three_classes()}


def runs(directory):
    """Write what fixed steps give; make a run in one go, one in two, and one that is stopped within an epoch."""
    results = fixed_steps()
    if environment.rank() == 0:
        Path(directory, "results.json").write_text(json.dumps(results))
    run(Network, output=f"{directory}/whole")
    run(Network, output=f"{directory}/parted", epochs=1)
    run(Network, output=f"{directory}/parted", resume=True)
    with contextlib.suppress(KeyboardInterrupt):
        run(Stopped, output=f"{directory}/stopped", save_every=None)
    if environment.rank() == 0:
        names = sorted(path.name for path in Path(directory, "stopped").iterdir())
        Path(directory, "stopped.json").write_text(json.dumps(names))
    run(Network, output=f"{directory}/stopped", resume=True)


def killed(directory):
    run(Killed, output=f"{directory}/run")


def killed_in_backward(directory):
    run(KilledInBackward, output=f"{directory}/run")


def resumed(directory):
    run(Network, output=f"{directory}/run", resume=True)


def different(directory):
    """Train another network in each process, from another seed, with other checkpoints, which is refused."""
    run([Network, Normalised][environment.rank()], seed=environment.rank(), save_every=3 + environment.rank())


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](sys.argv[2])
    except RunError as error:
        sys.exit(str(error))
