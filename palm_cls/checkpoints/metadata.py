"""Metadata of weights: the network, its input and its classes, stored in the `.pdparams` file itself.

They stand behind paddle's pickle, between a mark and the checksum: plain `paddle.load` ignores them.
"""

import json
import os

from palm_cls.checkpoints.run_files import read_settings
from palm_cls.core.errors import InputError
from palm_cls.core.files import TRAILER_SIZE, read_trailer
from palm_cls.recipes import RECIPES, image_size_of

MARK = b"palm_cls about:"  # then JSON, up to the checksum
MAX_BYTES = 1 << 16  # of mark and JSON
KEYS = ("model", "input", "classes", "demo")


def encode_metadata(metadata):
    """Encode metadata as bytes for the end of a file.

    Args:
        metadata: a dict that JSON can hold; None or empty gives b"".

    Raises:
        ValueError: it takes more than 64 kB.
    """
    content = MARK + json.dumps(metadata, sort_keys=True).encode() if metadata else b""
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content)} bytes of metadata; at most {MAX_BYTES} fit")
    return content


def read_metadata(path):
    """Read the metadata of a `.pdparams` file; unknown keys are omitted.

    Files of early versions hold none: theirs come from the settings of the run in whose directory they lie.

    Args:
        path: a `.pdparams` file.

    Returns:
        A dict with some of "model": name of the recipe; "input": the input specification, as
        `palm_cls.data.images.INPUT_SPEC`; "classes": names of the labels; "demo": whether the demo set was trained on.

    Raises:
        InputError: the metadata are damaged.
    """
    return stored_metadata(path) or run_metadata(path)


def adopt_image_size(model, metadata):
    """Let a network that takes images of any size state the size that its weights were trained on."""
    name = metadata.get("model")
    if name in list(RECIPES) and RECIPES[name].is_resizable and hasattr(model, "input_shape"):
        size = image_size_of(name, metadata)
        model.input_shape = (model.input_shape[0], size, size)


def stored_metadata(path):
    """Read the metadata in a file, {} without any; only its end is read."""
    if read_trailer(path) is None:
        return {}
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TRAILER_SIZE - MAX_BYTES))
        _, mark, text = file.read()[:-TRAILER_SIZE].rpartition(MARK)
    try:
        metadata = json.loads(text) if mark else {}
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: damaged: its metadata cannot be read; copy the file again")
    return metadata


def run_metadata(path):
    """The metadata in the settings of a run, given its directory or a file in it."""
    settings = read_settings(path)
    return {key: settings[key] for key in KEYS if settings.get(key) is not None}
