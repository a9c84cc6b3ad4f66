"""Unpack the course's zip archives safely; a second run completes the first."""

import contextlib
import errno
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from palm_cls.core.console import log
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import atomic_write, require_directory
from palm_cls.core.formats import ACTIONS, HEAD_SIZE, SPLIT_ZIP, ZIP, detect_format
from palm_cls.data import palm
from palm_cls.data.labels import xlsx_to_csv

NESTED = "PALM-Training400.zip"  # training.zip holds the images in this second zip, unpacked in place
CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 200  # of a member; file systems take 255, and the temporary name is longer
HARMLESS = 100_000_000  # bytes that any archive may unpack to; more only if they are at most ...
MAX_RATIO = 200  # ... so many times the archive: photographs hardly shrink, a zip bomb does by 1000:1
END_BYTES = 22 + (1 << 16)  # at the end of a zip, which hold its end record with the longest comment
UTF8 = 0x800  # the flag of a member whose name is UTF-8
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA takes as much memory as the archive asks for


def unpack(archive, target):
    """Unpack a zip file; each file is written atomically, complete ones are kept.

    Args:
        archive: the zip file.
        target: the directory to unpack into.

    Returns:
        The number of files written.

    Raises:
        InputError: The archive is damaged or encrypted; or, before anything is written, a member would be outside
            `target` or replace another one, or the archive is a zip bomb.
    """
    limit = max(HARMLESS, MAX_RATIO * os.path.getsize(archive))
    with open(archive, "rb") as file:
        return _unpack_zip(file, archive, Path(target), limit, follow=True)


def _unpack_zip(file, archive, target, limit, follow):
    """Unpack at most `limit` bytes to `target`; `follow`: whether to unpack the nested archive, too."""
    _check_format(file, archive)
    try:
        with zipfile.ZipFile(file) as opened:
            return _unpack_members(opened, archive, target, limit, follow)
    except InputError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # of seek, by a damaged directory; others are not the archive's fault
            raise
        raise _damaged(archive, error) from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise _damaged(archive, error) from error  # zipfile raises all of them


def _check_format(file, archive):
    """Raise InputError for another format than zip, or a part of a zip."""
    format = detect_format(file.read(HEAD_SIZE))
    file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
    _, end_record, fields = file.read().rpartition(b"PK\x05\x06")
    if end_record and fields[:2] not in (b"\0\0", b"\xff\xff"):  # number of this part; zip64 stores it elsewhere
        format = SPLIT_ZIP
    if format == ZIP and not end_record:
        raise InputError(f"{archive}: a zip without its end: cut off, or a part of a split one; copy the whole again")
    if format not in (None, ZIP):
        action = ACTIONS.get(format, "unpack it by hand, and pack what it holds as a zip of the same name")
        raise InputError(f"{archive}: {format}, not a zip; {action}")


def _damaged(archive, error):
    return InputError(f"{archive}: damaged, no zip file, or a part of one ({shorten(error)}); copy the whole again")


def _unpack_members(opened, archive, target, limit, follow):
    from tqdm import tqdm

    _set_real_names(opened.infolist())
    members = [member for member in opened.infolist() if not _is_clutter(member)]
    _check_total_size(members, archive, limit)
    for member in members:
        _check_member(member, archive)
    _check_collisions(members, archive)
    for member in members:
        _check_obstacles(target, target / member.filename, archive)
    nested = [member for member in members if follow and PurePosixPath(member.filename).name == NESTED][:1]
    written = 0
    for member in tqdm(members, desc=Path(archive).name, unit="file", disable=None):
        if member in nested:
            written += _unpack_nested(opened, member, archive, target, limit)
        elif not _is_complete(target / member.filename, member):
            _extract(opened, member, target / member.filename)
            written += 1
    return written


def _set_real_names(members):
    """Set the names of members to those that the packer meant, with "/" between folders.

    zipfile decodes names without the flag for UTF-8 as cp437. macOS writes UTF-8 without it, a Chinese Windows GBK.
    "\\", which some tools on Windows write between folders, is replaced after decoding, because it is the second byte
    of some Chinese characters.
    """
    unflagged = [member for member in members if not member.flag_bits & UTF8]
    names = [member.filename for member in unflagged]
    raw = [member.orig_filename.partition("\0")[0] for member in unflagged]  # on Windows, too, with every backslash
    for encoding in ("gb18030", "utf-8"):  # the last that decodes all: hardly any other text is valid UTF-8
        with contextlib.suppress(UnicodeError):
            names = [name.encode("cp437").decode(encoding) for name in raw]
    for member, name in zip(unflagged, names):
        member.filename = name
    for member in members:
        member.filename = member.filename.replace("\\", "/")


def _is_clutter(member):
    """Return whether a member is a directory (made as needed) or added by macOS."""
    return member.filename.endswith(("/", "/.DS_Store")) or member.filename.startswith("__MACOSX/")


def _check_total_size(members, archive, limit):
    size = sum(member.file_size for member in members)  # zipfile returns no more
    if size > limit:
        raise InputError(
            f"{archive}: would unpack to {size:,} bytes, made to fill the disk; nothing of it was unpacked"
        )


def _check_member(member, archive):
    name = member.filename
    if (
        not PurePosixPath(name).parts
        or len(name.encode()) > MAX_NAME_BYTES
        or re.search(r"[\0-\x1f\x7f]", member.orig_filename)
    ):
        raise InputError(f"{archive}: its member {shorten(repr(name))} has no usable name; nothing of it was unpacked")
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts
    if outside:
        raise InputError(f"{archive}: its member {name!r} would land outside the target; nothing of it was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{archive}: its member {name!r} is a symbolic link; nothing of it was unpacked")
    if member.flag_bits & 0x41:  # the old encryption, or the strong one
        raise InputError(f"{archive}: encrypted; unpack it by hand with its password")
    if member.compress_type not in READABLE:
        raise InputError(f"{archive}: its member {name!r} is not packed as usual (deflate); unpack it by hand")


