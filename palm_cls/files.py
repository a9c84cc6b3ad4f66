"""Files that appear whole or not at all."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Give a temporary name beside `path`, and rename what was written there to `path` at the end.

    Whoever reads `path` sees the old content or the new, never a part: if the block raises, the temporary file is
    removed and `path` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):  # the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # nothing is left of it after the rename
            temporary.unlink()


def _flush_to_disk(path):
    # Without this a power cut can leave the new name with an empty file behind it.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
