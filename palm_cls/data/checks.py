"""Check a data set before training: `check_data`, behind `tools/check_data.py`.

    report = check_data(*find_photos(DataOptions("mydata")))
    for issue in report.issues:
        print(issue.level, issue.kind, *issue.files, issue.text)

An error makes training or evaluation fail, or run on a picture that is no eye; a warning is for the user to judge.
Does not import paddle.
"""

import math
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from palm_cls.core import environment
from palm_cls.core.errors import shorten
from palm_cls.data.check_splits import find_splits
from palm_cls.data.image_files import is_image
from palm_cls.data.image_info import SIGNATURE_BYTES, ImageInfo, detect_image_format, inspect_image, similar_groups
from palm_cls.data.images import IMAGE_SIZE
from palm_cls.data.labels import CLASSES
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import Dataset

# kind: (level, what the issues of this kind are), in the order in which they are reported
ISSUE_TYPES = {
    "no-images": ("error", "images that are missing altogether"),
    "no-labels": ("error", "tables of labels that are missing or faulty"),
    "division": ("error", "tables that do not divide these images into training and validation images"),
    "too-few": ("error", "a class that cannot be divided into training and validation images"),
    "unreadable": ("error", "files that cannot be read"),
    "empty": ("error", "empty files"),
    "not-an-image": ("error", "files that are no images"),
    "truncated": ("error", "truncated images, which break off before their end"),
    "damaged": ("error", "images that do not decode"),
    "depth": ("error", "images of more than 8 bits a channel, which are refused"),
    "no-label": ("error", "images whose label is not known"),
    "no-image": ("error", "labels without an image"),
    "two-classes": ("error", "byte-identical images in two classes"),
    "identical-leak": ("warning", "byte-identical images in training and validation: the measures are too good"),
    "similar-leak": ("warning", "nearly identical images in training and validation: the measures are too good"),
    "group-leak": ("warning", "images of one group in training and validation: the measures are too good"),
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
MIN_CLASS_SHARE = 0.2  # of the share of a class if all were equal; a smaller class is reported


@dataclass(frozen=True)
class Issue:
    """One issue of a data set."""

    level: str  # "error" or "warning"
    kind: str  # a key of ISSUE_TYPES
    files: tuple  # paths relative to the root of the data set, with "/"
    text: str  # details, or ""


@dataclass(frozen=True)
class DataReport:
    """The result of `check_data`."""

    root: Path
    disclaimer: str
    # {"training", "validation", "test" or, not divided yet, "all": {"images": number, "classes": {label: number},
    # "sizes": {"WxH": number}, "channels": {name: number}, "formats": {name: number}}}; damaged images count in the
    # first two
    splits: dict
    issues: list  # of Issue, in the order of ISSUE_TYPES

    def count(self, level):
        """Return the number of issues of a level, "error" or "warning"."""
        return sum(issue.level == level for issue in self.issues)


def check_data(dataset, options=None):
    """Read every image and label of a data set once, with a progress bar.

    Args:
        dataset: a Dataset, a ClassFolders or a DataRoot; missing parts are issues, too.
        options: DataOptions as `find_photos` returns them; default: those with the course's classes.

    Returns:
        A DataReport.
    """
    options = options or DataOptions(classes=CLASSES)
    classes = [0, 1] if isinstance(dataset, Dataset) and options.classes == CLASSES else options.classes
    issues = []
    splits = find_splits(dataset, options, lambda *issue: issues.append(_issue(*issue)))
    infos = _inspect_all(list(dict.fromkeys(path for split in splits for path in split.paths)))
    for split in splits:
        issues += _file_issues(split, infos) + _label_issues(split, classes) + _fovea_issues(split, infos)
    issues += _copy_issues(splits, infos) + _group_issues(splits)
    order = list(ISSUE_TYPES)
    issues = list(dict.fromkeys(_relative(issue, dataset.root) for issue in issues))  # splits may share a directory
    issues.sort(key=lambda issue: (order.index(issue.kind), issue.files))
    summaries = {split.name: _summary(split, infos, classes) for split in splits}
    return DataReport(dataset.root, dataset.disclaimer, summaries, issues)


def _issue(kind, files, text=""):
    return Issue(ISSUE_TYPES[kind][0], kind, tuple(files), text)


def _relative(issue, root):
    return replace(issue, files=tuple(Path(os.path.relpath(path, root)).as_posix() for path in issue.files))


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
    beside = {path for folder in {path.parent for path in split.paths} for path in folder.iterdir()} - set(split.paths)
    for path in beside:  # images that the loaders ignore because of their names
        ignored = path.is_file() and not is_image(path) and not path.name.startswith(".")
        if ignored and (format := detect_image_format(_first_bytes(path))):
            issues.append(_issue("wrong-name", [path], f"a {format} file, not used under this name"))
    return issues


def _first_bytes(path):
    try:
        with path.open("rb") as file:
            return file.read(SIGNATURE_BYTES)
    except OSError:  # not a file that training reads
        return b""


def _label_issues(split, classes):
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
        if split.no_label and path not in split.labels:
            issues.append(_issue("no-label", [path], split.no_label))
    counts, name = Counter(split.labels.values()), "" if split.name == "all" else f"{split.name} "
    for label in classes if split.labels else ():
        if not counts[label] and isinstance(label, str):  # the loaders refuse it
            issues.append(_issue("no-images", (), f"no {name}image of class {shorten(label)}"))
        elif counts[label] < MIN_CLASS_SHARE / len(classes) * len(split.labels):
            text = f"{counts[label]} of {len(split.labels)} labelled {name}images have label {shorten(label)}"
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
        if not (math.isfinite(x) and math.isfinite(y)):
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
        return float(text)
    except ValueError:
        return math.nan


def _copy_issues(splits, infos):
    """Return issues of identical and nearly identical images."""
    images = [(split, path) for split in splits for path in split.paths]
    images = [(split, path) for split, path in images if not infos[path].problem and not infos[path].is_blank]
    issues = []
    for group in similar_groups([infos[path].thumbnail for _, path in images]):
        alike = [images[index] for index in group]
        labels = [split.labels[path] for split, path in alike if path in split.labels]
        names = list(dict.fromkeys(split.name for split, _ in alike))
        kind = "identical" if len({infos[path].digest for _, path in alike}) == 1 else "similar"
        text = f"their labels differ: {', '.join(map(shorten, labels))}" if len(set(labels)) > 1 else ""
        if text and kind == "identical" and isinstance(labels[0], str):  # the loaders refuse it
            kind = "two-classes"
        elif len(names) > 1:
            kind += "-leak"
        issues.append(_issue(kind, dict.fromkeys(path for _, path in alike), _in_splits(names, text)))
    return issues


def _in_splits(names, text):
    """Add the names of several splits to a text, unless they are those in the texts of ISSUE_TYPES."""
    where = f"in {' and '.join(names)}" if len(names) > 1 and names != ["training", "validation"] else ""
    return "; ".join(filter(None, (where, text)))


def _group_issues(splits):
    """Return issues of groups, such as patients, with images in several splits."""
    members = defaultdict(list)
    for split in splits:
        for path, row in (split.rows or {}).items():
            members[row.group].append((split.name, path))
    issues = []
    for group, images in members.items():
        names = list(dict.fromkeys(name for name, _ in images))
        if group and len(names) > 1:
            text = _in_splits(names, f"group {shorten(group)}")
            issues.append(_issue("group-leak", dict.fromkeys(path for _, path in images), text))
    return issues


def _summary(split, infos, classes):
    whole = [infos[path] for path in split.paths if not infos[path].problem]
    counts = Counter(split.labels.values())
    return {
        "images": len(split.paths),
        "classes": {label: counts[label] for label in classes if counts[label]},
        "sizes": dict(Counter(info.size_text for info in whole).most_common()),
        "channels": dict(Counter(info.channels for info in whole).most_common()),
        "formats": dict(Counter(info.format for info in whole).most_common()),
    }
