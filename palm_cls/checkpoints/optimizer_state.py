"""The optimizer's state under structured names: `conv1.weight.velocity`.

paddle's own names of velocities (`linear_3.w_0_velocity_0`) count up through the process: a second network, or a second
optimizer, would not find its velocities under them again.
"""

import numpy as np

from palm_cls.checkpoints.matching import array_state, match_state_dict, read_named_state
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError


def optimizer_state(model, optimizer):
    """Return the optimizer's state dictionary under structured names; velocities exist before the first step, too."""
    _init_velocities(model, optimizer)
    state = optimizer.state_dict()
    names = _structured_names(model, state)
    return {names.get(key, key): value for key, value in state.items()}


def load_optimizer_state(path, model, optimizer):
    """Read the optimizer's state from a `.pdopt` file.

    Raises:
        InputError: the file is missing or unreadable, or its names and shapes are not those of the optimizer.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the optimizer's state beside the weights")
    state = read_named_state(path, model)
    expected = array_state(optimizer_state(model, optimizer))
    arrays = match_state_dict(path, state, expected)
    others = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    keys = {name: key for key, name in _structured_names(model, optimizer.state_dict()).items()}
    optimizer.set_state_dict({keys.get(name, name): value for name, value in {**others, **arrays}.items()})


def _structured_names(model, keys):
    """{paddle's key: structured name} of the velocities among `keys`.

    The key `linear_0.w_0_velocity_0` belongs to the parameter that paddle calls `linear_0.w_0` and we `fc1.weight`; its
    structured name is `fc1.weight.velocity`.
    """
    structured = {}
    for name, parameter in model.state_dict().items():  # without the prefix `_layers.` of paddle.DataParallel
        prefix = parameter.name + "_"
        for key in keys:
            if key.startswith(prefix) and key not in structured:
                structured[key] = f"{name}.{key[len(prefix) :].rpartition('_')[0]}"
    return structured


def _init_velocities(model, optimizer):
    """Create velocities of zero before the first step: paddle creates them in it, and sets only those that exist."""
    if isinstance(optimizer, paddle.optimizer.SGD) or _structured_names(model, optimizer.state_dict()):
        return
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.set_value(paddle.zeros_like(parameter))  # weight decay of zero moves nothing and gives no velocity
    paddle.add_n([(parameter * 0).sum() for parameter in model.parameters()]).backward()
    optimizer.step()
    optimizer.clear_grad()
    model.set_state_dict(weights)
