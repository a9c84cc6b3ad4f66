"""Files of `save`: paddle's pickle of a state dictionary, our metadata, and a checksum of both."""

import warnings
from pathlib import Path

from palm_cls.checkpoints.metadata import encode_metadata
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError
from palm_cls.core.files import CHECKSUM_MARK, TRAILER_SIZE, atomic_write, file_digest, read_trailer


def write_state(path, state, metadata=None):
    """Write a state dictionary to a file, whole or not at all.

    Unpickling stops at the end of the state and does not reach what follows: plain `paddle.load` reads the file.

    Args:
        path: the file.
        state: a dict, as `state_dict()` returns it.
        metadata: a dict that JSON can hold, at most 64 kB (see `palm_cls.checkpoints.metadata`).

    Returns:
        The sha256 of all but the checksum trailer (hexadecimal).
    """
    encoded = encode_metadata(metadata)
    with atomic_write(path) as temporary:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The input state dict is empty")  # of plain SGD
            paddle.save(state, str(temporary))
        with temporary.open("ab") as file:
            file.write(encoded)
        sha256 = file_digest(temporary)
        with temporary.open("ab") as file:
            file.write(CHECKSUM_MARK + bytes.fromhex(sha256))
    return sha256


def verify(path, sha256=None):
    """Check a file of `write_state` against its checksum.

    Args:
        path: the file.
        sha256: the checksum that it must have (hexadecimal); by default only the one in its trailer.

    Raises:
        InputError: the file is missing, changed, or has another checksum.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: missing, though a checkpoint names it")
    stored = read_trailer(path)
    if stored is None or stored != file_digest(path, skip_last=TRAILER_SIZE) or sha256 not in (None, stored):
        raise InputError(f"{path}: damaged: its content does not match its checksum")
