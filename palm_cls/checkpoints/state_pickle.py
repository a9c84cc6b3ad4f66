"""Read state files of untrusted origin: pickles without running them, and the format of PaddlePaddle 1.6.

A `.pdparams` or `.pdopt` file is a pickle, and unpickling calls whatever a file names. Here a file may name only the
parts of a state dictionary, and they are not called: stand-ins take the place of NumPy's and Python's callables, check
their arguments, and build the arrays.
"""

import mmap
import pickle
import re
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.paddle16 import MAGIC, RESERVED_SIZE, read_paddle16
from palm_cls.core.errors import InputError, shorten

NO_WEIGHTS = re.compile("opt|master_weights|scaler|sched", re.IGNORECASE)  # names of state other than weights


def read_state(path):
    """Read the state dictionary in a file of `paddle.save`, or of `save_dygraph` in PaddlePaddle 1.6.

    Nothing that the file contains is run.

    Args:
        path: the file. The state dictionary may lie in a dictionary with other things, {"model": ..., "epoch": 3},
            which are ignored.

    Returns:
        {name: value}; arrays are NumPy's, bfloat16 as uint16.

    Raises:
        InputError: the file contains no state dictionary.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[RESERVED_SIZE : RESERVED_SIZE + len(MAGIC)] == MAGIC:
                return read_paddle16(content)
            return _to_state_dict(_unwrap(_StateUnpickler(content).load()))
    except OSError:
        raise
    except Exception as error:  # damaged and hostile files raise all kinds
        reason = shorten(error) if " " in str(error) else "no state dictionary"  # a KeyError of an opcode is just "8"
        raise InputError(f"{path}: not a checkpoint that can be read ({reason})") from error


REFUSED_OPCODES = (
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
    pickle.FROZENSET,
    pickle.BYTEARRAY8,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
)


class _Refused(ValueError):
    """The file contains something that is no part of a state dictionary."""


def _refuse_opcode(unpickler):
    raise _Refused("it holds a set, or a buffer, which no state dictionary is made of")


def _with_text_keys(load):
    """Restrict an opcode that fills a dictionary to keys that are text.

    Hashing a tuple of two tuples of two tuples ... never ends, and takes 200 bytes in a file.
    """

    def load_items(unpickler):
        stack = unpickler.stack
        items = stack[-2:] if load is pickle._Unpickler.load_setitem else stack
        for name in items[::2]:
            _check_name(name)
        load(unpickler)

    return load_items


class _StateUnpickler(pickle._Unpickler):  # in Python: the one in C allocates any size that a file states
    dispatch = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys((code[0] for code in REFUSED_OPCODES), _refuse_opcode),
        pickle.SETITEM[0]: _with_text_keys(pickle._Unpickler.load_setitem),
        pickle.SETITEMS[0]: _with_text_keys(pickle._Unpickler.load_setitems),
        pickle.DICT[0]: _with_text_keys(pickle._Unpickler.load_dict),
    }

    def find_class(self, module, name):
        try:
            return ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise _Refused(
                f"it asks for {module}.{name}, which was not run: a whole pickled network, or another object; "
                "save only the weights, paddle.save(model.state_dict(), PATH)"
            ) from None

    def get_extension(self, code):
        raise _Refused("it asks for an extension of pickle, which was not run")


class _StandIn:
    """Stands for a callable in pickles of arrays; `call` is called instead."""

    __slots__ = ("call",)

    def __init__(self, call):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)

    def __setstate__(self, state):
        raise _Refused("it would set attributes of a function or type")


class _Dtype:
    """Stands for numpy.dtype: a code such as "f4", then a state with the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code, *flags):
        if not re.fullmatch(r"[fiu][1248]|b1", _text(code)):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder({"<": "<", ">": ">", "|": "|", "=": "="}[_text(state[1])])


class _Array:
    """Stands for numpy.ndarray: created empty, then given shape, type and bytes, which must match."""

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


def _text(value):  # hashing or printing anything else may never end
    if not isinstance(value, str):
        raise _Refused(f"{type(value).__name__} in the place of text")
    return value


def _scalar(dtype, content):
    return np.frombuffer(_bytes(content), dtype.dtype).item()


def _encode(text, encoding):  # protocol 2 writes bytes like this
    if _text(encoding) != "latin1":
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes():  # and empty bytes like this
    return b""


def _dict(pairs=()):  # Python 2 wrote an OrderedDict like this
    return {_check_name(name): value for name, value in pairs}


def _tuple(items):  # paddle writes (name of the parameter, array) like this
    return tuple(items) if isinstance(items, (tuple, list)) else (None,)


ALLOWED_GLOBALS = {
    ("numpy", "ndarray"): _StandIn(_Array),
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("collections", "OrderedDict"): _StandIn(_dict),
    ("_codecs", "encode"): _StandIn(_encode),
    ("__builtin__", "bytes"): _StandIn(_no_bytes),
    ("builtins", "tuple"): _StandIn(_tuple),
    ("__builtin__", "tuple"): _StandIn(_tuple),
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _StandIn(_Array),
    ("numpy.core.multiarray", "scalar"): _StandIn(_scalar),
    ("numpy._core.multiarray", "scalar"): _StandIn(_scalar),
}


def _unwrap(state):
    """Return the only state dictionary of a network inside `state`, or `state` itself."""
    if not isinstance(state, dict):
        return state
    inner = [name for name, value in state.items() if _holds_arrays(value) and not NO_WEIGHTS.search(name)]
    if len(inner) > 1:
        raise _Refused(f"it holds several state dictionaries ({', '.join(inner)}); save the one to use alone")
    return state[inner[0]] if inner else state


def _holds_arrays(value):
    return isinstance(value, dict) and any(isinstance(_without_name(item), _Array) for item in value.values())


def _without_name(value):
    """The array of a parameter, which paddle writes as (its own name, array); other values as they are."""
    return value[1] if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) else value


def _to_state_dict(state, depth=0, seen=None):
    """Copy a dictionary of arrays, numbers, strings and such dictionaries; refuse anything else.

    seen: ids of the dictionaries met so far; one that is in a thousand places would be copied a thousand times.
    """
    if not isinstance(state, dict) or depth > 2:
        raise _Refused("it holds no dictionary of arrays")
    seen = set() if seen is None else seen
    if id(state) in seen:
        raise _Refused("it holds one dictionary in two places")
    seen.add(id(state))
    return {_check_name(name): _to_value(value, depth, seen) for name, value in state.items()}


def _check_name(name):
    if not isinstance(name, str):
        raise _Refused(f"a name that is {type(name).__name__}, not text")
    return name


def _to_value(value, depth, seen):
    value = _without_name(value)
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if isinstance(value, dict):
        return _to_state_dict(value, depth + 1, seen)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _Refused(f"it holds {type(value).__name__}, neither array, number, text nor dictionary")
