"""The recipe "tiny", which trains in no time: known once this module is imported.

python tests/helpers/tiny.py ... is tools/train.py ... with that recipe. With INTERRUPTED_STEP=N in the environment it
presses Ctrl-C in its Nth training step.
"""

import itertools
import os
import runpy
import signal
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from palm_cls import recipes
from palm_cls.models import lenet

import paddle.nn as nn  # noqa: E402

STEPS = itertools.count(1)


class Tiny(nn.Layer):
    """Logits [N, num_classes] of images [N, 3, 224, 224], with dropout, so that paddle's random numbers matter."""

    input_shape = (3, 224, 224)

    def __init__(self, num_classes=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2D(4),
            nn.Flatten(),
            nn.Linear(48, 8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(8, num_classes),
        )

    def forward(self, x):
        if self.training and str(next(STEPS)) == os.environ.get("INTERRUPTED_STEP"):
            os.kill(os.getpid(), signal.SIGINT)
        return self.layers(x)


lenet.Tiny = Tiny
recipes.RECIPES["tiny"] = recipes.Recipe(network="lenet.Tiny", model_kwargs={}, epochs=1)

if __name__ == "__main__":
    sys.argv[0] = str(PROJECT / "tools" / "train.py")
    sys.path.insert(0, str(PROJECT / "tools"))
    runpy.run_path(sys.argv[0], run_name="__main__")
