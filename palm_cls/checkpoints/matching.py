"""Match the arrays of a file to a network by name, shape and type.

paddle's own `set_state_dict` only warns about what does not match. Here files of other origin are adapted where that
is safe (names of PaddlePaddle 1.6 and torch, a common prefix, bfloat16), and everything else is refused.
"""

import os

import numpy as np

from palm_cls.checkpoints.paddle16 import is_paddle16, rename_paddle16
from palm_cls.checkpoints.state_file import verify
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.torch_weights import SUFFIXES, read_arrays, torch_layout
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import read_trailer
from palm_cls.models.layers import classifier_layers
from palm_cls.recipes import RECIPES, build_model

import paddle.nn as nn

MAX_LISTED = 5  # names in a message before "and N more"


def read_matching(path, model, skip_head=False):
    """Read the weights in a file as a state dictionary for `model`.

    Args:
        path: a `.pdparams`, `.npz` or `.safetensors` file (the latter two hold torch's `state_dict`).
        model: the network; `torch_layers`, {torch's name of a layer: ours}, lets it take torch's weights.
        skip_head: keep the last layer of `model`, whatever the file has for it.

    Returns:
        {name: array}, all names of `model` that have arrays.

    Raises:
        InputError: the file is unreadable, or its names and shapes are not those of `model`.
    """
    expected = array_state(model.state_dict())
    head = {name: value for name, value in expected.items() if name.rpartition(".")[0] in classifier_layers(model)}
    if path.suffix not in SUFFIXES:
        return match_state_dict(path, read_named_state(path, model), expected, head, skip_head)
    if not hasattr(model, "torch_layers"):
        raise InputError(f"{path}: weights of torch, which this network does not take; expected a .pdparams file")
    names = {ours: theirs for theirs, ours in model.torch_layers.items()}
    expected, head = torch_layout(expected, names), torch_layout(head, names)
    return torch_layout(match_state_dict(path, read_arrays(path), expected, head, skip_head), model.torch_layers)


def read_named_state(path, model):
    """Read a `.pdparams` or `.pdopt` file; PaddlePaddle 1.6's names become those of `model`."""
    if read_trailer(path) is not None:
        verify(path)
    state = read_state(path)
    if not is_paddle16(state):
        return state
    return rename_paddle16(state, _layer_names(model, nn.Conv2D), _layer_names(model, nn.Linear))


def _layer_names(model, kind):
    return [name for name, layer in model.named_sublayers() if isinstance(layer, kind)]


def array_state(state):
    """The tensors of a state dictionary as arrays, {name: array}, without anything else in it."""
    return {name: value.numpy() for name, value in state.items() if hasattr(value, "numpy")}


def match_state_dict(path, found, expected, head=(), skip_head=False):
    """Return the arrays of a file in the types of the network.

    Args:
        path: the file, for messages.
        found: its state dictionary; values that are no arrays are ignored.
        expected: {name: array} of the network.
        head: {name: array} of its last layer.
        skip_head: return the arrays of `head` as they are.

    Raises:
        InputError: names, shapes or kinds of types differ.
    """
    kept = dict(head) if skip_head else {}
    found = _without_prefix({name: value for name, value in found.items() if isinstance(value, np.ndarray)}, expected)
    found = {name: _bfloat16_to_float32(value, expected.get(name)) for name, value in found.items() if name not in kept}
    expected = {name: value for name, value in expected.items() if name not in kept}
    wrong = _differences(found, expected)
    if any(wrong.values()):
        listed = "; ".join(f"{kind}: {_listed(names)}" for kind, names in wrong.items() if names)
        raise InputError(f"{path}: weights of another network{_recipe_of(found)}. {listed}{_head_hint(wrong, head)}")
    return {**kept, **{name: value.astype(expected[name].dtype) for name, value in found.items()}}


def _differences(found, expected):
    """{kind of difference: what differs, a list of str}."""
    both = [(name, found[name], value) for name, value in expected.items() if name in found]
    return {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(array.shape)} (expected {list(value.shape)})"
            for name, array, value in both
            if array.shape != value.shape
        ],
        "of another type": [
            f"{name} {array.dtype} (expected {value.dtype})"
            for name, array, value in both
            if array.dtype.kind != value.dtype.kind
        ],
    }


def _without_prefix(found, expected):
    """`found` under the names of `expected`, if all its names have one prefix (`_layers.`, `module.`) before these."""
    first, shared = next(iter(expected), ""), os.path.commonprefix(list(found))
    if first in found:
        return found
    prefixes = [name[: -len(first)] for name in found if name.endswith(f".{first}")]
    prefix = next(filter(shared.startswith, prefixes), "")
    return {name[len(prefix) :]: value for name, value in found.items()}


def _bfloat16_to_float32(value, expected):
    """paddle saves bfloat16, which NumPy does not have, as uint16: the upper half of the bits of a float32."""
    if value.dtype != np.uint16 or expected is None or expected.dtype.kind != "f":
        return value
    return (value.astype("uint32") << 16).view("float32")


def _head_hint(wrong, head):
    """What to do if nothing differs but shapes of the last layer; else ""."""
    others = [name for kind, names in wrong.items() for name in names if kind != "of another shape"]
    if others or not {name.partition(" ")[0] for name in wrong["of another shape"]} <= set(head):
        return ""
    load = "palm_cls.load(..., skip_head=True)"
    return f"\nOnly the last layer differs, for other classes: train.py --new-head, or {load}, loads all before it"


def _recipe_of(found):
    """` (alexnet)`, the first recipe whose parameters have these names and shapes; "" if there is none."""
    shapes = {name: list(value.shape) for name, value in found.items()}
    for name in RECIPES:
        with paddle.LazyGuard():  # shapes without memory
            model = build_model(name)
        if shapes == {key: list(parameter.shape) for key, parameter in model.named_parameters()}:
            return f" ({name})"
    return ""


def _listed(names):
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(shorten, names[:MAX_LISTED])) + more
