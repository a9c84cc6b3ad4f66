"""The recipes that `tools/train.py --model NAME` knows, and `build_model(NAME)`."""

from collections import namedtuple

from palm_cls.messages import InputError

# build: the network's class and its arguments; advice: what to do after a run ("" for the usual)
Recipe = namedtuple("Recipe", ("network", "arguments", "advice"), defaults=("",))

RECIPES = {
    "lenet": Recipe(
        "LeNet",
        {"num_classes": 1},
        "LeNet with sigmoid is not meant to converge on these images: that is the lesson's point.\n"
        "Try the same network with ReLU (--model lenet-relu), or AlexNet (--model alexnet).",
    ),
    "lenet-relu": Recipe("LeNet", {"num_classes": 1, "activation": "relu"}),
    "alexnet": Recipe("AlexNet", {"num_classes": 1}),
}


def build_model(name):
    """A fresh network for the recipe `name`, its weights drawn from paddle's random state."""
    from palm_cls import models

    if name not in RECIPES:
        raise InputError(f"model {name!r} is none of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    return getattr(models, recipe.network)(**recipe.arguments)
