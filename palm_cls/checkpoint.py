"""Checkpoints: weights in `NAME.pdparams`, the optimizer in `NAME.pdopt`, as `paddle.save` writes them.

Plain `paddle.load` reads both. Parameters go by their structured names (`conv1.weight`), velocities too
(`conv1.weight.velocity`): paddle's own names for them (`linear_3.w_0_velocity_0`) count up through the process, so that
a second network, or a second optimizer, would not find its velocities again.
"""

from pathlib import Path

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle

from palm_cls.files import replacing
from palm_cls.messages import InputError

SHOWN = 5  # names listed in a message before "and N more"


def save(path, model, optimizer=None):
    """Write `path`.pdparams, and with an optimizer `path`.pdopt, each whole or not at all.

    `path` is without suffix, as in the lesson ("output/lenet/last").
    """
    with replacing(f"{path}.pdparams") as temporary:
        paddle.save(model.state_dict(), str(temporary))
    if optimizer is not None:
        with replacing(f"{path}.pdopt") as temporary:
            paddle.save(_structured(optimizer.state_dict(), model), str(temporary))


def load(path, model, optimizer=None):
    """Read weights into `model`, and with an optimizer its velocities from the `.pdopt` beside them.

    `path` is what `weights_file` takes. Raises InputError, and changes nothing, where a file is missing or unreadable,
    or its names and shapes are not those of `model`.
    """
    weights = weights_file(path)
    state = _read(weights)
    _compare(state, model.state_dict(), weights)
    if optimizer is not None:
        _load_optimizer(weights.with_suffix(".pdopt"), model, optimizer)
    model.set_state_dict(state)


def weights_file(path):
    """The `.pdparams` file that `path` means: itself, with the suffix added, or a run directory's best epoch."""
    path = Path(path)
    for candidate in (path / "best.pdparams" if path.is_dir() else path, Path(f"{path}.pdparams")):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: no weights there; expected a run directory with best.pdparams, or a .pdparams file")


def _read(path):
    try:
        state = paddle.load(str(path))
    except Exception as error:  # what a damaged file makes of paddle and pickle is not limited to a few types
        raise InputError(f"{path}: not a checkpoint that can be read ({error})") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a checkpoint; expected names with their arrays")
    return state


def _compare(found, expected, path):
    """Refuse a state whose names or shapes are not those expected (paddle's set_state_dict only warns)."""
    found = {name: value for name, value in found.items() if hasattr(value, "shape")}
    wrong = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(found[name].shape)} (expected {list(value.shape)})"
            for name, value in expected.items()
            if name in found and list(found[name].shape) != list(value.shape)
        ],
    }
    told = "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names)
    if told:
        raise InputError(f"{path}: weights of another network. {told}")


def _listed(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _slots(model, keys):
    """{paddle's key: structured key} of the optimizer slots among `keys`.

    The slot `linear_0.w_0_velocity_0` of `fc1.weight`, named `linear_0.w_0` by paddle, becomes `fc1.weight.velocity`.
    """
    structured = {}
    for name, parameter in model.named_parameters():
        prefix = parameter.name + "_"
        for key in keys:
            if key.startswith(prefix):
                structured[key] = f"{name}.{key[len(prefix) :].rpartition('_')[0]}"
    return structured


def _structured(state, model):
    slots = _slots(model, state)
    return {slots.get(key, key): value for key, value in state.items()}


def _load_optimizer(path, model, optimizer):
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the optimizer's state beside the weights")
    state = _read(path)
    if not optimizer.state_dict():
        _create_slots(model, optimizer)
    slots = _slots(model, optimizer.state_dict())
    current = {slots.get(key, key): value for key, value in optimizer.state_dict().items()}
    _compare(state, current, path)
    key_of = {name: key for key, name in slots.items()}
    optimizer.set_state_dict({key_of.get(name, name): value for name, value in state.items()})


def _create_slots(model, optimizer):
    # paddle makes the velocities in the first step, and only then are they there to be set: a step with gradients zero.
    paddle.add_n([(parameter * 0).sum() for parameter in model.parameters()]).backward()
    optimizer.step()
    optimizer.clear_grad()
