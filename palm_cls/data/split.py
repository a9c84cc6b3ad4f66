"""Divide images into training and validation images, once: `divide`. Imports neither paddle nor cv2.

The table of the division, split-0.2.csv for a fifth, lies in the directory of the images; later runs read it.
"""

import hashlib
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

from palm_cls.core.console import log, log_once
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import write_table
from palm_cls.data.spelling import name_key
from palm_cls.data.tables import read_rows

SEED = 0  # of the division, whatever the seed of a run, so that runs with other seeds have the same validation images


def division_file(root, fraction, table=None):
    """Return the path of the table of a division.

    Args:
        root: the directory of the images, a Path.
        fraction: share of the images to validate on.
        table: path of the table that lists the images; None if their folders do.
    """
    prefix = f"{Path(table).stem}-" if table else ""
    return root / f"{prefix}split-{fraction:g}.csv"


def divide(root, labels, groups, fraction, table=None, write=False):
    """Divide images into training and validation images, as the table in their directory does if there is one.

    Args:
        root: the directory of the images, a Path.
        labels: {path: name of the class}.
        groups: {path: its group}, such as a patient, for images that have one; a group is not divided.
        fraction: share of the images to validate on, about the same in each class.
        table: as for `division_file`.
        write: write the table of the division if there is none.

    Returns:
        {"train": [path, ...], "valid": [path, ...]}.

    Raises:
        InputError: The table is faulty or of other images, or a class has too few.
    """
    file = division_file(root, fraction, table)
    name_of = {path: name_key(os.path.relpath(path, root)).strip() for path in labels}
    if file.is_file():
        chosen = _read_split(file, name_of)
    else:
        chosen = choose_valid(labels, joined_groups(labels, groups), fraction, root)
        if write:
            _write_split(file, name_of, labels, groups, chosen)
    parts = {"train": [], "valid": []}
    for path in labels:
        parts["valid" if path in chosen else "train"].append(path)
    return parts


def joined_groups(labels, groups):
    """Return {path: group} of all images: that given, or the image itself; identical files share theirs."""
    group_of = {path: groups.get(path) or path for path in labels}
    for copies in identical_files(labels):
        joined = {group_of[path] for path in copies}
        kept = group_of[copies[0]]
        group_of = {path: kept if group in joined else group for path, group in group_of.items()}
    return group_of


def identical_files(paths):
    """Return lists of two or more paths whose files are the same, byte for byte; few files are read for that."""
    by_size, by_content = defaultdict(list), defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    for same_size in by_size.values():
        for path in same_size if len(same_size) > 1 else ():
            by_content[hashlib.sha256(path.read_bytes()).digest()].append(path)
    return [copies for copies in by_content.values() if len(copies) > 1]


def choose_valid(labels, group_of, fraction, root):
    """Choose the validation images: groups in random order, each that brings the classes nearer to their shares.

    Args:
        labels: {path: name of the class}.
        group_of: {path: group}.
        fraction: share of each class, of which at least one image is taken.
        root: directory, for messages.

    Returns:
        A set of paths.

    Raises:
        InputError: A class would have no image on one side.
    """
    members = defaultdict(list)
    for path in sorted(labels):  # whatever the order of the classes
        members[group_of[path]].append(path)
    members = list(members.values())
    random.Random(SEED).shuffle(members)
    totals, chosen = Counter(labels.values()), set()
    missing = {name: max(1, fraction * total) for name, total in totals.items()}  # to the share; below 0 beyond it
    left = dict(totals)  # to train on
    for paths in members:
        counts = Counter(labels[path] for path in paths)
        change = sum(abs(missing[name] - count) - abs(missing[name]) for name, count in counts.items())
        if change < 0 and all(count < left[name] for name, count in counts.items()):
            chosen.update(paths)
            for name, count in counts.items():
                missing[name] -= count
                left[name] -= count
    for name, total in totals.items():
        if not 0 < left[name] < total:
            raise InputError(
                f"{root}: {total} image{'s' if total > 1 else ''} of class {shorten(name)} cannot be divided (copies "
                "and groups stay together); add images, or divide them yourself, into train/CLASS and val/CLASS or by "
                "tables (--train-csv, --valid-csv)"
            )
    return chosen


def _read_split(file, name_of):
    """Return the set of validation paths in a table of `_write_split`."""
    split_of = {name_key(row["imgName"]): row["Split"] for _, row in read_rows(file)}
    if new := sorted(set(name_of.values()) - set(split_of)):
        raise InputError(
            f"{file}: does not list {len(new)} of the images ({shorten(new[0])} is one); add them, or delete the file "
            "to have all images divided anew"
        )
    if gone := sorted(set(split_of) - set(name_of.values())):
        log_once(f"{file}: {len(gone)} of its images are gone ({shorten(gone[0])} is one); the others stay divided so.")
    for name, split in split_of.items():
        if split not in ("train", "valid"):
            raise InputError(f"{file}: Split {split!r} of {shorten(name)}, not train or valid; correct it")
    return {path for path, name in name_of.items() if split_of[name] == "valid"}


def _write_split(file, name_of, labels, groups, chosen):
    rows = [
        {
            "imgName": name,
            "Label": labels[path],
            "Split": "valid" if path in chosen else "train",
            **({"Group": groups.get(path, "")} if groups else {}),
        }
        for path, name in name_of.items()
    ]
    try:
        write_table(rows, file)
        log(f"{file}: written; later runs divide the images as it does.")
    except OSError as error:
        log_once(f"{file}: not written ({error.strerror}); the images are divided in the same way every time.")


def check_one_class(labels, root):
    """Raise InputError if identical files have different labels.

    Args:
        labels: {path: name of the class}.
        root: directory, for messages.
    """
    for copies in identical_files(labels):
        first = copies[0]
        for other in copies[1:]:
            if labels[other] != labels[first]:
                names = [shorten(os.path.relpath(path, root)) for path in (first, other)]
                raise InputError(
                    f"{root}: {names[0]} ({labels[first]}) and {names[1]} ({labels[other]}) are the same image in two "
                    "classes; keep one"
                )
