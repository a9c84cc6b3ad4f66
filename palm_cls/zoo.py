"""The recipes that `tools/train.py --model NAME` knows, in full, and `build_model(NAME)`."""

from dataclasses import dataclass

from palm_cls.messages import InputError


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained; the defaults are the lesson's."""

    network: str  # class in palm_cls.models
    arguments: dict  # of that class
    epochs: int = 5
    batch_size: int = 10
    learning_rate: float = 0.001
    momentum: float = 0.9
    advice: str = ""  # what to do after a run, where that is not plain


RECIPES = {
    "lenet": Recipe(
        network="LeNet",
        arguments={"num_classes": 1},
        advice="LeNet with sigmoid is not meant to converge on these images: that is the lesson's point.\n"
        "Try the same network with ReLU (--model lenet-relu), or AlexNet (--model alexnet).",
    ),
    "lenet-relu": Recipe(network="LeNet", arguments={"num_classes": 1, "activation": "relu"}),
    "alexnet": Recipe(network="AlexNet", arguments={"num_classes": 1}),
}


def find_recipe(name):
    """The Recipe called `name`; raises InputError, listing the names, where there is none."""
    if name not in RECIPES:
        raise InputError(f"model {name!r} is none of {', '.join(RECIPES)}")
    return RECIPES[name]


def build_model(name):
    """A fresh network for the recipe `name`, its weights drawn from paddle's random state."""
    from palm_cls import models

    recipe = find_recipe(name)
    return getattr(models, recipe.network)(**recipe.arguments)
