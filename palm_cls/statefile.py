"""Reading state files that may come from a stranger: pickles without running them, and the format of PaddlePaddle 1.6.

A `.pdparams` or `.pdopt` of today is a pickle, and unpickling a file runs whatever it names. Here it may name only
what a state dictionary is made of, and what it names is not called: stand-ins of ours take the place of numpy's and
Python's callables, check what the file claims, and build the arrays.
"""

import mmap
import pickle
import re
from pathlib import Path

import numpy as np

from palm_cls.messages import InputError, excerpt

FLUID_RESERVED = 256  # bytes before the header of a file of PaddlePaddle 1.6
FLUID_MAGIC = b"TNUM"
FLUID_DTYPES = {0: "?", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1"}  # VarType.Type -> numpy
FLUID_DIMS = 8  # a shape of a million dimensions takes hours to multiply
FLUID_NAME = re.compile(
    r"(?:.*/)?(?P<layer>Conv2D|FC)_(?P<number>\d{1,9})\.(?P<kind>[wb])_0(?P<slot>_\w+_velocity_\d+)?"
)
NO_WEIGHTS = re.compile("opt|master_weights|scaler|sched", re.IGNORECASE)  # in the name of what training has besides


def read_state(path):
    """The state dictionary in a file of `paddle.save`, or of `save_dygraph` in PaddlePaddle 1.6: {name: value}.

    It may lie in a dictionary with other things, {"model": ..., "epoch": 3}, which are passed over; bfloat16 is uint16
    there. Nothing that the file contains is run. Raises InputError, naming the file, for whatever is no state
    dictionary.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[FLUID_RESERVED : FLUID_RESERVED + len(FLUID_MAGIC)] == FLUID_MAGIC:
                return _read_fluid(content)
            return _plain(_unwrapped(_StateUnpickler(content).load()))
    except OSError:
        raise
    except Exception as error:  # damaged and hostile files raise whatever the machinery below comes upon
        reason = excerpt(error) if " " in str(error) else "no state dictionary"  # which of an opcode says 8
        raise InputError(f"{path}: not a checkpoint that can be read ({reason})") from error


_REFUSED_OPCODES = (
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
    pickle.FROZENSET,
    pickle.BYTEARRAY8,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
)


class _Refused(ValueError):
    """The file asks for something that a state dictionary is not made of."""


def _refuse_opcode(unpickler):
    raise _Refused("it holds a set, or a buffer, which no state dictionary is made of")


def _with_names(load):
    """An opcode that fills a dictionary, for one whose keys are text.

    The hash of a tuple of two tuples of two tuples ... takes longer than anyone lives, in a file of 200 bytes.
    """

    def load_items(unpickler):
        stack = unpickler.stack
        items = stack[-2:] if load is pickle._Unpickler.load_setitem else stack
        for name in items[::2]:
            _name(name)
        load(unpickler)

    return load_items


class _StateUnpickler(pickle._Unpickler):  # the one in Python: the one in C allocates what a file merely claims
    dispatch = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys((code[0] for code in _REFUSED_OPCODES), _refuse_opcode),
        pickle.SETITEM[0]: _with_names(pickle._Unpickler.load_setitem),
        pickle.SETITEMS[0]: _with_names(pickle._Unpickler.load_setitems),
        pickle.DICT[0]: _with_names(pickle._Unpickler.load_dict),
    }

    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(
                f"it asks for {module}.{name}, which was not run: a whole pickled network, or another object; "
                "save only the weights, paddle.save(model.state_dict(), PATH)"
            ) from None

    def get_extension(self, code):
        raise _Refused("it asks for an extension of pickle, which was not run")


class _Admitted:
    """Stands for a callable that pickles of arrays name; `call` is what happens instead."""

    __slots__ = ("call",)

    def __init__(self, call):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)

    def __setstate__(self, state):
        raise _Refused("it would change what it names")


class _Dtype:
    """Stands for numpy.dtype: a code such as "f4", then a state that holds the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code, *flags):
        if not re.fullmatch(r"[fiu][1248]|b1", _text(code)):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder({"<": "<", ">": ">", "|": "|", "=": "="}[_text(state[1])])


class _Array:
    """Stands for numpy.ndarray: made empty, then given shape, type and bytes, which must fit each other."""

    __slots__ = ("array",)

    def __init__(self, *args):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.array = np.frombuffer(_bytes(content), dtype.dtype).reshape(_shape(shape), order="F" if fortran else "C")


def _shape(dims):
    if any(type(dim) is not int or dim < 0 for dim in dims):
        raise _Refused("an array whose shape is not made of counts")
    return tuple(dims)


def _bytes(content):
    if not isinstance(content, bytes):
        raise _Refused(f"an array of {type(content).__name__}")
    return content


def _text(value):  # anything else may be without end when it is hashed or shown
    if not isinstance(value, str):
        raise _Refused(f"{type(value).__name__} in the place of text")
    return value


def _scalar(dtype, content):
    return np.frombuffer(_bytes(content), dtype.dtype).item()


def _encode(text, encoding):  # how protocol 2 writes bytes
    if _text(encoding) != "latin1":
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes():  # how protocol 2 writes none
    return b""


def _dict(pairs=()):  # how Python 2 wrote an OrderedDict
    return {_name(name): value for name, value in pairs}


def _tuple(items):  # how paddle writes (name of the parameter, array)
    return tuple(items) if isinstance(items, (tuple, list)) else (None,)


