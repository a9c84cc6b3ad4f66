"""All recipes of `tools/train.py --model NAME` (`--list` prints them), and `build_model(NAME)`."""

import importlib
from dataclasses import dataclass, field, replace

from palm_cls.core.console import format_table
from palm_cls.core.errors import InputError, did_you_mean

OVERRIDABLE = ("learning_rate", "momentum", "batch_size", "epochs", "shuffle", "augmentation", "image_size")  # by a run
IMAGE_SIZES = range(32, 1025)  # pixels
FORMER_IMAGE_SIZE = {"palm": 224}  # of runs and weights that do not state theirs
AUGMENTATIONS = ("lesson", "paper", "strong")  # see palm_cls.data.augment


@dataclass(frozen=True)
class Recipe:
    """A network and its hyper-parameters; the defaults are the lesson's on fundus images.

    What follows from them is no field: see `loss_name` and `optimizer_name`.
    """

    network: str  # module and class, or function, in palm_cls.models: "lenet.LeNet"
    model_kwargs: dict = field(default_factory=dict)  # its arguments
    dataset: str = "palm"  # photographs; "mnist", "fashion-mnist": ten logits (palm_cls.data.mnist)
    pixel_range: tuple = (-1.0, 1.0)  # the network's input for the bytes 0 and 255
    augmentation: str = None  # of the training images: one of AUGMENTATIONS, or none
    learning_rate: float = 0.001
    momentum: float = 0.9  # 0: plain SGD
    weight_decay: float = 0.0  # times the weights, added to their gradients
    lr_schedule: str = "constant"  # or "cosine": see palm_cls.training.experiment
    batch_size: int = 10
    epochs: int = 5
    shuffle: bool = True  # the training images, anew each epoch; else in the order of names or file
    log_every: int = 10  # batches between two lines of loss
    hint: str = ""  # what to do after a run, printed at its end

    @property
    def image_size(self):
        """Height and width of the network's input, in pixels."""
        return self.model_kwargs.get("image_size", 224 if self.dataset == "palm" else 28)

    @property
    def num_logits(self):
        """Number of logits: one for two classes, else one for each."""
        return self.model_kwargs.get("num_classes", 1 if self.dataset == "palm" else 10)

    @property
    def is_resizable(self):
        """Whether the network takes images of any of IMAGE_SIZES."""
        return self.dataset == "palm" and "image_size" in self.model_kwargs


RECIPES = {
    "lenet": Recipe(
        network="lenet.LeNet",
        model_kwargs={"num_classes": 1},
        hint="LeNet with sigmoid is not meant to converge on these images: that is the lesson's point.\n"
        "Try the same network with ReLU (--model lenet-relu), or AlexNet (--model alexnet).",
    ),
    "lenet-relu": Recipe(network="lenet.LeNet", model_kwargs={"num_classes": 1, "activation": "relu"}),
    "alexnet": Recipe(network="alexnet.AlexNet", model_kwargs={"num_classes": 1}),
    "alexnet-paper": Recipe(network="alexnet_variants.AlexNetPaper", model_kwargs={"num_classes": 1}),
    "alexnet-torchvision": Recipe(network="alexnet_variants.AlexNetTorchvision", model_kwargs={"num_classes": 1}),
    "alexnet-keras": Recipe(network="alexnet_variants.AlexNetKeras", model_kwargs={"num_classes": 1}),
    "vgg16": Recipe(network="imagenet.vgg16", model_kwargs={"num_classes": 1}),
    "googlenet": Recipe(network="imagenet.GoogLeNet", model_kwargs={"num_classes": 1}),
    "resnet50": Recipe(network="imagenet.resnet50", model_kwargs={"num_classes": 1}),
    "palm": Recipe(  # our recipe, chosen by cross-validation on the training images: see the README
        network="palmnet.PalmNet",
        model_kwargs={"num_classes": 1, "image_size": 112},
        augmentation="strong",
        learning_rate=0.03,
        weight_decay=0.001,
        lr_schedule="cosine",
        batch_size=16,
        epochs=128,
    ),
    "lenet-mnist": Recipe(  # as in the lesson, whose loader of digits does not shuffle
        network="lenet.LeNet",
        model_kwargs={"num_classes": 10, "in_channels": 1, "image_size": 28},
        dataset="mnist",
        shuffle=False,
        log_every=1000,
    ),
    "cnn-mnist": Recipe(
        network="mnist_nets.CNNMnist",
        dataset="mnist",
        momentum=0.95,
        batch_size=128,
        epochs=10,
        log_every=100,
    ),
    "lenet-fashion": Recipe(
        network="mnist_nets.LeNetFashion",
        dataset="fashion-mnist",
        pixel_range=(0.0, 1.0),
        learning_rate=0.9,
        momentum=0,
        batch_size=256,
        epochs=10,
        log_every=100,
    ),
}


