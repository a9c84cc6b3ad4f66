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

from palm_cls.checkpoints.paddle16 import FLUID_MAGIC, FLUID_RESERVED, read_paddle16
from palm_cls.core.errors import InputError, shorten

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
                return read_paddle16(content)
            return _plain(_unwrapped(_StateUnpickler(content).load()))
    except OSError:
        raise
    except Exception as error:  # damaged and hostile files raise whatever the machinery below comes upon
        reason = shorten(error) if " " in str(error) else "no state dictionary"  # which of an opcode says 8
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
