"""The recipes that `tools/train.py --model NAME` knows, in full (`--list` prints them), and `build_model(NAME)`."""

import importlib
from collections import namedtuple

from palm_cls.core.console import format_table
from palm_cls.core.errors import InputError, did_you_mean

# A network and how it is trained. The defaults are those of the lesson on fundus images. What follows from these
# entries is not one of them: see `loss_of` and `optimizer_of`.
Recipe = namedtuple(
    "Recipe",
    (
        "network",  # module and class, or function, in palm_cls.models
        "arguments",  # of that
        "data",  # "palm": the fundus images, one logit; "mnist", "fashion-mnist": see palm_cls.data.mnist, ten logits
        "pixel_range",  # what the network is fed with for the bytes 0 and 255
        "augmentation",  # of the training images: None or a way of palm_cls.data.augment
        "learning_rate",
        "momentum",  # 0: plain SGD
        "weight_decay",  # times the weights, added to their gradients
        "schedule",  # of the learning rate: "constant", or "cosine": see palm_cls.training.experiment
        "batch_size",
        "epochs",
        "shuffle",  # the training images, anew each epoch; else they come in the order of names or file
        "log_every",  # batches from one line of loss to the next
        "advice",  # what to do after a run, where that is not plain
    ),
    defaults=("palm", (-1.0, 1.0), None, 0.001, 0.9, 0.0, "constant", 10, 5, True, 10, ""),
)
# for one run, by whoever starts it
CHANGEABLE = ("learning_rate", "momentum", "batch_size", "epochs", "shuffle", "augmentation")
AUGMENTATIONS = ("lesson", "paper", "strong")  # see palm_cls.data.augment

RECIPES = {
    "lenet": Recipe(
        network="lenet.LeNet",
        arguments={"num_classes": 1},
        advice="LeNet with sigmoid is not meant to converge on these images: that is the lesson's point.\n"
        "Try the same network with ReLU (--model lenet-relu), or AlexNet (--model alexnet).",
    ),
    "lenet-relu": Recipe(network="lenet.LeNet", arguments={"num_classes": 1, "activation": "relu"}),
    "alexnet": Recipe(network="alexnet.AlexNet", arguments={"num_classes": 1}),
    "alexnet-paper": Recipe(network="alexnet_variants.AlexNetPaper", arguments={"num_classes": 1}),
    "alexnet-torchvision": Recipe(network="alexnet_variants.AlexNetTorchvision", arguments={"num_classes": 1}),
    "alexnet-keras": Recipe(network="alexnet_variants.AlexNetKeras", arguments={"num_classes": 1}),
    "vgg16": Recipe(network="imagenet.vgg16", arguments={"num_classes": 1}),
    "googlenet": Recipe(network="imagenet.GoogLeNet", arguments={"num_classes": 1}),
    "resnet50": Recipe(network="imagenet.resnet50", arguments={"num_classes": 1}),
    "palm": Recipe(  # our own: chosen by cross-validation on the training images, see the README
        network="palmnet.PalmNet",
        arguments={"num_classes": 1},
        augmentation="strong",
        learning_rate=0.03,
        weight_decay=0.001,
        schedule="cosine",
        batch_size=16,
        epochs=32,
    ),
    "lenet-mnist": Recipe(  # as in the lesson, whose reader of digits does not shuffle
        network="lenet.LeNet",
        arguments={"num_classes": 10, "in_channels": 1, "image_size": 28},
        data="mnist",
        shuffle=False,
        log_every=1000,
    ),
    "cnn-mnist": Recipe(
        network="mnist_nets.CNNMnist",
        arguments={},
        data="mnist",
        momentum=0.95,
        batch_size=128,
        epochs=10,
        log_every=100,
    ),
    "lenet-fashion": Recipe(
        network="mnist_nets.LeNetFashion",
        arguments={},
        data="fashion-mnist",
        pixel_range=(0.0, 1.0),
        learning_rate=0.9,
        momentum=0,
        batch_size=256,
        epochs=10,
        log_every=100,
    ),
}


def find_recipe(name, **changes):
    """The Recipe called `name`, with other values for some of its CHANGEABLE entries.

    Raises InputError, listing the names, where there is none; TypeError for a change of anything else.
    """
    if name not in RECIPES:
        raise InputError(f"model {name!r} is none of {', '.join(RECIPES)}{did_you_mean(name, RECIPES)}")
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        raise TypeError(f"of a recipe {', '.join(CHANGEABLE)} can be changed, not {', '.join(unknown)}")
    recipe = RECIPES[name]._replace(**changes)
    if recipe.augmentation not in (None, *AUGMENTATIONS):
        raise InputError(
            f"augmentation {recipe.augmentation!r} is none of {', '.join(AUGMENTATIONS)}"
            + did_you_mean(recipe.augmentation, AUGMENTATIONS)
        )
    return recipe


def build_model(name):
    """A fresh network for the recipe `name`, its weights drawn from paddle's random state.

    Its `input_shape` is (channels, height, width) of the images, float32, that it takes; it returns logits, float32 [N,
    num_classes]. Raises InputError, listing the names, where there is no such recipe.
    """
    recipe = find_recipe(name)
    module, _, network = recipe.network.partition(".")
    return getattr(importlib.import_module(f"palm_cls.models.{module}"), network)(**recipe.arguments)


def loss_of(recipe):
    """Name of a recipe's loss, which `palm_cls.eval.losses.cross_entropy` chooses by the number of logits."""
    return f"{'sigmoid' if recipe.data == 'palm' else 'softmax'} cross-entropy"


def optimizer_of(recipe):
    """Name of a recipe's optimizer in paddle.optimizer, as `train` chooses it."""
    return "Momentum" if recipe.momentum else "SGD"


def format_recipes():
    """All recipes in full, as text for people: what is trained on what, and how; two tables with a row a recipe."""
    what = [("model", "network", "data", "pixels", "loss")]
    how = [
        ("model", "optimizer", "learning rate", "momentum", "decay")
        + ("batch", "epochs", "order", "loss line", "augmentation")
    ]
    for name, recipe in RECIPES.items():
        low, high = recipe.pixel_range
        what.append((name, _network_call(recipe), recipe.data, f"{low:g}..{high:g}", loss_of(recipe)))
        rate = f"{recipe.learning_rate}{'' if recipe.schedule == 'constant' else f', {recipe.schedule}'}"
        numbers = (rate, recipe.momentum or "-", recipe.weight_decay or "-", recipe.batch_size, recipe.epochs)
        order = "shuffled" if recipe.shuffle else "file order"
        rest = (order, f"every {recipe.log_every}", recipe.augmentation or "none")
        how.append((name, optimizer_of(recipe), *map(str, numbers), *rest))
    return "\n".join([*format_table(what), "", *format_table(how)])


def _network_call(recipe):
    arguments = ", ".join(f"{name}={value}" for name, value in recipe.arguments.items())
    return f"{recipe.network.rpartition('.')[2]}({arguments})"
