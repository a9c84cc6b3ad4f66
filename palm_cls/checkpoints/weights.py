"""Checkpoints: weights in `NAME.pdparams`, the optimizer in `NAME.pdopt`, as `paddle.save` writes them.

Plain `paddle.load` reads both, and finds nothing but the state dictionary: what else a file tells about its weights
(`read_about`: which network they are of, which images it takes) stands behind that. Parameters go by their structured
names (`conv1.weight`), velocities too (`conv1.weight.velocity`): paddle's own names for them
(`linear_3.w_0_velocity_0`) count up through the process, so that a second network, or a second optimizer, would not
find its velocities again.

`load` runs nothing of what it reads. It takes the files of PaddlePaddle 1.6 too (see
`palm_cls.checkpoints.state_pickle`) and, for a network that torch has as well, torch's weights (see
`palm_cls.checkpoints.torch_weights`).
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.paddle16 import is_fluid, rename_fluid
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.torch_weights import SUFFIXES, read_arrays, torch_layout
from palm_cls.core.console import log
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import CHECKSUM_MARK, TRAILER_SIZE, atomic_write, file_digest, read_trailer
from palm_cls.core.formats import ACTIONS, EMPTY, HEAD_SIZE, PROGRAM, WEIGHTS_OF_EXPORT, ZIP, detect_format
from palm_cls.models.layers import head_layers
from palm_cls.recipes import RECIPES, build_model

import paddle.nn as nn

ABOUT = b"palm_cls about:"  # then JSON, up to the seal
ABOUT_SIZE = 1 << 16  # bytes before the seal in which that lies
ONNX, EXPORT_ABOUT = ".onnx", "about.json"  # by which an exported network is known: the suffix, or a file in it
SHOWN = 5  # names listed in a message before "and N more"


def save(path, model, optimizer=None, about=None):
    """Write the weights of `model` to `path`.pdparams, and with an optimizer its state to `path`.pdopt.

    Each is written whole or not at all. `path` is without suffix, as in the lesson ("output/lenet/best"). about: what
    `read_about` should tell of the weights, a dictionary that JSON can hold, not above 64 kB. Returns {file name:
    sha256 of its content}.
    """
    parts = {f"{path}.pdparams": (model.state_dict(), _about_bytes(about))}
    if optimizer is not None:
        _ensure_slots(model, optimizer)
        parts[f"{path}.pdopt"] = (_structured(optimizer.state_dict(), model), b"")
    return {Path(file).name: _write(file, *part) for file, part in parts.items()}


def _about_bytes(about):
    content = ABOUT + json.dumps(about, sort_keys=True).encode() if about else b""
    if len(content) > ABOUT_SIZE:
        raise ValueError(f"{len(content)} bytes about the weights; there is room for {ABOUT_SIZE}")
    return content


def _write(path, state, about):
    """`paddle.save`, `about`, and the seal: a mark and the checksum of what stands before.

    Unpickling ends where the state does, and does not come to the rest.
    """
    with atomic_write(path) as temporary:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The input state dict is empty")  # that of plain SGD
            paddle.save(state, str(temporary))
        with temporary.open("ab") as file:
            file.write(about)
        sha256 = file_digest(temporary)
        with temporary.open("ab") as file:
            file.write(CHECKSUM_MARK + bytes.fromhex(sha256))
    return sha256


def verify(path, sha256=None):
    """Raise InputError unless a file of `save` is what was written (and, if given, has this checksum)."""
    if not Path(path).is_file():
        raise InputError(f"{path}: missing, though a checkpoint names it")
    sealed = read_trailer(path)
    if sealed is None or sealed != file_digest(path, without=TRAILER_SIZE) or sha256 not in (None, sealed):
        raise InputError(f"{path}: damaged: its content does not match its checksum")


def load(path, model, optimizer=None, new_head=False):
    """Read weights into `model`, and with an optimizer its velocities from the `.pdopt` beside them.

    path: a `.pdparams` file, whose suffix may be left out; or the directory of a run, which means its best epoch; or,
    where the network tells torch's names of its layers (`torch_layers`), torch's `state_dict` as .npz or .safetensors.
    The weights may lie in a dictionary with other things ({"model": ...}), their names begin alike (`_layers.`,
    `module.`), and their type be another floating-point one, bfloat16 included.
    new_head: the last layer stays as it is, whatever the file has for it, so that weights for other classes can be
    begun with; a notice says so. Raises InputError, and changes nothing, where a file is missing or unreadable, or its
    names and shapes are not those of `model`.
    """
    weights = weights_file(path)
    expected = _arrays(model.state_dict())
    head = {name: value for name, value in expected.items() if name.rpartition(".")[0] in head_layers(model)}
    read = _read_torch if weights.suffix in SUFFIXES else _read_ours
    state = read(weights, model, expected, head, new_head)
    if optimizer is not None:
        _load_optimizer(weights.with_suffix(".pdopt"), model, optimizer)
    model.set_state_dict(state)
    if new_head:
        log(f"{weights}: taken but for the last layer ({', '.join(head_layers(model))}), which stays as it was.")


def weights_file(path):
    """The file of weights that `path` means: itself, with `.pdparams` added, or a run directory's best epoch.

    Raises InputError where there is none, and where its first bytes are those of another format.
    """
    path = Path(path)
    if is_export(path):
        raise InputError(f"{path}: an exported network, not weights; {WEIGHTS_OF_EXPORT}")
    for candidate in (path / "best.pdparams" if path.is_dir() else path, Path(f"{path}.pdparams")):
        if candidate.is_file():
            _check_format(candidate)
            return candidate
    if any(path.glob("*.pdiparams")) or Path(f"{path}.pdiparams").is_file():
        raise InputError(f"{path}: {PROGRAM}, not weights; {WEIGHTS_OF_EXPORT}")
    if runs_there := sorted(path.glob("seed-*/best.pdparams")):
        raise InputError(f"{path}: runs with several seeds; give one of them, as {runs_there[0].parent}")
    raise InputError(f"{path}: no weights there; expected a run directory with best.pdparams, or a .pdparams file")


def is_export(path):
    """Whether `path` means an exported network (see `palm_cls.deploy.exported_model`), and not weights."""
    return Path(path).suffix == ONNX or Path(path, EXPORT_ABOUT).is_file()


def _check_format(path):
    with path.open("rb") as file:
        found = detect_format(file.read(HEAD_SIZE))
    if found is None or (found == ZIP and path.suffix == ".npz"):
        return
    action = ACTIONS.get(found, "expected a .pdparams file")
    if found == EMPTY:
        action += " (paddle.save(model) leaves one; write paddle.save(model.state_dict(), PATH))"
    raise InputError(f"{path}: {found}, not weights; {action}")


def read_about(path):
    """What a `.pdparams` file tells about its weights, as `save` was given it; {} for a file that tells nothing.

    Reads the end of the file only, and leaves checking the whole to `load`. Raises InputError where it is damaged.
    """
    if read_trailer(path) is None:
        return {}
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TRAILER_SIZE - ABOUT_SIZE))
        _, mark, text = file.read()[:-TRAILER_SIZE].rpartition(ABOUT)
    try:
        about = json.loads(text) if mark else {}
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise InputError(f"{path}: damaged: what it tells about its weights cannot be read")
    return about


def _read_ours(path, model, expected, head, new_head):
    return _fitting(path, _read(path, model), expected, head, new_head)


def _read_torch(path, model, expected, head, new_head):
    if not hasattr(model, "torch_layers"):
        raise InputError(f"{path}: weights of torch, which this network does not take; expected a .pdparams file")
    theirs = {ours: name for name, ours in model.torch_layers.items()}
    expected, head = torch_layout(expected, theirs), torch_layout(head, theirs)
    return torch_layout(_fitting(path, read_arrays(path), expected, head, new_head), model.torch_layers)


def _read(path, model):
    """The state in a file, under `model`'s names where PaddlePaddle 1.6 wrote it."""
    if read_trailer(path) is not None:
        verify(path)
    state = read_state(path)
    return rename_fluid(state, _layers(model, nn.Conv2D), _layers(model, nn.Linear)) if is_fluid(state) else state


