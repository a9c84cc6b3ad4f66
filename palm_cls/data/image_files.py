"""Find image files: those of a directory, and those that a table of labels lists."""

import functools
import os
from collections import defaultdict
from pathlib import Path

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import require_directory
from palm_cls.data.labels import CLASSES, read_labels
from palm_cls.data.spelling import name_key

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CACHE_PREFIX = ".palm_cls-"  # of the files that this package writes beside the images


def is_image(path):
    """Return whether `path` is a visible file named .jpg, .jpeg or .png, in any case."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def has_images(directory):
    """Return whether `directory` exists and holds at least one image."""
    return directory.is_dir() and any(is_image(entry) for entry in directory.iterdir())


def image_names(directory):
    """List the sorted names of the images in a directory.

    Sub-folders, hidden files (.DS_Store, .ipynb_checkpoints) and other files are ignored, and a notice gives their
    number once.

    Raises:
        InputError: The directory is missing or has no image.
    """
    directory = Path(directory)
    require_directory(directory, f"one of images ({', '.join(IMAGE_SUFFIXES)})")
    entries = [entry for entry in directory.iterdir() if not entry.name.startswith(CACHE_PREFIX)]
    names = sorted(entry.name for entry in entries if is_image(entry))
    if not names:
        raise InputError(f"{directory}: no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    if len(names) < len(entries):
        log_once(f"{directory}: {len(entries) - len(names)} of {len(entries)} entries are no images, passed over.")
    return names


def labelled_images(directory, table, classes=CLASSES, split=None):
    """Read a table of labels and find its images.

    A name stands for the file of that name, else for the one image whose name differs in spelling only (`name_key`),
    or, if it has no suffix, for the one image with that stem.

    Args:
        directory: of the images.
        table: CSV or .xlsx.
        classes: names of the classes.
        split: "train", "valid" or "test": of a table with a column Split, only the images of this split.

    Returns:
        {path: LabelRow} in the order of the table. The path of a missing image does not exist.

    Raises:
        InputError: The table is faulty, a name stands for several images, or two rows are for one image.
    """
    directory, images_of = Path(directory), functools.cache(_images_by_spelling)
    rows, path_of = {}, {}
    for row in _rows_of_split(table, read_labels(table, classes), split):
        path = _image_of(directory, row, table, images_of)
        other = path if path in rows else path_of.setdefault(os.path.abspath(path).casefold(), path)
        if other in rows and (other == path or _is_same_file(other, path)):
            raise InputError(
                f"{table}, row {row.row}: {shorten(repr(row.name))} is the image of row {rows[other].row} already; "
                "keep one of the rows"
            )
        rows[path] = row
    return rows


def _rows_of_split(table, rows, split):
    if split is None or not any(row.split for row in rows):
        return rows
    chosen = [row for row in rows if row.split in ("", split)]
    if not chosen:
        raise InputError(f"{table}: its column Split has no {split} image; correct it, or remove the column")
    return chosen


def _is_same_file(path, other):
    """Return whether two spellings are of one file, as on a disk that ignores case."""
    return os.path.isfile(path) and os.path.isfile(other) and path.samefile(other)


def _image_of(directory, row, table, images_of):
    if os.path.isfile(directory / row.name):  # unlike Path.is_file, accepts a name that is too long
        return directory / row.name
    path = directory / name_key(row.name)
    by_name, by_stem = images_of(path.parent)
    matches = by_name[path.name] or (by_stem[path.name] if path.suffix.lower() not in IMAGE_SUFFIXES else [])
    if len(matches) > 1:
        names = ", ".join(sorted(image.name for image in matches))
        raise InputError(
            f"{table}, row {row.row}: {shorten(repr(row.name))} may be any of {names}; write the whole name"
        )
    return matches[0] if matches else directory / row.name


def _images_by_spelling(folder):
    """Return the images of a folder by the `name_key` of their names, and of their stems: two dicts of lists."""
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for path in folder.iterdir() if os.path.isdir(folder) else ():
        if is_image(path):
            by_name[name_key(path.name)].append(path)
            by_stem[name_key(path.stem)].append(path)
    return by_name, by_stem
