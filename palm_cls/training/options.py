"""The options of a run: those that decide its numbers, and those of the machine."""

import os
from collections import Counter
from dataclasses import dataclass, fields
from typing import Optional

from palm_cls.data.options import DataOptions, stored_options
from palm_cls.recipes import OVERRIDABLE, find_recipe
from palm_cls.training import loop

# Options that a resumed run must not change (see `immutable`), and all that it takes from its settings.
IMMUTABLE = (
    "train_csv",
    "valid_csv",
    "valid_fraction",
    "classes",
    "skip_bad",
    "class_weights",
    "seed",
    "weights",
    "new_head",
    "pretrained",
    "batch_size",
    "momentum",
    "shuffle",
    "augmentation",
    "image_size",
)
RESUME_KEYS = (*IMMUTABLE, "ordered", "data", "epochs", "learning_rate", "save_every")


@dataclass
class RecipeConfig(DataOptions, loop.TrainConfig):
    """How a recipe is trained; the defaults are those of settings.json files that lack an option.

    Attributes:
        model: Name of the recipe.
        ordered: Whether three or more classes have an order, as grades do: evaluations add a weighted kappa.
        class_weights: "balanced" to weight the losses of each class by the inverse of its share; None for 1.
        seed: Seed of all random numbers.
        weights: Weights to start from, as `load` takes them, or None.
        new_head: Whether to leave out the last layer of these weights, which are for other classes.
        pretrained: Whether to start from ImageNet's weights, see `load_pretrained`.
        batch_size: Images per step.
        shuffle: Whether each epoch shuffles the training images.
        augmentation: Augmentation of the training images, see `palm_cls.data.augment`, or None.
        image_size: Pixels of the network's input; None for the recipe's.
        schedule: Schedule of the learning rate: "constant" or "cosine".
    """

    model: str = ""
    ordered: bool = False
    class_weights: Optional[str] = None
    seed: int = 0
    weights: Optional[str] = None
    new_head: bool = False
    pretrained: bool = False
    batch_size: int = 10
    shuffle: bool = True
    augmentation: Optional[str] = None
    image_size: Optional[int] = None
    schedule: str = "constant"

    @property
    def data_options(self):
        """The DataOptions among these options."""
        return stored_options(vars(self))

    @property
    def num_classes(self):
        """Number of classes; 2 as long as no loader has stated them."""
        return len(self.classes or (0, 1))

    def settle(self, dataset, train_loader):
        """Replace what was asked for by what settings.json stores: the data that was found, and absolute paths."""
        self.data, self.classes, self.positive = absolute(dataset.root), train_loader.classes, None
        self.valid_fraction = train_loader.valid_fraction
        self.train_csv, self.valid_csv, self.weights = map(absolute, (self.train_csv, self.valid_csv, self.weights))
        if self.class_weights:
            self.loss_weights = balanced_weights(train_loader.labels, self.num_classes)


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


def balanced_weights(labels, num_classes):
    """Return a weight for each class, the inverse of its share of the labels; their mean over the labels is 1."""
    counts = Counter(labels)
    return [len(labels) / (num_classes * max(1, counts[number])) for number in range(num_classes)]


def split_options(name, options):
    """Split options into the RecipeConfig of a recipe, the RunOptions, and the Recipe with its overrides."""
    options = dict(options)
    on_machine = pop_run_options(options)
    own = _pop(options, {*RESUME_KEYS, "positive"} - set(OVERRIDABLE))
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
