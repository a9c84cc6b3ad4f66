"""The lock of a run's directory, which lets one process at a time write there.

Ours rather than `filelock`: on file systems without locks it warns and goes on, and it notices a directory that another
process has moved meanwhile.
"""

import os
from pathlib import Path

from palm_cls.core.console import log
from palm_cls.core.errors import RunError

LOCK = ".lock"


def lock_run(directory):
    """Lock the directory of a run for this process.

    Returns:
        An open file; closing it, or the end of the process, releases the lock.

    Raises:
        RunError: another process holds the lock.
    """
    lock = open(Path(directory, LOCK), "wb")  # noqa: SIM115  open as long as the run lasts
    try:
        _lock_file(lock)
    except BlockingIOError:
        lock.close()
        raise RunError(f"{directory}: in use by another process; wait for it, or give another --output") from None
    except OSError:
        log(f"{directory}: this file system has no locks; do not start a second run there.")
    if not os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name)):  # another process has moved it meanwhile
        lock.close()
        raise RunError(f"{directory}: another process has just begun a run there; give another --output")
    return lock


def _lock_file(file):
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