def find_recipe(name, image_size=None, num_classes=2, **overrides):
    """Return the recipe of a name.

    Args:
        name: a key of RECIPES.
        image_size: another size of the network's input, in pixels, if the network takes one.
        num_classes: number of classes of photographs, from 2; those of digits are always ten.
        overrides: other values for some of its OVERRIDABLE fields.

    Returns:
        A Recipe.

    Raises:
        InputError: there is no such recipe, or no such augmentation; the message lists those there are. Or the network
            takes images of one size only.
        TypeError: another field would be overridden.
    """
    if name not in RECIPES:
        raise InputError(f"model {name!r} is none of {', '.join(RECIPES)}{did_you_mean(name, RECIPES)}")
    if unknown := sorted(set(overrides) - set(OVERRIDABLE)):
        raise TypeError(f"of a recipe {', '.join(OVERRIDABLE)} can be overridden, not {', '.join(unknown)}")
    recipe = replace(RECIPES[name], **overrides)
    if image_size not in (None, recipe.image_size):
        if not (recipe.is_resizable and image_size in IMAGE_SIZES):
            raise InputError(f"{name} takes no images of {image_size} x {image_size} pixels")
        recipe = replace(recipe, model_kwargs={**recipe.model_kwargs, "image_size": image_size})
    if recipe.dataset == "palm" and num_classes > 2:
        recipe = replace(recipe, model_kwargs={**recipe.model_kwargs, "num_classes": num_classes})
    if recipe.augmentation not in (None, *AUGMENTATIONS):
        raise InputError(
            f"augmentation {recipe.augmentation!r} is none of {', '.join(AUGMENTATIONS)}"
            + did_you_mean(recipe.augmentation, AUGMENTATIONS)
        )
    return recipe


def trained_recipe(name, metadata, **overrides):
    """Return the recipe that weights were trained with.

    Args:
        name: a key of RECIPES.
        metadata: Metadata of the weights, or settings of their run: their "input" and "classes" count.
        overrides: as for `find_recipe`.
    """
    return find_recipe(name, image_size_of(name, metadata), stored_num_classes(metadata), **overrides)


def stored_num_classes(metadata):
    """Return the number of classes in metadata; 2, the lesson's, if they do not state it."""
    classes = metadata.get("classes")
    return len(classes) if isinstance(classes, list) and len(classes) > 1 else 2


def image_size_of(name, metadata):
    """Return the size of a trained network's input, in pixels.

    Args:
        name: Its recipe.
        metadata: Metadata of its weights, or settings of its run; their "input" counts if the recipe is resizable.
    """
    recipe = find_recipe(name)
    if not recipe.is_resizable:
        return recipe.image_size
    if not isinstance(metadata.get("input"), dict):
        return FORMER_IMAGE_SIZE.get(name, recipe.image_size)
    return stored_image_size(metadata, recipe.image_size)


def stored_image_size(metadata, default):
    """Return the size of the input in metadata, in pixels; `default` if that is none of IMAGE_SIZES."""
    spec = metadata.get("input")
    size = spec.get("size") if isinstance(spec, dict) else None
    return size if isinstance(size, int) and size in IMAGE_SIZES else default


def build_model(name, image_size=None, num_classes=2):
    """Build the network of a recipe, its weights drawn from paddle's random state.

    Args:
        name: a key of RECIPES.
        image_size: another size of its images than the recipe's, in pixels, if the network takes one.
        num_classes: number of classes of photographs, from 2.

    Returns:
        A paddle.nn.Layer that takes images, float32 [N, *input_shape], and returns logits, float32 [N, 1] for two
        classes and [N, num_classes] for more; its `input_shape` is (channels, height, width).

    Raises:
        InputError: as `find_recipe`.
    """
    return build_network(find_recipe(name, image_size, num_classes))


def build_network(recipe):
    """Build the network of a Recipe, as `build_model` does."""
    module, _, network = recipe.network.partition(".")
    return getattr(importlib.import_module(f"palm_cls.models.{module}"), network)(**recipe.model_kwargs)


def loss_name(recipe):
    """Return the name of a recipe's loss: `palm_cls.eval.losses.cross_entropy` chooses it by the number of logits."""
    return f"{'sigmoid' if recipe.num_logits == 1 else 'softmax'} cross-entropy"


def optimizer_name(recipe):
    """Return the name of a recipe's optimizer in paddle.optimizer, as `train` chooses it."""
    return "Momentum" if recipe.momentum else "SGD"


def format_recipes():
    """Format all recipes as text: a table of networks and one of hyper-parameters."""
    what = [("model", "network", "data", "pixels", "loss")]
    how = [
        ("model", "optimizer", "learning rate", "momentum", "decay")
        + ("batch", "epochs", "order", "loss line", "augmentation")
    ]
    for name, recipe in RECIPES.items():
        low, high = recipe.pixel_range
        what.append((name, _network_call(recipe), recipe.dataset, f"{low:g}..{high:g}", loss_name(recipe)))
        rate = f"{recipe.learning_rate}{'' if recipe.lr_schedule == 'constant' else f', {recipe.lr_schedule}'}"
        numbers = (rate, recipe.momentum or "-", recipe.weight_decay or "-", recipe.batch_size, recipe.epochs)
        order = "shuffled" if recipe.shuffle else "file order"
        rest = (order, f"every {recipe.log_every}", recipe.augmentation or "none")
        how.append((name, optimizer_name(recipe), *map(str, numbers), *rest))
    return "\n".join([*format_table(what), "", *format_table(how)])


def _network_call(recipe):
    kwargs = ", ".join(f"{name}={value}" for name, value in recipe.model_kwargs.items())
    return f"{recipe.network.rpartition('.')[2]}({kwargs})"
