"""Atomic writes, JSON and CSV files, downloads and checksums."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

from palm_cls.core.console import log
from palm_cls.core.errors import InputError, RunError

CHECKSUM_MARK = b"palm_cls sha256:"  # then the digest of all before the mark, at the end of a file
TRAILER_SIZE = len(CHECKSUM_MARK) + hashlib.sha256().digest_size
# Options of text files. File names need not be UTF-8: other bytes are written as \udcXX, which JSON reads back.
TEXT = {"encoding": "utf-8", "errors": "backslashreplace"}
DOWNLOAD_TIMEOUT = 30  # seconds without an answer


def check_absent(paths):
    """Raise InputError if one of the files exists: existing files are never overwritten."""
    for path in paths:
        if os.path.lexists(path):
            raise InputError(f"{path}: already there, and not overwritten; remove it, or give another name")


def require_directory(path, expected):
    """Raise InputError unless `path` is a directory; `expected` says in words what should be there."""
    if not Path(path).is_dir():
        problem = "a file, not a directory" if Path(path).exists() else "no such directory"
        raise InputError(f"{path}: {problem}; expected {expected}")


@contextlib.contextmanager
def atomic_write(path):
    """Write a file whole or not at all.

    Yields a temporary Path beside `path`, which is renamed to `path` at the end: readers see the old content or the
    new. If the block raises, the temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # the user knows only the final name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # after the rename it is gone
            temporary.unlink()


@contextlib.contextmanager
def atomic_directory(path):
    """Write a new directory whole or not at all.

    Yields a temporary directory beside `path`, which is renamed to `path` at the end. If the block raises, it is
    removed.
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
        if error.filename is None or Path(str(error.filename)).is_relative_to(temporary):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path):
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _flush_to_disk(path):
    # Without this a power cut can leave the new name with an empty file behind it.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def read_json(file, expected):
    """Read a JSON file of this project, a dict with "versions".

    Args:
        file: its Path.
        expected: what it should be, in words.

    Returns:
        The dict, {} if there is no such file.

    Raises:
        InputError: it is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
    if not isinstance(content, dict) or "versions" not in content:
        raise InputError(f"{file}: not {expected}")
    return content


def write_json(content, path):
    """Write `content` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", **TEXT)


def write_table(rows, path, **text):
    """Write dicts with the same keys as CSV with a header, atomically; `text` as for `open`, by default TEXT."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", **{**TEXT, **text}) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def append_or_rollback(file, content):
    """Append bytes to an unbuffered file, all or none.

    Raises:
        OSError: the disk is full; the file is as long as before, and the error names it.
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
    """Download a file, whole or not at all.

    (paddle's own download writes to the final name at once, has no timeout, and does not say what went wrong.)

    Args:
        url: its address.
        md5: its checksum (hexadecimal).
        path: where to write it.
        max_bytes: more are not read.

    Raises:
        RunError: there is no network, no answer, or another file.
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


def file_digest(path, skip_last=0, algorithm="sha256"):
    """Compute the checksum of a file.

    Args:
        path: the file.
        skip_last: leave out that many bytes at its end.
        algorithm: a name that hashlib has.

    Returns:
        Hexadecimal digits.
    """
    left = os.path.getsize(path) - skip_last
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def read_trailer(path):
    """Return the sha256 (hexadecimal) in the checksum trailer of a file, or None."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TRAILER_SIZE))
        trailer = file.read()
    is_trailer = len(trailer) == TRAILER_SIZE and trailer.startswith(CHECKSUM_MARK)
    return trailer[len(CHECKSUM_MARK) :].hex() if is_trailer else None
