"""Loaders of photographs in any layout: the course's folders and tables, a folder for each class, other tables.

`find_photos` finds the images and their classes, `photo_loader` loads a split:

    dataset, options = find_photos(DataOptions("mydata"))
    loader = photo_loader(dataset, "train", options)
"""

import functools
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, did_you_mean, shorten
from palm_cls.data.class_folders import ClassFolders
from palm_cls.data.classes import check_classes, order_classes, takes_numbers
from palm_cls.data.data_root import DataRoot
from palm_cls.data.image_files import labelled_images
from palm_cls.data.labels import CLASSES
from palm_cls.data.loaders import ImageLoader, data_loader, valid_data_loader
from palm_cls.data.options import VALID_FRACTION
from palm_cls.data.palm import Dataset, detect_layout, explicit_directory, find_dataset
from palm_cls.data.pipeline import check_images
from palm_cls.data.split import check_one_class, divide
from palm_cls.data.tables import read_rows

MAX_SHOWN = 10  # classes in a line


def find_photos(options):
    """Find the data set that DataOptions mean, and its classes.

    Returns:
        (dataset, options): a Dataset, a ClassFolders or, of tables in a directory without a known layout, a DataRoot;
        the options with the names of the classes.

    Raises:
        InputError: There is none, or its classes or the options do not fit.
    """
    if options.classes and options.positive:
        raise InputError("--classes or --positive, not both; of two classes the last is the positive one")
    directory, has_table = explicit_directory(options.data), options.train_csv or options.valid_csv
    if has_table and directory and Path(directory).is_dir() and detect_layout(directory) is None:
        dataset = DataRoot(Path(directory))
    else:
        dataset = find_dataset(options.data)
        if has_table and isinstance(dataset, ClassFolders):  # in one of the usual places
            dataset = DataRoot(dataset.root)
    if options.valid_fraction and not is_undivided(dataset, options):
        raise InputError(f"--valid-fraction: {dataset.root} is divided already; leave it out")
    options = replace(options, classes=_find_classes(dataset, options), positive=None)
    _log_numbers(options)
    return dataset, options


def _find_classes(dataset, options):
    if options.classes:
        return check_classes(options.classes, "--classes")
    if isinstance(dataset, Dataset):
        if options.positive:
            raise InputError(f"--positive: {CLASSES[1]} is the positive class here; name others with --classes")
        return CLASSES
    if isinstance(dataset, ClassFolders):
        names = dataset.class_names()
    else:
        tables = [table for table in (options.train_csv, options.valid_csv) if table]
        labels = set().union(*(_scan(table)[0] for table in tables))
        names = check_classes(sorted(labels), " and ".join(map(str, tables)))
    return order_classes(names, options.positive)


def _log_numbers(options):
    """Log what numbers in the tables stand for if the classes have names."""
    tables = [table for table in (options.train_csv, options.valid_csv) if table]
    if not tables or options.classes == CLASSES or not takes_numbers(options.classes):
        return
    if any(label.isdecimal() for table in tables for label in _scan(table)[0]):
        numbers = ", ".join(f"{number} {name}" for number, name in enumerate(options.classes))
        log_once(f"{' and '.join(map(str, tables))}: numbers stand for the classes in their order: {numbers}.")


def photo_loader(dataset, split, options, batch_size=10, cache=True, write=False):
    """Make the loader of a split.

    Args:
        dataset, options: as `find_photos` returns them.
        split: "train", "valid" or "test"; "all": the training images or, if the data set is not divided, all.
        batch_size, cache: as for `data_loader`.
        write: write the table of a new division, see `palm_cls.data.split.divide`.

    Returns:
        An ImageLoader, which shuffles training images.

    Raises:
        InputError: There is no such split, or images and labels do not fit.
    """
    mode = "train" if split in ("train", "all") else "valid"
    settings = batch_size, mode, options.skip_bad and mode == "train", cache
    if isinstance(dataset, Dataset):
        return _course_loader(dataset, "train" if split == "all" else split, options, settings)
    is_listed, undivided = not isinstance(dataset, ClassFolders), is_undivided(dataset, options)
    if is_listed and split == "test":
        raise InputError(f"{dataset.root}: its tables have no test split; evaluate test images with --valid-csv FILE")
    if is_listed and not undivided:
        table = options.valid_csv if mode == "valid" and options.valid_csv else options.train_csv
        if not table:
            raise InputError(f"{dataset.root}: no table of the {split} labels; give --{split}-csv FILE")
        return valid_data_loader(dataset.root, table, *settings, options.classes)
    directory, samples, groups = _samples(dataset, split, options)
    fraction = (options.valid_fraction or VALID_FRACTION) if undivided and split != "all" else None
    if fraction:
        labels = {path: options.classes[number] for path, number in samples}
        kept = set(divide(directory, labels, groups, fraction, options.train_csv, write)[split])
        samples = [sample for sample in samples if sample[0] in kept]
    loader = ImageLoader(directory, samples, *settings[:2], cache, options.classes)
    loader.valid_fraction = fraction
    loader.groups = {loader.name_of((path, None)): group for path, group in groups.items()}
    check_images(loader, settings[2])
    return loader