def _check_collisions(members, archive):
    """Raise InputError for two members at one path, or one where another needs a directory."""
    places = set()
    for path in (PurePosixPath(member.filename) for member in members):
        if path in places:
            raise InputError(f"{archive}: holds {str(path)!r} twice; nothing of it was unpacked")
        places.add(path)
    for path in places:
        for parent in places.intersection(path.parents):
            raise InputError(f"{archive}: holds {str(parent)!r} as file and as directory; nothing of it was unpacked")


def _check_obstacles(target, path, archive):
    """Raise InputError if what exists leads `path` out of `target`, or is in its place."""
    inside = os.path.realpath(target)
    if os.path.commonpath([inside, os.path.realpath(path.parent)]) != inside:
        raise InputError(f"{path.parent}: leads outside {target} through a link; {archive} was not unpacked through it")
    above = [path.parent, *path.parent.parents]
    in_the_way = [place for place in above[: above.index(target) + 1] if os.path.lexists(place) and not place.is_dir()]
    if in_the_way:
        raise InputError(f"{in_the_way[0]}: a file, where {archive} needs a directory; move it away")
    if path.is_dir():
        raise InputError(f"{path}: a directory, where {archive} holds a file; move it away")


def _unpack_nested(opened, member, archive, target, limit):
    # An unnamed temporary file takes no name in the target, and vanishes if the process is killed.
    (target / member.filename).parent.mkdir(parents=True, exist_ok=True)
    place = target if os.access(target, os.W_OK) else None  # elsewhere, to check whether all of it exists
    with tempfile.TemporaryFile(dir=place) as copy:
        with opened.open(member) as source:
            shutil.copyfileobj(source, copy, CHUNK_BYTES)
        copy.seek(0)
        name, place = f"{archive}/{member.filename}", (target / member.filename).parent
        return _unpack_zip(copy, name, place, limit, follow=False)


def _is_complete(path, member):
    """Return whether `path` has the member's size and checksum."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC


def _extract(opened, member, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, opened.open(member) as source, temporary.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK_BYTES)  # zipfile verifies the checksum at the end


def prepare_data(archives=None, directory=None):
    """Unpack the course's archives and convert the table of labels.

    A second run completes what an interrupted one left, or changes nothing.

    Args:
        archives: directory of training.zip, validation.zip and valid_gt.zip; default: the target, else where AI Studio
            mounts them, unless the target is given and holds files, perhaps a data set of the user's own.
        directory: the target; default: $PALM_DATA, else /home/aistudio/work/palm if /home/aistudio/work exists, else
            data/palm.

    Returns:
        The Dataset and the number of files written.

    Raises:
        InputError: Archives are missing, damaged or hostile.
    """
    explicit = palm.explicit_directory(directory)
    target = Path(explicit or _default_target())
    for place in filter(None, (archives, target if target.exists() else None)):
        require_directory(place, "one of the course's archives, or to unpack them into")
    written = sum(unpack(archive, target) for archive in _find_archives(archives, target, explicit))
    dataset = palm.detect_layout(target)
    if dataset is None:
        raise InputError(f"{target}: no images there after unpacking; are these the course's archives?")
    dataset.validate()
    written += sum(_convert(workbook) for workbook in dataset.workbooks)
    return dataset, written


def _default_target():
    return (palm.AISTUDIO_WORK if palm.AISTUDIO_WORK.is_dir() else palm.PROJECT / "data") / "palm"


def _find_archives(archives, target, explicit):
    """List the archives to unpack, from `archives`, else from the usual places; [] if the images exist."""
    places = (Path(archives),) if archives else (target, palm.AISTUDIO_DATA)
    if not archives and explicit and target.is_dir() and any(target.iterdir()):
        places = (target,)  # its files may be the user's own, and unpacking would replace them
        if palm.archives_in(palm.AISTUDIO_DATA) and not palm.archives_in(target):
            log(
                f"{target}: not empty, so the archives in {palm.AISTUDIO_DATA} were not unpacked into it; "
                f"to unpack them there: {palm.unpack_command(palm.AISTUDIO_DATA, target)}"
            )
    for place in places:
        found = palm.archives_in(place)
        if found:
            if place == palm.AISTUDIO_DATA:
                log(f"{target}: unpacking the archives in {place} into it.")
            missing = [name for name in palm.ARCHIVES if place / name not in found]
            if missing:
                log(f"{place}: {' and '.join(missing)} not there.")
            return found
    if not archives and palm.detect_layout(target):
        return []
    raise InputError(
        f"no archives in {' or '.join(map(str, places))}; expected {', '.join(palm.ARCHIVES)} "
        "(data/README.md says where they come from), or name their directory with --archives"
    )


def _convert(workbook):
    """Convert a table to labels.csv beside it unless that exists; return the number of files written."""
    table = workbook.with_name("labels.csv")
    if not table.exists() and not os.access(table.parent, os.W_OK):
        log(f"{table.parent}: cannot be written; the labels are read from {workbook.name}.")
        return 0
    if not table.exists():
        xlsx_to_csv(workbook, table)
        return 1
    difference = palm.workbook_difference(table)
    if difference:
        log(f"{table} {difference}")
    return 0
