"""Unpacking the course's zip archives: safely, and so that doing it again completes what is missing."""

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

from palm_cls.core.console import notice
from palm_cls.core.errors import InputError, excerpt
from palm_cls.core.files import replacing, require_directory
from palm_cls.core.formats import ACTIONS, HEAD, SPLIT_ZIP, ZIP, detect_format
from palm_cls.data import palm
from palm_cls.data.labels import xlsx_to_csv

NESTED = "PALM-Training400.zip"  # training.zip holds the images in a second zip, unpacked in the place where it lies
CHUNK = 1 << 20  # bytes
NAME_LIMIT = 200  # bytes of a member's name; file systems take 255, and the temporary name is longer by some
HARMLESS = 100_000_000  # bytes that any archive may unpack to; more only if they are at most ...
RATIO_LIMIT = 200  # ... so many times the archive: photographs hardly shrink, a disk filler does by 1000:1
ENDING = 22 + (1 << 16)  # bytes in which the end record of a zip lies, with the longest comment
UTF8 = 0x800  # the flag of a member whose name is UTF-8
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA takes whatever memory the archive claims


def unpack(archive, target):
    """Unpack a zip file into the directory `target` and return the number of files written.

    A file that is there already, whole, is left alone; each other one appears whole or not at all. Raises InputError
    for a damaged or encrypted archive, and, before anything of it is written, for a member that would land outside
    `target` or in the place of another one, and for an archive made to fill the disk.
    """
    limit = max(HARMLESS, RATIO_LIMIT * os.path.getsize(archive))
    with open(archive, "rb") as file:
        return _unpack_zip(file, archive, Path(target), limit, follow=True)


def _unpack_zip(file, archive, target, limit, follow):
    """Unpack to `target` what is at most `limit` bytes; `follow`: whether the nested archive is one, or just a file."""
    _check_format(file, archive)
    try:
        with zipfile.ZipFile(file) as opened:
            return _unpack_members(opened, archive, target, limit, follow)
    except InputError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a damaged directory makes of seek; others are not the archive's fault
            raise
        raise _damaged(archive, error) from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise _damaged(archive, error) from error  # zipfile lets all of them through


def _check_format(file, archive):
    """Raise InputError for a file that is another format than zip, or a part of a zip."""
    found = detect_format(file.read(HEAD))
    file.seek(max(0, file.seek(0, os.SEEK_END) - ENDING))
    _, end_record, fields = file.read().rpartition(b"PK\x05\x06")
    if end_record and fields[:2] not in (b"\0\0", b"\xff\xff"):  # number of this part; in zip64 it lies elsewhere
        found = SPLIT_ZIP
    if found == ZIP and not end_record:
        raise InputError(f"{archive}: a zip without its end: cut off, or a part of a split one; copy the whole again")
    if found not in (None, ZIP):
        action = ACTIONS.get(found, "unpack it by hand, and pack what it holds as a zip of the same name")
        raise InputError(f"{archive}: {found}, not a zip; {action}")


def _damaged(archive, error):
    return InputError(f"{archive}: damaged, no zip file, or a part of one ({excerpt(error)}); copy the whole again")


def _unpack_members(opened, archive, target, limit, follow):
    from tqdm import tqdm

    _set_real_names(opened.infolist())
    members = [member for member in opened.infolist() if not _is_clutter(member)]
    _refuse_bomb(members, archive, limit)
    for member in members:
        _refuse_unsafe(member, archive)
    _refuse_collisions(members, archive)
    for member in members:
        _refuse_obstacles(target, target / member.filename, archive)
    nested = [member for member in members if follow and PurePosixPath(member.filename).name == NESTED][:1]
    written = 0
    for member in tqdm(members, desc=Path(archive).name, unit="file", disable=None):
        if member in nested:
            written += _unpack_nested(opened, member, archive, target, limit)
        elif not _is_there(target / member.filename, member):
            _extract(opened, member, target / member.filename)
            written += 1
    return written


def _set_real_names(members):
    """Give the members of an archive the names that its packer meant, with "/" between folders.

    zipfile takes every name without the flag for UTF-8 for cp437. macOS writes UTF-8 without it, a Chinese Windows GBK.
    "\\", which some tools on Windows write between folders, is replaced after decoding: it is half of some Chinese
    characters.
    """
    unflagged = [member for member in members if not member.flag_bits & UTF8]
    names = [member.filename for member in unflagged]
    raw = [member.orig_filename.partition("\0")[0] for member in unflagged]  # on Windows, too, with every backslash
    for encoding in ("gb18030", "utf-8"):  # the last that fits all: hardly any other text is valid UTF-8
        with contextlib.suppress(UnicodeError):
            names = [name.encode("cp437").decode(encoding) for name in raw]
    for member, name in zip(unflagged, names):
        member.filename = name
    for member in members:
        member.filename = member.filename.replace("\\", "/")