def _layers(model, kind):
    return [name for name, layer in model.named_sublayers() if isinstance(layer, kind)]


def _arrays(state):
    return {name: value.numpy() for name, value in state.items() if hasattr(value, "numpy")}


def _fitting(path, found, expected, head=(), new_head=False):
    """The arrays of the state `found`, in the types of `expected`; refused unless names and shapes are the same.

    (paddle's own set_state_dict only warns.) head: the arrays of the last layer; with new_head they take the place of
    those of `found`, whatever these are.
    """
    kept = dict(head) if new_head else {}
    found = _without_prefix({name: value for name, value in found.items() if isinstance(value, np.ndarray)}, expected)
    found = {name: _widened(value, expected.get(name)) for name, value in found.items() if name not in kept}
    expected = {name: value for name, value in expected.items() if name not in kept}
    wrong = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(found[name].shape)} (expected {list(value.shape)})"
            for name, value in expected.items()
            if name in found and found[name].shape != value.shape
        ],
        "of another type": [
            f"{name} {found[name].dtype} (expected {value.dtype})"
            for name, value in expected.items()
            if name in found and found[name].dtype.kind != value.dtype.kind
        ],
    }
    told = "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names)
    if told:
        raise InputError(f"{path}: weights of another network{_which_network(found)}. {told}{_hint(wrong, head)}")
    return {**kept, **{name: value.astype(expected[name].dtype) for name, value in found.items()}}