_ADMITTED = {
    ("numpy", "ndarray"): _Admitted(_Array),
    ("numpy", "dtype"): _Admitted(_Dtype),
    ("collections", "OrderedDict"): _Admitted(_dict),
    ("_codecs", "encode"): _Admitted(_encode),
    ("__builtin__", "bytes"): _Admitted(_no_bytes),
    ("builtins", "tuple"): _Admitted(_tuple),
    ("__builtin__", "tuple"): _Admitted(_tuple),
    ("numpy.core.multiarray", "_reconstruct"): _Admitted(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Admitted(_Array),
    ("numpy.core.multiarray", "scalar"): _Admitted(_scalar),
    ("numpy._core.multiarray", "scalar"): _Admitted(_scalar),
}


def _unwrapped(state):
    """The state dictionary of a network in a dictionary that holds it beside other things; else `state` itself."""
    if not isinstance(state, dict):
        return state
    inner = [name for name, value in state.items() if _holds_arrays(value) and not NO_WEIGHTS.search(name)]
    if len(inner) > 1:
        raise _Refused(f"it holds several state dictionaries ({', '.join(inner)}); save the one to use alone")
    return state[inner[0]] if inner else state


def _holds_arrays(value):
    return isinstance(value, dict) and any(isinstance(_unnamed(item), _Array) for item in value.values())


def _unnamed(value):
    """`value`, or the array of what paddle writes for a parameter: (its own name for it, array)."""
    return value[1] if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) else value


def _plain(state, depth=0, seen=None):
    """A dictionary of arrays, numbers, strings and such dictionaries; anything else is refused.

    seen: the dictionaries above and beside, by their id; one in a thousand places would become a thousand.
    """
    if not isinstance(state, dict) or depth > 2:
        raise _Refused("it holds no dictionary of arrays")
    seen = set() if seen is None else seen
    if id(state) in seen:
        raise _Refused("it holds one dictionary in two places")
    seen.add(id(state))
    return {_name(name): _plain_value(value, depth, seen) for name, value in state.items()}


def _name(name):
    if not isinstance(name, str):
        raise _Refused(f"a name that is {type(name).__name__}, not text")
    return name


def _plain_value(value, depth, seen):
    value = _unnamed(value)
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if isinstance(value, dict):
        return _plain(value, depth + 1, seen)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _Refused(f"it holds {type(value).__name__}, neither array, number, text nor dictionary")


def _read_fluid(content):
    """{name: array} of a file of PaddlePaddle 1.6: after 256 reserved bytes `TNUM`, their number, and the tensors."""
    cursor = _Cursor(content, FLUID_RESERVED)
    cursor.expect(FLUID_MAGIC)
    state = {}
    for _ in range(cursor.integer(8)):
        cursor.expect(b"NAME")
        name = cursor.take(cursor.integer(8)).decode("utf-8")
        if name in state:
            raise ValueError(f"{name} twice")
        state[name] = _fluid_tensor(cursor)
    if cursor.left():
        raise ValueError(f"{cursor.left()} bytes too many")
    return state


def _fluid_tensor(cursor):
    """u32 version 0, i32 size of the description, the description (protobuf TensorDesc), little-endian data."""
    version = cursor.integer(4)
    if version != 0:
        raise ValueError(f"a tensor of version {version}")
    description = _Cursor(cursor.take(cursor.integer(4)), 0)
    code, shape = None, []
    while description.left():
        tag = description.varint()
        if tag == 0x08:  # field 1: data_type
            code = description.varint()
        elif tag == 0x10:  # field 2: dims, one by one
            shape.append(description.varint())
        else:
            raise ValueError(f"a tensor description with field {tag:#x}")
    if code not in FLUID_DTYPES:
        raise ValueError(f"a tensor of type {code}")
    if len(shape) > FLUID_DIMS:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    dtype = np.dtype(FLUID_DTYPES[code])
    size = dtype.itemsize
    for dim in shape:
        size *= dim
    return np.frombuffer(cursor.take(size), dtype).reshape(shape)


class _Cursor:
    """Reads a buffer from a position on, and no byte beyond its end."""

    def __init__(self, content, position):
        self.content, self.position = content, position

    def left(self):
        return len(self.content) - self.position

    def take(self, size):
        if size > self.left():
            raise ValueError(f"cut off: {size} bytes claimed, {self.left()} left")
        self.position += size
        return self.content[self.position - size : self.position]

    def expect(self, literal):
        found = self.take(len(literal))
        if found != literal:
            raise ValueError(f"{literal!r} expected, {found!r} found")

    def integer(self, size):
        return int.from_bytes(self.take(size), "little")

    def varint(self):
        value = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number without end")


def is_fluid(state):
    """Whether the names of a state dictionary are PaddlePaddle 1.6's (`LeNet/LeNet_0/Conv2D_0.w_0`, ...)."""
    return bool(state) and all(FLUID_NAME.fullmatch(name) for name in state)


def rename_fluid(state, convolutions, linears):
    """A state dictionary of PaddlePaddle 1.6 under today's names.

    convolutions, linears: names of the network's layers in forward order, which is how 1.6 numbered them.
    `LeNet/LeNet_0/Conv2D_0.w_0` becomes `conv1.weight`, its velocity `conv1.weight.velocity`. Layouts are the same.
    """
    layers = {"Conv2D": convolutions, "FC": linears}
    matches = {name: FLUID_NAME.fullmatch(name) for name in state}
    numbers = {
        layer: sorted({int(match["number"]) for match in matches.values() if match["layer"] == layer})
        for layer in layers
    }
    renamed = {}
    for name, match in matches.items():
        position = numbers[match["layer"]].index(int(match["number"]))
        known = layers[match["layer"]]
        layer = known[position] if position < len(known) else name.partition(".")[0]
        kind = {"w": "weight", "b": "bias"}[match["kind"]]
        renamed[f"{layer}.{kind}{'.velocity' if match['slot'] else ''}"] = state[name]
    return renamed