def _is_clutter(member):
    """Directories (made as needed) and what macOS adds to archives."""
    return member.filename.endswith(("/", "/.DS_Store")) or member.filename.startswith("__MACOSX/")


def _refuse_bomb(members, archive, limit):
    claimed = sum(member.file_size for member in members)  # zipfile gives no byte more than that
    if claimed > limit:
        raise InputError(
            f"{archive}: would unpack to {claimed:,} bytes, made to fill the disk; nothing of it was unpacked"
        )


def _refuse_unsafe(member, archive):
    name = member.filename
    if (
        not PurePosixPath(name).parts
        or len(name.encode()) > NAME_LIMIT
        or re.search(r"[\0-\x1f\x7f]", member.orig_filename)
    ):
        raise InputError(f"{archive}: its member {excerpt(repr(name))} has no usable name; nothing of it was unpacked")
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts
    if outside:
        raise InputError(f"{archive}: its member {name!r} would land outside the target; nothing of it was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{archive}: its member {name!r} is a symbolic link; nothing of it was unpacked")
    if member.flag_bits & 0x41:  # the old encryption, or the strong one
        raise InputError(f"{archive}: encrypted; unpack it by hand with its password")
    if member.compress_type not in READABLE:
        raise InputError(f"{archive}: its member {name!r} is not packed as usual (deflate); unpack it by hand")


def _refuse_collisions(members, archive):
    """No two members in one place, none where others need a directory: the result would depend on their order."""
    places = set()
    for path in (PurePosixPath(member.filename) for member in members):
        if path in places:
            raise InputError(f"{archive}: holds {str(path)!r} twice; nothing of it was unpacked")
        places.add(path)
    for path in places:
        for parent in places.intersection(path.parents):
            raise InputError(f"{archive}: holds {str(parent)!r} as file and as directory; nothing of it was unpacked")


def _refuse_obstacles(target, path, archive):
    """Nothing that is there already leads `path` out of `target`, or makes it impossible."""
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
    # Through an unnamed temporary file: it takes no name in the target, and is gone if the process is killed.
    (target / member.filename).parent.mkdir(parents=True, exist_ok=True)
    place = target if os.access(target, os.W_OK) else None  # elsewhere, to see whether all of it is there already
    with tempfile.TemporaryFile(dir=place) as copy:
        with opened.open(member) as source:
            shutil.copyfileobj(source, copy, CHUNK)
        copy.seek(0)
        name, place = f"{archive}/{member.filename}", (target / member.filename).parent
        return _unpack_zip(copy, name, place, limit, follow=False)


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


def prepare_data(archives=None, directory=None):
    """Unpack the course's archives and convert the table of labels. Done twice, it changes nothing.

    `archives`: the directory of training.zip, validation.zip and valid_gt.zip; if not given, the target, else where AI
    Studio mounts them, unless the target is named and holds files already, perhaps a data set of the user's own.
    `directory`: the target; if not given, $PALM_DATA, else /home/aistudio/work/palm where that can be, else data/palm.
    What an interrupted run left undone is completed. Returns the Dataset and the number of files written. Raises
    InputError for missing, damaged or hostile archives.
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
    """The archives to unpack: from `archives`, else from the usual places; none where the images are there already."""
    places = (Path(archives),) if archives else (target, palm.AISTUDIO_DATA)
    if not archives and explicit and target.is_dir() and any(target.iterdir()):
        places = (target,)  # what it holds may be somebody's own, and unpacking would replace files
        if palm.archives_in(palm.AISTUDIO_DATA) and not palm.archives_in(target):
            notice(
                f"{target}: not empty, so the archives in {palm.AISTUDIO_DATA} were not unpacked into it; "
                f"to unpack them there: {palm.unpack_command(palm.AISTUDIO_DATA, target)}"
            )
    for place in places:
        found = palm.archives_in(place)
        if found:
            if place == palm.AISTUDIO_DATA:
                notice(f"{target}: unpacking the archives in {place} into it.")
            missing = [name for name in palm.ARCHIVES if place / name not in found]
            if missing:
                notice(f"{place}: {' and '.join(missing)} not there.")
            return found
    if not archives and palm.detect_layout(target):
        return []
    raise InputError(
        f"no archives in {' or '.join(map(str, places))}; expected {', '.join(palm.ARCHIVES)} "
        "(data/README.md says where they come from), or name their directory with --archives"
    )


def _convert(workbook):
    """Convert a table to labels.csv beside it; 1 if that wrote a file. A labels.csv that says something else stays."""
    table = workbook.with_name("labels.csv")
    if not table.exists() and not os.access(table.parent, os.W_OK):
        notice(f"{table.parent}: cannot be written; the labels are read from {workbook.name}.")
        return 0
    if not table.exists():
        xlsx_to_csv(workbook, table)
        return 1
    difference = palm.workbook_difference(table)
    if difference:
        notice(f"{table} {difference}")
    return 0
