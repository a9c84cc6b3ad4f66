"""The splits of a data set as they are, with what is missing in them, for `palm_cls.data.checks`."""

import os
from dataclasses import dataclass, replace

from palm_cls.core.errors import InputError
from palm_cls.data.class_folders import ClassFolders, class_folders
from palm_cls.data.image_files import has_images, image_names, is_image, labelled_images
from palm_cls.data.labels import CLASSES, LABEL_BY_PREFIX
from palm_cls.data.options import VALID_FRACTION
from palm_cls.data.palm import Dataset, workbook_difference
from palm_cls.data.split import divide, division_file

SPLITS = {"train": "training", "valid": "validation", "test": "test", "all": "all"}  # their names in reports


@dataclass(frozen=True)
class Split:
    """The images of a split and their labels."""

    name: str
    paths: list  # of the images
    rows: dict  # {path: LabelRow} of the table, or None if there is none
    labels: dict  # {path: name of the class, of the course's classes 0 or 1} of the images that have one
    no_label: str = ""  # why an image has no label, if each must have one


def find_splits(dataset, options, add_issue):
    """Find the splits that a data set should have, with all their images.

    Args:
        dataset: a Dataset, a ClassFolders or a DataRoot.
        options: DataOptions with the names of the classes.
        add_issue: is called with what is missing or faulty: kind, files, text.

    Returns:
        A list of Split; of images that are not divided yet, one with the name "all".
    """
    if isinstance(dataset, ClassFolders):
        return _folder_splits(dataset, options, add_issue)
    if isinstance(dataset, Dataset):
        has_test = any(has_images(dataset.root / folder) for folder in dataset.layout.test_images)
        names = ["train", "valid"] + ["test"] * has_test
        return [_course_split(dataset, name, options, add_issue) for name in names]
    return _listed_splits(dataset, options, add_issue)


def _attempt(add_issue, kind, function):
    """Return what a function returns; of an InputError make an issue, and return None."""
    try:
        return function()
    except InputError as error:
        add_issue(kind, (), str(error))
        return None


def _read_table(directory, table, classes, add_issue, split=None):
    """Return {path: LabelRow} of a table, or None."""
    if difference := workbook_difference(table):
        add_issue("other-labels", [table], difference.replace("\n", " "))
    return _attempt(add_issue, "no-labels", lambda: labelled_images(directory, table, classes, split))


def _course_split(dataset, split, options, add_issue):
    """Return a Split of a Dataset."""
    table = {"train": options.train_csv, "valid": options.valid_csv}.get(split)
    by_name = split == "train" and not (table or dataset.layout.train_table)
    directory = _attempt(add_issue, "no-images", lambda: getattr(dataset, f"{split}_images"))
    table = table or _attempt(add_issue, "no-labels", lambda: getattr(dataset, f"{split}_labels"))
    used = "train" if split == "train" else "valid"  # the rows that the loaders take
    rows = _read_table(directory or dataset.root, table, options.classes, add_issue, used) if table else None
    if directory is None:
        return Split(SPLITS[split], [], None, {})
    paths = {directory / name for name in image_names(directory)}
    if rows is not None:
        paths |= {path for path in rows if os.path.isfile(path)}  # whatever its suffix, the loaders accept it
        labels = {path: row.label for path, row in rows.items() if path in paths}
    else:
        letters = LABEL_BY_PREFIX if by_name else {}
        labels = {path: letters[path.name[0]] for path in paths if path.name[0] in letters}
    if options.classes != CLASSES:
        labels = {path: options.classes[label] for path, label in labels.items()}
    no_label = "its name begins with neither H, N nor P" if by_name else ""
    return Split(SPLITS[split], sorted(paths), rows, labels, no_label)


def _listed_splits(dataset, options, add_issue):
    """Return the Splits of a DataRoot, whose images are those in tables."""
    tables = {"train": options.train_csv, "valid": options.valid_csv}
    if not options.valid_csv:
        tables = {"all": options.train_csv}
    splits = []
    for name, table in tables.items():
        if table:
            used = None if name == "all" else name  # the rows that the loaders take
            rows = _read_table(dataset.root, table, options.classes, add_issue, used) or {}
            labels = {path: options.classes[row.label] for path, row in rows.items() if os.path.isfile(path)}
            splits.append(Split(SPLITS[name], sorted(labels), rows, labels))
    listed = {path for split in splits for path in split.paths}
    for folder in {path.parent for path in listed}:
        for path in folder.iterdir():
            if is_image(path) and path not in listed:
                add_issue("unlisted", [path])
    return splits if options.valid_csv or not splits else _divided(splits[0], dataset, options, add_issue)


def _folder_splits(dataset, options, add_issue):
    """Return the Splits of a ClassFolders."""
    _attempt(add_issue, "no-images", lambda: dataset.directory("valid"))
    splits = []
    for name, folder in dataset.splits.items():
        splits.append(_folder_split(SPLITS[name], folder, options.classes, add_issue))
    return _divided(splits[0], dataset, options, add_issue) if "all" in dataset.splits else splits


def _folder_split(name, directory, classes, add_issue):
    """Return a Split with a folder for each class."""
    folders = class_folders(directory)
    label_of = {folder / image: label for label, folder in folders.items() for image in image_names(folder)}
    labels = {path: label for path, label in label_of.items() if label in classes}
    for image in image_names(directory) if has_images(directory) else ():
        add_issue("unlisted", [directory / image], "in no folder of a class")
    return Split(name, sorted(label_of), None, labels, "its folder is none of the classes")


def _divided(split, dataset, options, add_issue):
    """Return the Splits into which a table divides a Split, or [split] if none does yet."""
    rows = split.rows or {}
    if any(row.split for row in rows.values()):  # as the loaders take them: without a split, in both
        parts = {name: [path for path, row in rows.items() if row.split in ("", name)] for name in ("train", "valid")}
        test = [path for path, row in rows.items() if row.split == "test"]
        parts.update({"test": test} if test else {})
    else:
        parts = _read_division(split, dataset, options, add_issue)
    splits = [_part(split, SPLITS[name], set(paths)) for name, paths in parts.items()] if parts else [split]
    for part in splits:
        if parts and not part.paths:
            add_issue("no-images", (), f"no {part.name} image in the table that divides the images")
    return splits


def _part(split, name, kept):
    """Return some images of a Split as a Split of another name."""
    rows = split.rows and {path: row for path, row in split.rows.items() if path in kept}
    labels = {path: label for path, label in split.labels.items() if path in kept}
    return replace(split, name=name, paths=[path for path in split.paths if path in kept], rows=rows, labels=labels)


def _read_division(split, dataset, options, add_issue):
    """Return {"train" or "valid": paths} of the table that `divide` wrote, or None without one that fits."""
    rows, table = split.rows or {}, None if split.rows is None else options.train_csv
    fraction = options.valid_fraction or VALID_FRACTION
    if division_file(dataset.root, fraction, table).is_file():
        kind, labels = "division", {path: split.labels.get(path, "") for path in (*rows, *split.paths)}
    else:  # try whether training could divide the images
        kind, labels = "too-few", split.labels
    groups = {path: row.group for path, row in rows.items() if row.group}
    try:
        parts = divide(dataset.root, labels, groups, fraction, table) if split.paths else None
    except InputError as error:
        add_issue(kind, (), str(error))
        return None
    except OSError:  # a file that cannot be read, which is an issue of its own
        return None
    return parts if kind == "division" else None
