"""State files and weights of torch made by hand, and readers that must refuse or read, never hang."""

import contextlib
import json
import signal
import struct

import numpy as np
import pytest

from palm_cls.core.errors import InputError

SECONDS = 20  # for any one file of the mutated; they take milliseconds


@contextlib.contextmanager
def no_hang():
    """Fail after SECONDS (where there are signals; elsewhere a hang is one)."""

    def too_long(*_):
        pytest.fail(f"took more than {SECONDS} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_or_refused(read, path):
    """What `read` makes of the file, None where it is refused; whatever else it raises fails the test."""
    try:
        with no_hang():
            return read(path)
    except InputError as error:
        told = str(error).replace(str(path), "")
    assert len(told) < 2000, told
    assert told.isprintable(), told
    return None


def fluid_file(tensors, count=None):
    """A file as PaddlePaddle 1.6 writes it; tensors: [(name, array)]."""
    parts = [bytes(256), b"TNUM", struct.pack("<Q", len(tensors) if count is None else count)]
    for name, array in tensors:
        description = b"\x08\x05" + b"".join(b"\x10" + varint(dim) for dim in array.shape)
        parts += [b"NAME", struct.pack("<Q", len(name)), name.encode(), struct.pack("<Ii", 0, len(description))]
        parts += [description, array.astype("<f4").tobytes()]
    return b"".join(parts)


def varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


CODES = {"uint16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def torch_state(classes=3, dtype="float32"):
    """A state_dict of torch: its names, and matrices [out, in]."""
    shapes = {"features.0": (2, 1, 3, 3), "classifier.1": (8, 8), "classifier.3": (classes, 8)}
    rng = np.random.RandomState(0)
    state = {}
    for layer, shape in shapes.items():
        state[f"{layer}.weight"] = rng.randn(*shape).astype(dtype)
        state[f"{layer}.bias"] = rng.randn(shape[0]).astype(dtype)
    return state


def with_table(table, data=b""):
    return struct.pack("<Q", len(table)) + table + data


def safetensors(state, header=None):
    """A .safetensors file, as its specification has it; `header` replaces entries of the table."""
    table, position = {"__metadata__": {"format": "pt"}}, 0
    for name, value in state.items():
        offsets = [position, position + value.nbytes]
        table[name] = {"dtype": CODES[str(value.dtype)], "shape": list(value.shape), "data_offsets": offsets}
        position += value.nbytes
    table = json.dumps({**table, **(header or {})}).encode()
    return with_table(table, b"".join(value.tobytes() for value in state.values()))
