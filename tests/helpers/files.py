"""Directories and archives that tests make, and look into."""

import gzip
import io
import struct
import zipfile

import numpy as np


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def nested(members):
    buffer = io.BytesIO()
    make_zip(buffer, members)
    return buffer.getvalue()


def tree(root):
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def archives(demo, folder):
    """The course's three archives, made from a demo set."""
    paths = [path for path in demo.rglob("*.*") if path.name != "DEMO.txt" and not path.name.startswith(".")]
    files = {path.relative_to(demo): path.read_bytes() for path in paths}

    def members(top):
        return {"/".join(path.parts): content for path, content in files.items() if path.parts[0] == top}

    inner = {name.partition("/")[2]: content for name, content in members("PALM-Training400").items()}
    folder.mkdir(parents=True, exist_ok=True)
    make_zip(folder / "training.zip", {"PALM-Training400/PALM-Training400.zip": nested(inner)})
    make_zip(folder / "validation.zip", members("PALM-Validation400"))
    make_zip(folder / "valid_gt.zip", members("PALM-Validation-GT"))
    return folder


FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values, magic=None):
    """The content of an idx file with these uint8 values."""
    magic = 0x800 + values.ndim if magic is None else magic
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.astype("uint8").tobytes()


def drawn(number, seed=0):
    """Images uint8 [number, 28, 28], the brighter the higher the label, and labels uint8 [number]."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, 10, number).astype("uint8")
    return (rng.randint(0, 28, (number, 28, 28)) + 25 * labels.reshape(-1, 1, 1)).astype("uint8"), labels


def write_set(directory, train=40, test=30, suffix=".gz"):
    directory.mkdir(parents=True, exist_ok=True)
    parts = [*drawn(train), *drawn(test, seed=1)]
    for name, values in zip(FILES, parts):
        content = idx(values)
        (directory / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return directory