def is_undivided(dataset, options):
    """Return whether training and validation images must be told apart by `divide`."""
    if isinstance(dataset, ClassFolders):
        return "all" in dataset.splits
    if isinstance(dataset, Dataset) or not options.train_csv or options.valid_csv:
        return False
    return not _scan(options.train_csv)[1]


def _scan(table):
    """Return (labels, splits), two sets of the text in a table of labels; it is read once as long as it stays."""
    stat = os.stat(table) if os.path.isfile(table) else None
    return _scan_file(table, stat and (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=2)  # of training and of validation
def _scan_file(table, state):
    rows = [row for _, row in read_rows(table)]
    return {row["Label"] for row in rows}, {row["Split"] for row in rows} - {""}


def _samples(dataset, split, options):
    """Return (directory, [(path, number of the class), ...], {path: group})."""
    classes, groups = options.classes, {}
    if isinstance(dataset, ClassFolders):
        part = "train" if split == "all" else split
        directory, samples = dataset.directory(part), dataset.samples(part, classes)
    else:
        directory = dataset.root
        rows = labelled_images(directory, options.train_csv, classes)
        if missing := [(path, row) for path, row in rows.items() if not os.path.isfile(path)]:
            path, row = missing[0]
            raise InputError(f"{shorten(path)}: no such image; it is listed in {options.train_csv}, row {row.row}")
        samples = [(path, row.label) for path, row in rows.items()]
        groups = {path: row.group for path, row in rows.items() if row.group}
    return directory, samples, groups


def _course_loader(dataset, split, options, settings):
    """Make the loader of a split in one of the course's layouts, by the lesson's functions."""
    directory = getattr(dataset, f"{split}_images")
    table = {"train": options.train_csv, "valid": options.valid_csv}.get(split) or getattr(dataset, f"{split}_labels")
    if table:
        return valid_data_loader(directory, table, *settings, options.classes)
    if options.classes != CLASSES:
        raise InputError(
            f"{directory}: the names of its images give the classes {' and '.join(CLASSES)}; for others "
            f"({shorten(', '.join(options.classes))}) give the labels in a table (--train-csv)"
        )
    return data_loader(directory, *settings)


def check_photos(dataset, loaders):
    """Check the loaders of a data set, and log once which classes it has.

    Args:
        dataset: as `find_photos` returns it; of digits, and of the course's images and classes, nothing is checked.
        loaders: {"training" or another word: ImageLoader}.

    Raises:
        InputError: A class has no image, or an image two classes.
    """
    classes, counts, label_of = next(iter(loaders.values())).classes, {}, {}
    if not isinstance(dataset, DataRoot) or (isinstance(dataset, Dataset) and classes == CLASSES):
        return
    for what, loader in loaders.items():
        counts[what] = Counter(loader.labels)
        if missing := [name for number, name in enumerate(classes) if not counts[what][number]]:
            others = [name for name in classes if name != missing[0]]
            raise InputError(
                f"{dataset.root}: no {what} image of class {shorten(missing[0])}; every class needs some"
                f"{did_you_mean(missing[0], others)}"
            )
        for path, number in loader.samples:
            if label_of.setdefault(path, classes[number]) != classes[number]:
                raise InputError(
                    f"{path}: {label_of[path]} in one table and {classes[number]} in the other; correct one of them"
                )
    check_one_class(label_of, dataset.root)
    parts = [
        f"{shorten(name)} ({', '.join(f'{count[number]} {what}' for what, count in counts.items())})"
        for number, name in enumerate(classes)
    ]
    more = [f"and {len(parts) - MAX_SHOWN} more"] if len(parts) > MAX_SHOWN else []
    positive = f"; positive: {classes[1]} (--positive NAME changes it)" if len(classes) == 2 else ""
    log_once(f"{dataset.root}: {len(classes)} classes: {', '.join(parts[:MAX_SHOWN] + more)}{positive}.")
    _log_leaks(dataset, *loaders.values())


def _log_leaks(dataset, first, *others):
    """Log once how many images, or groups, of the training images are among the validation images."""
    for other in others:
        shared = {path for path, _ in first.samples} & {path for path, _ in other.samples}
        groups = set(first.groups.values()) & set(other.groups.values())
        for number, what in ((len(shared), "images"), (len(groups), "groups")):
            if number:
                log_once(
                    f"{dataset.root}: {number} {what} are in training and validation: the results are too good; "
                    "check_data.py lists them."
                )
