"""Unpacking the course's zip archives: safely, and so that doing it again completes what is missing."""

import errno
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from palm_cls.files import replacing
from palm_cls.messages import InputError

NESTED = "PALM-Training400.zip"  # training.zip holds the images in a second zip, unpacked in the place where it lies
CHUNK = 1 << 20  # bytes


def unpack(archive, target):
    """Unpack a zip file into the directory `target` and return the number of files written.

    A file that is there already, whole, is left alone; each other one appears whole or not at all. Raises InputError
    for a damaged or encrypted archive, and, before anything of it is written, for a member that would land outside
    `target`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return _unpack_members(opened, archive, Path(target))
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a damaged directory makes of seek; others are not the archive's fault
            raise
        raise _damaged(archive, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(archive, error) from error


def _damaged(archive, error):
    return InputError(f"{archive}: damaged, or no zip file ({error}); copy it again")


def _unpack_members(opened, archive, target):
    from tqdm import tqdm

    members = [member for member in opened.infolist() if not _is_clutter(member)]
    for member in members:
        _refuse_unsafe(member, archive)
    written = 0
    for member in tqdm(members, desc=Path(archive).name, unit="file", disable=None):
        if PurePosixPath(member.filename).name == NESTED:
            written += _unpack_nested(opened, member, archive, target)
        elif not _is_there(target / member.filename, member):
            _extract(opened, member, target / member.filename)
            written += 1
    return written


def _is_clutter(member):
    """Directories (made as needed) and what macOS adds to archives."""
    return member.is_dir() or member.filename.startswith("__MACOSX/") or member.filename.endswith("/.DS_Store")


def _refuse_unsafe(member, archive):
    name = member.filename
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts
    if outside:
        raise InputError(f"{archive}: its member {name!r} would land outside the target; nothing of it was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{archive}: its member {name!r} is a symbolic link; nothing of it was unpacked")
    if member.flag_bits & 0x1:
        raise InputError(f"{archive}: encrypted; unpack it by hand with its password")


def _unpack_nested(opened, member, archive, target):
    # Through an unnamed temporary file: it takes no name in the target, and is gone if the process is killed.
    (target / member.filename).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target) as copy:
        with opened.open(member) as source:
            shutil.copyfileobj(source, copy, CHUNK)
        with zipfile.ZipFile(copy) as inner:
            return _unpack_members(inner, f"{archive}/{member.filename}", (target / member.filename).parent)


def _is_there(path, member):
    """Whether `path` holds exactly the member's content (size and checksum)."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC


def _extract(opened, member, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, opened.open(member) as source, temporary.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK)  # zipfile checks the checksum at the end
