"""Reading the checkpoints of PaddlePaddle 1.6, whose `save_dygraph` wrote no pickle, and their names of parameters."""

import re

import numpy as np

FLUID_RESERVED = 256  # bytes before the header of a file of PaddlePaddle 1.6
FLUID_MAGIC = b"TNUM"
FLUID_DTYPES = {0: "?", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1"}  # VarType.Type -> numpy
FLUID_DIMS = 8  # a shape of a million dimensions takes hours to multiply
FLUID_NAME = re.compile(
    r"(?:.*/)?(?P<layer>Conv2D|FC)_(?P<number>\d{1,9})\.(?P<kind>[wb])_0(?P<slot>_\w+_velocity_\d+)?"
)


def read_paddle16(content):
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


def is_paddle16(state):
    """Whether the names of a state dictionary are PaddlePaddle 1.6's (`LeNet/LeNet_0/Conv2D_0.w_0`, ...)."""
    return bool(state) and all(FLUID_NAME.fullmatch(name) for name in state)


def rename_paddle16(state, convolutions, linears):
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
