"""The recipes that `tools/train.py --model NAME` knows, in full, and `build_model(NAME)`."""

from collections import namedtuple

from palm_cls.messages import InputError

# A network and how it is trained. network: class in palm_cls.models; arguments: of that class; advice: what to do after
# a run, where that is not plain. The defaults are the lesson's.
Recipe = namedtuple(
    "Recipe",
    ("network", "arguments", "epochs", "batch_size", "learning_rate", "momentum", "advice"),
    defaults=(5, 10, 0.001, 0.9, ""),
)

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
