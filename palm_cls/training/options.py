"""The options of a run: those that decide its numbers, and those of the machine."""

import os
from dataclasses import dataclass, fields
from typing import Optional

from palm_cls.recipes import OVERRIDABLE, find_recipe
from palm_cls.training import loop

# Options that a resumed run must not change (see `immutable`), and all that it takes from its settings.
IMMUTABLE = (
    "train_csv",
    "skip_bad",
    "seed",
    "weights",
    "pretrained",
    "batch_size",
    "momentum",
    "shuffle",
    "augmentation",
    "image_size",
)
RESUME_KEYS = (*IMMUTABLE, "data", "epochs", "learning_rate", "save_every")


@dataclass
class RecipeConfig(loop.TrainConfig):
    """How a recipe is trained; the defaults are those of settings.json files that lack an option.

    Attributes:
        model: Name of the recipe.
        data: Directory of the data set; None where the recipe's images usually are.
        train_csv: Table of the training labels; None to take them from the data set.
        skip_bad: Whether to leave out training images that cannot be decoded.
        seed: Seed of all random numbers.
        weights: Weights to start from, as `load` takes them, or None.
        pretrained: Whether to start from ImageNet's weights, see `load_pretrained`.
        batch_size: Images per step.
        shuffle: Whether each epoch shuffles the training images.
        augmentation: Augmentation of the training images, see `palm_cls.data.augment`, or None.
        image_size: Pixels of the network's input; None for the recipe's.
        schedule: Schedule of the learning rate: "constant" or "cosine".
    """

    model: str = ""
    data: Optional[str] = None
    train_csv: Optional[str] = None
    skip_bad: bool = False
    seed: int = 0
    weights: Optional[str] = None
    pretrained: bool = False
    batch_size: int = 10
    shuffle: bool = True
    augmentation: Optional[str] = None
    image_size: Optional[int] = None
    schedule: str = "constant"

    def resolve_paths(self, dataset):
        """Make the paths those that settings.json stores; data is the directory of the data set that was found."""
        self.data, self.train_csv, self.weights = map(absolute, (dataset.root, self.train_csv, self.weights))


@dataclass
class RunOptions:
    """How a run is made on this machine; nothing here changes its numbers.

    Attributes:
        device: "cpu", "gpu", "gpu:1", ...; by default the GPU if there is one.
        cache: Whether to keep resized images on disk.
        download: Whether to download missing files of MNIST or Fashion-MNIST.
        report: Whether to write a report at the end.
        visualdl: Whether to write scalars for VisualDL; None where a resumed run did.
    """

    device: Optional[str] = None
    cache: bool = True
    download: bool = False
    report: bool = True
    visualdl: Optional[bool] = None


def split_options(name, options):
    """Split options into the RecipeConfig of a recipe, the RunOptions, and the Recipe with its overrides."""
    options = dict(options)
    on_machine = pop_run_options(options)
    own = _pop(options, set(RESUME_KEYS) - set(OVERRIDABLE))
    recipe = find_recipe(name, **options)
    of_recipe = {key: getattr(recipe, key) for key in (*OVERRIDABLE, "weight_decay", "log_every")}
    config = RecipeConfig(model=name, schedule=recipe.lr_schedule, **of_recipe, **own)
    return config, on_machine, recipe


def pop_run_options(options):
    """Take the RunOptions out of a dictionary of options."""
    return RunOptions(**_pop(options, [entry.name for entry in fields(RunOptions)]))


def _pop(options, names):
    """Take the options of these names out of a dictionary."""
    return {name: options.pop(name) for name in names if name in options}


def immutable(name):
    """Return the options that a resumed run of a recipe must not change; a schedule fixes the epochs, too."""
    return IMMUTABLE if find_recipe(name).lr_schedule == "constant" else (*IMMUTABLE, "epochs")


def absolute(path):
    """Return a path as settings.json stores it, so that a run can be resumed from another directory."""
    return None if path is None else os.path.abspath(path)