def _without_prefix(found, expected):
    """`found` under the names of `expected`, where all its names have a prefix (`_layers.`, `module.`) before these."""
    first, shared = next(iter(expected), ""), os.path.commonprefix(list(found))
    if first in found:
        return found
    prefixes = [name[: -len(first)] for name in found if name.endswith(f".{first}")]
    prefix = next(filter(shared.startswith, prefixes), "")
    return {name[len(prefix) :]: value for name, value in found.items()}


def _widened(value, expected):
    """bfloat16 as float32. paddle saves it as uint16, the upper half of a float32's bits; NumPy has no such type."""
    if value.dtype != np.uint16 or expected is None or expected.dtype.kind != "f":
        return value
    return (value.astype("uint32") << 16).view("float32")


def _hint(wrong, head):
    """What to do where nothing is wrong but the shapes of the last layer."""
    others = [name for what, names in wrong.items() for name in names if what != "of another shape"]
    if others or not {name.partition(" ")[0] for name in wrong["of another shape"]} <= set(head):
        return ""
    return "\nThat is the last layer, of other classes: palm_cls.load(..., new_head=True) takes all before it"


def _which_network(found):
    """(alexnet), say: the first recipe whose parameters have these names and shapes; "" if there is none."""
    shapes = {name: list(value.shape) for name, value in found.items()}
    for name in RECIPES:
        with paddle.LazyGuard():  # shapes without memory
            model = build_model(name)
        if shapes == {key: list(parameter.shape) for key, parameter in model.named_parameters()}:
            return f" ({name})"
    return ""


def _listed(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(shorten, names[:SHOWN])) + more


def _slots(model, keys):
    """{paddle's key: structured key} of the optimizer slots among `keys`.

    The slot `linear_0.w_0_velocity_0` of `fc1.weight`, named `linear_0.w_0` by paddle, becomes `fc1.weight.velocity`.
    """
    structured = {}
    for name, parameter in model.state_dict().items():  # without the `_layers.` that paddle.DataParallel puts before
        prefix = parameter.name + "_"
        for key in keys:
            if key.startswith(prefix) and key not in structured:
                structured[key] = f"{name}.{key[len(prefix) :].rpartition('_')[0]}"
    return structured


def _structured(state, model):
    slots = _slots(model, state)
    return {slots.get(key, key): value for key, value in state.items()}


def _load_optimizer(path, model, optimizer):
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the optimizer's state beside the weights")
    state = _read(path, model)
    _ensure_slots(model, optimizer)
    slots = _slots(model, optimizer.state_dict())
    current = {slots.get(key, key): value for key, value in optimizer.state_dict().items()}
    key_of = {name: key for key, name in slots.items()}
    arrays = _fitting(path, state, _arrays(current))
    others = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    optimizer.set_state_dict({key_of.get(name, name): value for name, value in {**others, **arrays}.items()})


def _ensure_slots(model, optimizer):
    """Velocities, zero, where no step has been made yet: paddle makes them in the first, and sets no others."""
    if isinstance(optimizer, paddle.optimizer.SGD) or _slots(model, optimizer.state_dict()):
        return
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.set_value(paddle.zeros_like(parameter))  # of which weight decay takes nothing, and gives no velocity
    paddle.add_n([(parameter * 0).sum() for parameter in model.parameters()]).backward()
    optimizer.step()
    optimizer.clear_grad()
    model.set_state_dict(weights)
