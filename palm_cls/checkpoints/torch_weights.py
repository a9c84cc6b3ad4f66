"""Weights that torch learned, a `state_dict` in a file that holds nothing but arrays: .npz and .safetensors.

(torch's own .pth is a pickle of torch's classes.) The reader of .safetensors is our own: the format is a size, a table
in JSON and the bytes, every claim of which must be checked against the file anyway, and so no package is needed.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from palm_cls.core.errors import InputError, shorten

SUFFIXES = (".npz", ".safetensors")
MAX_BYTES = 1 << 29  # bytes, also of what is packed, which may be a thousandth; torchvision's AlexNet takes 244 MB
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes; other ways may unpack without bounds
HEADER = 1 << 17  # bytes of the table of a .safetensors; that of AlexNet takes 1.3 kB
DIMS = 8  # of an array
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
    """The arrays in a .npz or .safetensors file: {name: array}; bfloat16 as uint16, its bits.

    Nothing that the file contains is run. Raises InputError, naming the file, for whatever is not such a file.
    """
    path = Path(path)
    read = {".npz": _read_npz, ".safetensors": _read_safetensors}[path.suffix]
    try:
        _require_size(path.stat().st_size)
        return read(path.read_bytes())
    except OSError:  # of the disk; reading from memory raises none
        raise
    except Exception as error:  # damaged and hostile files raise whatever the machinery below comes upon
        reason = shorten(error) or type(error).__name__
        raise InputError(f"{path}: not a {path.suffix} file that can be read ({reason})") from error


def _require_size(size):
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, where {MAX_BYTES} would be many")


def _read_npz(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        _require_size(sum(member.file_size for member in members))
        if any(member.compress_type not in PACKED for member in members):
            raise ValueError("packed in another way than NumPy's")
        return {member.filename.removesuffix(".npy"): _npy(_unpacked(archive, member)) for member in members}


def _unpacked(archive, member):
    with archive.open(member) as file:
        return file.read(member.file_size + 1)  # not more than it claims; one more has the checksum compared


def _npy(content):
    """An array as np.save writes it. (np.load would allocate what the header merely claims.)"""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array in version {version} of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which were not read")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _read_safetensors(content):
    """u64 size of the table; the table, JSON {name: {"dtype", "shape", "data_offsets"}}; the arrays, gapless."""
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= min(len(content), 8 + HEADER):
        raise ValueError(f"a table of {start - 8} bytes in a file of {len(content)}")
    table = json.loads(content[8:start].decode("utf-8"), object_pairs_hook=_without_doubles)
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


def _without_doubles(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _array(content, name, entry):
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} is of type {entry['dtype']}; float32 is expected")
    shape = entry["shape"]
    if len(shape) > DIMS or any(type(dim) is not int or dim < 0 for dim in shape):
        raise ValueError(f"{name} is of shape {shape}")
    return np.frombuffer(content, DTYPES[entry["dtype"]]).reshape(shape)  # refuses what is too short or too long


def torch_layout(state, layers):
    """A state dictionary with its layers renamed, {name: new name}, and matrices transposed.

    That is ours as torch has it, and torch's as we have it: torch keeps the weights of a fully connected layer [out,
    in], paddle [in, out], and everything else is laid out alike.
    """
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{layers[layer]}.{kind}"] = value.T if value.ndim == 2 else value
    return renamed
