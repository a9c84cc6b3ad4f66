"""Files that appear whole or not at all, and files that tell whether they are still what was written."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from palm_cls.core.console import log
from palm_cls.core.errors import InputError, RunError

CHECKSUM_MARK = b"palm_cls sha256:"  # then the digest of everything before the seal, which ends the file
TRAILER_SIZE = len(CHECKSUM_MARK) + hashlib.sha256().digest_size
# How text is written. Names of files need not be UTF-8: bytes that are not become \udcXX, which JSON reads back.
TEXT = {"encoding": "utf-8", "errors": "backslashreplace"}
DOWNLOAD_TIMEOUT = 30  # seconds without an answer, after which a download is given up


def check_absent(paths):
    """Raise InputError if one of the files is there: what exists is never overwritten."""
    for path in paths:
        if os.path.lexists(path):
            raise InputError(f"{path}: already there, and not overwritten; remove it, or give another name")


def require_directory(path, expected):
    """Raise InputError unless `path` is a directory. expected: what should be there, in words."""
    if not Path(path).is_dir():
        found = "a file, not a directory" if Path(path).exists() else "no such directory"
        raise InputError(f"{path}: {found}; expected {expected}")


@contextlib.contextmanager
def atomic_write(path):
    """Give a temporary name beside `path`, and rename what was written there to `path` at the end.

    Whoever reads `path` sees the old content or the new, never a part: if the block raises, the temporary file is
    removed and `path` stays as it was.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # nothing is left of it after the rename
            temporary.unlink()


@contextlib.contextmanager
def atomic_directory(path):
    """Give a temporary directory beside `path`, and rename it to `path`, which must be new, at the end.

    If the block raises, nothing is left of it.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _flush_to_disk(file)
        temporary.rename(path)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).is_relative_to(temporary):  # which no user knows
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # nothing is left of it after the rename


def _temporary(path):
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _flush_to_disk(path):
    # Without this a power cut can leave the new name with an empty file behind it.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def append_or_rollback(file, content):
    """Write bytes to the end of an unbuffered file, all or nothing.

    Where the disk is full, what there was room for is taken back, and the OSError names the file.
    """
    position = file.tell()
    try:
        while content:
            content = content[file.write(content) :]
    except OSError as error:
        file.truncate(position)
        error.filename = file.name
        raise


def download_file(url, md5, path, max_bytes=100_000_000):
    """Write what is at `url`, at most so many bytes with that MD5 checksum, to `path`, whole or not at all.

    md5: hexadecimal digits. Raises RunError where there is no network, no answer, or another file. (paddle's own
    download writes to the final name at once, waits without end, and does not tell what went wrong.)
    """
    import http.client  # with urllib they take as long to import as all else here
    import urllib.request

    log(f"Fetching {url} ...")
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
            content = answer.read(max_bytes)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"{url}: could not be fetched ({reason or type(error).__name__})\n"
            f"Try again where there is a network, or put the file into {path.parent} yourself."
        ) from None
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise RunError(f"{url}: what came ({len(content)} bytes) has another checksum than {path.name}; not kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def file_digest(path, without=0, algorithm="sha256"):
    """Checksum of a file, as hexadecimal digits; `without` that many bytes at its end."""
    left = os.path.getsize(path) - without
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def read_trailer(path):
    """The sha256 in the seal at the end of a file, as hexadecimal digits, or None where there is no seal."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TRAILER_SIZE))
        seal = file.read()
    return seal[len(CHECKSUM_MARK) :].hex() if len(seal) == TRAILER_SIZE and seal.startswith(CHECKSUM_MARK) else None
