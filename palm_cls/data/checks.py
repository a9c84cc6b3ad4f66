"""Check a data set before training: `check_data`, behind `tools/check_data.py`.

    report = check_data(find_dataset())
    for issue in report.issues:
        print(issue.level, issue.kind, *issue.files, issue.text)

An error makes training or evaluation fail, or run on a picture that is no eye; a warning is for the user to judge.
Does not import paddle.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from palm_cls.core import environment
from palm_cls.core.errors import InputError
from palm_cls.data.image_files import image_names, is_image, labelled_images
from palm_cls.data.image_info import SIGNATURE_BYTES, ImageInfo, detect_image_format, inspect_image, similar_groups
from palm_cls.data.images import IMAGE_SIZE
from palm_cls.data.labels import LABEL_BY_PREFIX
from palm_cls.data.palm import workbook_difference

# kind: (level, what the issues of this kind are), in the order in which they are reported
ISSUE_TYPES = {
    "no-images": ("error", "images that are missing altogether"),
    "no-labels": ("error", "tables of labels that are missing or faulty"),
    "unreadable": ("error", "files that cannot be read"),
    "empty": ("error", "empty files"),
    "not-an-image": ("error", "files that are no images"),
    "truncated": ("error", "truncated images, which break off before their end"),
    "damaged": ("error", "images that do not decode"),
    "depth": ("error", "images of more than 8 bits a channel, which are refused"),
    "no-label": ("error", "images whose label is not known"),
    "no-image": ("error", "labels without an image"),
    "identical-leak": ("warning", "byte-identical images in training and validation: the measures are too good"),
    "similar-leak": ("warning", "nearly identical images in training and validation: the measures are too good"),
    "identical": ("warning", "byte-identical images"),
    "similar": ("warning", "nearly identical images"),
    "other-labels": ("warning", "tables whose labels are not those of the workbook beside them"),
    "unlisted": ("warning", "images that the table of labels does not list, not used"),
    "wrong-name": ("warning", "files whose name does not fit their content"),
    "channels": ("warning", "images that are not opaque colour"),
    "small": ("warning", f"images smaller than the network's {IMAGE_SIZE} pixels"),
    "blank": ("warning", "images of one colour"),
    "balance": ("warning", "a class with few images"),
    "fovea-unmarked": ("warning", "foveas at (0, 0): not marked"),
    "fovea-outside": ("warning", "foveas outside the image"),
    "fovea-resolution": ("warning", "fovea coordinates of another resolution than the images'"),
    "fovea-unreadable": ("warning", "fovea coordinates that are no numbers"),
}

SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}
MIN_CLASS_SHARE = 0.1  # of the labelled images; a smaller class is reported


@dataclass(frozen=True)
class Issue:
    """One issue of a data set."""

    level: str  # "error" or "warning"
    kind: str  # a key of ISSUE_TYPES
    files: tuple  # paths relative to the root of the data set, with "/"
    text: str  # details, or ""


@dataclass(frozen=True)
class Split:
    """The training or validation images and their labels."""

    name: str
    directory: Path  # or None
    paths: list  # of the images
    rows: dict  # {path: LabelRow} of the table, or None if there is none
    labels_from_names: bool
    labels: dict  # {path: 0 or 1} of the images that have one


@dataclass(frozen=True)
class DataReport:
    """The result of `check_data`."""

    root: Path
    disclaimer: str
    # {"training" or "validation": {"images": number, "classes": {label: number}, "sizes": {"WxH": number}, "channels":
    # {name: number}, "formats": {name: number}}}; damaged images count in "images" and "classes" only
    splits: dict
    issues: list  # of Issue, in the order of ISSUE_TYPES

    def count(self, level):
        """Return the number of issues of a level, "error" or "warning"."""
        return sum(issue.level == level for issue in self.issues)


def check_data(dataset, train_csv=None):
    """Read every image and label of a data set once, with a progress bar.

    Args:
        dataset: a Dataset; missing parts are issues, too.
        train_csv: table of the training labels, as for `palm_train_loader`.

    Returns:
        A DataReport.
    """
    issues = []
    splits = _splits(dataset, train_csv, issues)
    infos = _inspect_all([path for split in splits for path in split.paths])
    for split in splits:
        issues += _file_issues(split, infos)
        issues += _label_issues(split)
        issues += _fovea_issues(split, infos)
    issues += _copy_issues(splits, infos)
    order = list(ISSUE_TYPES)
    issues = [_relative(issue, dataset.root) for issue in issues]
    issues.sort(key=lambda issue: (order.index(issue.kind), issue.files))
    summaries = {split.name: _summary(split, infos) for split in splits}
    return DataReport(dataset.root, dataset.disclaimer, summaries, issues)


def _issue(kind, files, text=""):
    return Issue(ISSUE_TYPES[kind][0], kind, tuple(files), text)


def _relative(issue, root):
    return replace(issue, files=tuple(Path(os.path.relpath(path, root)).as_posix() for path in issue.files))


def _splits(dataset, train_csv, issues):
    """Return the training and the validation Split; add what is missing to `issues`."""

    def attempt(kind, function):
        try:
            return function()
        except InputError as error:
            issues.append(_issue(kind, (), str(error)))
            return None

    def rows(directory, table):
        difference = table and workbook_difference(table)
        if difference:
            issues.append(_issue("other-labels", [table], difference.replace("\n", " ")))
        return table and attempt("no-labels", lambda: labelled_images(directory or dataset.root, table))

    labels_from_names = not (train_csv or dataset.layout.train_table)
    train_images = attempt("no-images", lambda: dataset.train_images)
    valid_images = attempt("no-images", lambda: dataset.valid_images)
    train_rows = rows(train_images, train_csv or attempt("no-labels", lambda: dataset.train_labels))
    valid_rows = rows(valid_images, attempt("no-labels", lambda: dataset.valid_labels))
    return [
        _split("training", train_images, train_rows, labels_from_names),
        _split("validation", valid_images, valid_rows, labels_from_names=False),
    ]


def _split(name, directory, rows, labels_from_names):
    if directory is None:
        return Split(name, None, [], None, labels_from_names, {})
    paths = {directory / name for name in image_names(directory)}
    if rows is not None:
        paths |= {path for path in rows if os.path.isfile(path)}  # whatever its suffix, the loaders accept it
        labels = {path: row.label for path, row in rows.items() if path in paths}
    else:
        letters = LABEL_BY_PREFIX if labels_from_names else {}
        labels = {path: letters[path.name[0]] for path in paths if path.name[0] in letters}
    return Split(name, directory, sorted(paths), rows, labels_from_names, labels)


def _inspect_all(paths):
    """Return {path: ImageInfo}, read and decoded on all cores."""
    with environment.thread_pool() as pool:  # Ctrl-C does not wait for all of them
        return dict(zip(paths, tqdm(pool.map(inspect_image, paths), "images", len(paths), leave=False, disable=None)))


def _file_issues(split, infos):
    """Return issues of single files."""
    issues = []
    for path in split.paths:
        info = infos[path]
        if info.problem:
            issues.append(_issue(info.problem, [path], info.detail))
            continue
        if path.suffix.lower() not in SUFFIXES.get(info.format, ()):
            issues.append(_issue("wrong-name", [path], f"a {info.format} file"))
        if info.channels != "colour":
            issues.append(_issue("channels", [path], info.channels))
        if min(info.size) < IMAGE_SIZE:
            issues.append(_issue("small", [path], info.size_text))
        if info.is_blank:
            issues.append(_issue("blank", [path]))
    return issues + _ignored_images(split)


def _ignored_images(split):
    """Return issues for images that the loaders ignore because of their names."""
    issues = []
    for path in sorted(split.directory.iterdir()) if split.directory else []:
        if path.is_file() and not is_image(path) and not path.name.startswith(".") and path not in split.paths:
            format = detect_image_format(_first_bytes(path))
            if format:
                issues.append(_issue("wrong-name", [path], f"a {format} file, not used under this name"))
    return issues


def _first_bytes(path):
    try:
        with path.open("rb") as file:
            return file.read(SIGNATURE_BYTES)
    except OSError:  # not a file that training reads
        return b""


def _label_issues(split):
    """Return issues of labels without image, images without label, and the balance of the classes."""
    issues = []
    by_folded_name = {path.name.casefold(): path.name for path in split.paths}
    for path, row in (split.rows or {}).items():
        if path not in split.labels:
            other = by_folded_name.get(path.name.casefold())
            issues.append(_issue("no-image", [path], f"row {row.row}" + (f"; there is {other}" if other else "")))
    for path in split.paths:
        if split.rows is not None and path not in split.rows:
            issues.append(_issue("unlisted", [path]))
        if split.labels_from_names and path not in split.labels:
            issues.append(_issue("no-label", [path], "its name begins with neither H, N nor P"))
    counts = Counter(split.labels.values())
    for label in (0, 1):
        if split.labels and counts[label] < MIN_CLASS_SHARE * len(split.labels):
            text = f"{counts[label]} of {len(split.labels)} labelled {split.name} images have label {label}"
            issues.append(_issue("balance", (), text))
    return issues


def _fovea_issues(split, infos):
    """Return issues of impossible foveas. Coordinates are pixels of the original, too large for a smaller copy."""
    issues, outside, marked = [], [], 0
    for path, row in (split.rows or {}).items():
        if infos.get(path, ImageInfo("no-image")).problem or not (row.fovea_x or row.fovea_y):
            continue
        x, y = _number(row.fovea_x), _number(row.fovea_y)
        width, height = infos[path].size
        where = f"({row.fovea_x}, {row.fovea_y})"
        if math.isnan(x) or math.isnan(y):
            issues.append(_issue("fovea-unreadable", [path], where))
        elif x == y == 0:
            issues.append(_issue("fovea-unmarked", [path]))
        else:
            marked += 1
            if not (0 <= x < width and 0 <= y < height):
                outside.append(_issue("fovea-outside", [path], f"{where} in {infos[path].size_text}"))
    if len(outside) > marked / 2:
        text = f"{len(outside)} of {marked} foveas of the {split.name} images lie outside, as {outside[0].text}"
        return [*issues, _issue("fovea-resolution", (), text)]
    return issues + outside


def _number(text):
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _copy_issues(splits, infos):
    """Return issues of identical and nearly identical images."""
    split_of = {path: split.name for split in splits for path in split.paths}
    label_of = {path: label for split in splits for path, label in split.labels.items()}
    paths = [path for path, info in infos.items() if not info.problem and not info.is_blank]
    issues = []
    for group in similar_groups([infos[path].thumbnail for path in paths]):
        files = [paths[index] for index in group]
        kind = "identical" if len({infos[path].digest for path in files}) == 1 else "similar"
        leak = "-leak" if len({split_of[path] for path in files}) > 1 else ""
        labels = [label_of[path] for path in files if path in label_of]
        text = f"their labels differ: {', '.join(map(str, labels))}" if len(set(labels)) > 1 else ""
        issues.append(_issue(kind + leak, files, text))
    return issues


def _summary(split, infos):
    whole = [infos[path] for path in split.paths if not infos[path].problem]
    return {
        "images": len(split.paths),
        "classes": dict(sorted(Counter(split.labels.values()).items())),
        "sizes": dict(Counter(info.size_text for info in whole).most_common()),
        "channels": dict(Counter(info.channels for info in whole).most_common()),
        "formats": dict(Counter(info.format for info in whole).most_common()),
    }
