"""Read torch's weights, a `state_dict` in a file of arrays only: .npz and .safetensors.

Both readers are ours. `safetensors.numpy` cannot read bfloat16, which NumPy does not have; `np.load` allocates whatever
size the header of an array states. (torch's own .pth is a pickle of torch's classes.)
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from palm_cls.core.errors import InputError, shorten

SUFFIXES = (".npz", ".safetensors")
MAX_BYTES = 1 << 29  # of a file, and of its content unpacked; torchvision's AlexNet takes 244 MB
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy's; others may unpack without bounds
MAX_TABLE = 1 << 17  # bytes of the table in a .safetensors file; AlexNet's takes 1.3 kB
MAX_DIMS = 8  # of an array
DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BF16": "<u2",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "BOOL": "?",
}


def read_arrays(path):
    """Read the arrays of a .npz or .safetensors file; nothing that it contains is run.

    Returns:
        {name: array}; bfloat16 as uint16, its bits.

    Raises:
        InputError: the file is damaged, too large, or something else.
    """
    path = Path(path)
    read = {".npz": _read_npz, ".safetensors": _read_safetensors}[path.suffix]
    try:
        _check_size(path.stat().st_size)
        return read(path.read_bytes())
    except OSError:  # of the disk: the readers work in memory
        raise
    except Exception as error:  # damaged and hostile files raise all kinds
        reason = shorten(error) or type(error).__name__
        raise InputError(f"{path}: not a {path.suffix} file that can be read ({reason})") from error


def _check_size(size):
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, where {MAX_BYTES} would be many")


def _read_npz(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        _check_size(sum(member.file_size for member in members))
        if any(member.compress_type not in COMPRESSIONS for member in members):
            raise ValueError("packed in another way than NumPy's")
        return {member.filename.removesuffix(".npy"): _npy(_unpacked(archive, member)) for member in members}


def _unpacked(archive, member):
    with archive.open(member) as file:
        return file.read(
            member.file_size + 1
        )  # not more than the directory states; reading one more checks the checksum


def _npy(content):
    """Read an array in the format of np.save."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array in version {version} of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which were not read")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _read_safetensors(content):
    """Read u64 size of the table; the table, JSON {name: {"dtype", "shape", "data_offsets"}}; arrays without gaps."""
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= min(len(content), 8 + MAX_TABLE):
        raise ValueError(f"a table of {start - 8} bytes in a file of {len(content)}")
    table = json.loads(content[8:start].decode("utf-8"), object_pairs_hook=_unique_names)
    table.pop("__metadata__", None)
    arrays, position = {}, start
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (start + offset for offset in entry["data_offsets"])
        if begin != position:
            raise ValueError(f"{name} does not begin where the array before it ends")
        arrays[name] = _array(content[begin:end], name, entry)
        position = end
    if position != len(content):
        raise ValueError(f"its arrays take {position - start} bytes, and there are {len(content) - start}")
    return arrays


def _unique_names(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _array(content, name, entry):
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} is of type {entry['dtype']}; float32 is expected")
    shape = entry["shape"]
    if len(shape) > MAX_DIMS or any(type(dim) is not int or dim < 0 for dim in shape):
        raise ValueError(f"{name} is of shape {shape}")
    return np.frombuffer(content, DTYPES[entry["dtype"]]).reshape(shape)  # raises for a wrong size


def torch_layout(state, layers):
    """Convert a state dictionary between torch and paddle, in either direction.

    torch stores the weights of a fully connected layer as [out, in], paddle as [in, out]; other layouts are the same.

    Args:
        state: {name: array}.
        layers: {name of a layer: its new name}.

    Returns:
        {new name: array}, matrices transposed.
    """
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{layers[layer]}.{kind}"] = value.T if value.ndim == 2 else value
    return renamed
