"""What is wrong with a data set, before a network learns it: `check_data`, behind `tools/check_data.py`.

    report = check_data(find_dataset())
    for finding in report.issues:
        print(finding.level, finding.kind, *finding.files, finding.text)

An error makes training or evaluation fail or run on what is no picture of an eye; a warning is for the user to judge.
Does not import paddle.
"""

import hashlib
import math
import os
import re
from collections import Counter, namedtuple
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from palm_cls.core import environment
from palm_cls.core.errors import InputError
from palm_cls.data.images import IMAGE_SIZE, JPEG, PNG, DecodeError, decode, is_truncated, jpeg_segments
from palm_cls.data.labels import LABEL_BY_PREFIX
from palm_cls.data.palm import image_names, is_image, labelled_images, workbook_difference

# kind: (level, what the findings of this kind are), in the order in which they are reported
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

# level: "error" or "warning"; kind: a key of ISSUE_TYPES; files: paths, relative to the data set's root, with "/"
# text: what is to be said besides, or ""
Issue = namedtuple("Issue", ("level", "kind", "files", "text"))

# A split as its directory and its table tell it. paths: the images; rows: {path: LabelRow} of the table, or None where
# there is none; labels_from_names: whether the names tell the labels; labels: {path: 0 or 1} of images.
Split = namedtuple("Split", ("name", "directory", "paths", "rows", "labels_from_names", "labels"))

# What one reading of a file gave. problem: kind of the error, or None; then the rest is known. format: "JPEG", ...;
# channels: "colour", "grey", "CMYK", ...; size: (width, height); thumbnail: uint8 [THUMBNAIL, THUMBNAIL], grey.
ImageInfo = namedtuple("ImageInfo", ("problem", "detail", "digest", "format", "channels", "size", "thumbnail"))

# how files begin, as regular expressions
SIGNATURES = {
    "JPEG": JPEG,
    "PNG": PNG,
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{4}\0{4}",
    "TIFF": rb"II\*\0|MM\0\*",
    "WebP": rb"RIFF.{4}WEBP",
}
SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}

FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the JPEG segments that tell size and channels

THUMBNAIL = 32  # pixels
BLOCK = 1024  # images compared with all others at a time
BLANK = 1.0  # standard deviation of a thumbnail, in grey levels; the flattest of the real images has 18

# Two images are nearly identical where their thumbnails correlate above 1 - SIMILAR. Measured on the 600 images of the
# course's set at 224x224: of the pairs of different eyes the closest is 0.0133 from 1 (on 8000 images some 0.005 is to
# be expected, since that distance falls with about the fifth root of the number of pairs); copies are within 0.0008
# when rescaled by 0.9 and saved at JPEG quality 60, 0.0012 at quality 30, 0.0009 when brightened by a tenth, 0.0002
# against the originals of 1444 and 2124 pixels. The usual 64-bit hashes (DCT, differences) do not serve: fundus
# photographs are a bright disc on black, and different eyes have equal hashes.
SIMILAR = 0.003

MIN_CLASS_SHARE = 0.1  # share of the labelled images below which a class is reported


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found: findings in the order of ISSUE_TYPES, and per split what its images are.

    splits: {"training" or "validation": {"images": number, "classes": {label: number}, "sizes": {"WxH": number},
    "channels": {name: number}, "formats": {name: number}}}; damaged images count in "images" and "classes" only.
    """

    root: Path
    disclaimer: str
    splits: dict
    issues: list

    def count(self, level):
        """Number of findings of a level, "error" or "warning"."""
        return sum(finding.level == level for finding in self.issues)


def check_data(dataset, train_csv=None):
    """Read every image and label of a Dataset once, and return a DataReport; missing parts are findings, too.

    `train_csv`: table of the training labels, as for `palm_train_loader`. A bar shows the progress on a terminal.
    """
    findings = []
    splits = _splits(dataset, train_csv, findings)
    photos = _inspect_all([path for split in splits for path in split.paths])
    for split in splits:
        findings += _file_findings(split, photos)
        findings += _label_findings(split)
        findings += _fovea_findings(split, photos)
    findings += _copy_findings(splits, photos)
    order = list(ISSUE_TYPES)
    findings = [_relative(finding, dataset.root) for finding in findings]
    findings.sort(key=lambda finding: (order.index(finding.kind), finding.files))
    summaries = {split.name: _summary(split, photos) for split in splits}
    return DataReport(dataset.root, dataset.disclaimer, summaries, findings)


def _finding(kind, files, text=""):
    return Issue(ISSUE_TYPES[kind][0], kind, tuple(files), text)


def _relative(finding, root):
    return finding._replace(files=tuple(Path(os.path.relpath(path, root)).as_posix() for path in finding.files))


def _splits(dataset, train_csv, findings):
    """The two Splits, training and validation; what the data set cannot tell of them goes to `findings`."""

    def ask(kind, what):
        try:
            return what()
        except InputError as error:
            findings.append(_finding(kind, (), str(error)))
            return None

    def rows(directory, table):
        difference = table and workbook_difference(table)
        if difference:
            findings.append(_finding("other-labels", [table], difference.replace("\n", " ")))
        return table and ask("no-labels", lambda: labelled_images(directory or dataset.root, table))

    labels_from_names = not (train_csv or dataset.layout.train_table)
    train_images = ask("no-images", lambda: dataset.train_images)
    valid_images = ask("no-images", lambda: dataset.valid_images)
    train_rows = rows(train_images, train_csv or ask("no-labels", lambda: dataset.train_labels))
    valid_rows = rows(valid_images, ask("no-labels", lambda: dataset.valid_labels))
    return [
        _split("training", train_images, train_rows, labels_from_names),
        _split("validation", valid_images, valid_rows, labels_from_names=False),
    ]


def _split(name, directory, rows, labels_from_names):
    if directory is None:
        return Split(name, None, [], None, labels_from_names, {})
    paths = {directory / name for name in image_names(directory)}
    if rows is not None:
        paths |= {path for path in rows if os.path.isfile(path)}  # whatever its suffix, the readers take it
        labels = {path: row.label for path, row in rows.items() if path in paths}
    else:
        letters = LABEL_BY_PREFIX if labels_from_names else {}
        labels = {path: letters[path.name[0]] for path in paths if path.name[0] in letters}
    return Split(name, directory, sorted(paths), rows, labels_from_names, labels)


def _inspect_all(paths):
    """{path: ImageInfo}, read and decoded on all cores (OpenCV lets other threads run meanwhile)."""
    with environment.own_threads() as pool:  # Ctrl-C need not wait for all of them
        return dict(zip(paths, tqdm(pool.map(_inspect, paths), "images", len(paths), leave=False, disable=None)))


def _inspect(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        return _bad("unreadable", error.strerror)
    if not content:
        return _bad("empty")
    format = _format(content)
    if is_truncated(content):
        return _bad("truncated", f"{len(content)} bytes, and the end of the {format} is not among them")
    try:
        img = decode(content)
    except DecodeError as error:
        if format is None:
            return _bad("not-an-image", f"begins with {content[:16]!r}")
        return _bad(error.kind, ": ".join(filter(None, (format, error.reason))))
    grey = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
    return ImageInfo(
        problem=None,
        detail="",
        digest=hashlib.sha256(content).digest(),
        format=format or "unknown",
        channels=_channels(content, format),
        size=(img.shape[1], img.shape[0]),
        thumbnail=cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA),
    )


def _bad(problem, detail=""):
    return ImageInfo(problem, detail, None, None, None, None, None)


def _format(content):
    """The name in SIGNATURES of what `content` begins like, or None."""
    return next((name for name, start in SIGNATURES.items() if re.match(start, content, re.DOTALL)), None)


def _channels(content, format):
    """What the header of a decodable JPEG or PNG says of its pixels: "colour", "grey with alpha", "CMYK", ..."""
    if format == "JPEG":
        frame = next((start for marker, start in jpeg_segments(content).items() if marker in FRAMES), None)
        number = content[frame + 7] if frame else None
        return {1: "grey", 3: "colour", 4: "CMYK"}.get(number, "unknown")
    if format == "PNG":
        return {0: "grey", 4: "grey with alpha", 6: "colour with alpha"}.get(content[25], "colour")
    return "unknown"


def _file_findings(split, photos):
    """What is wrong with files, each by itself."""
    findings = []
    for path in split.paths:
        photo = photos[path]
        if photo.problem:
            findings.append(_finding(photo.problem, [path], photo.detail))
            continue
        if path.suffix.lower() not in SUFFIXES.get(photo.format, ()):
            findings.append(_finding("wrong-name", [path], f"a {photo.format} file"))
        if photo.channels != "colour":
            findings.append(_finding("channels", [path], photo.channels))
        if min(photo.size) < IMAGE_SIZE:
            findings.append(_finding("small", [path], _size(photo)))
        if _is_blank(photo):
            findings.append(_finding("blank", [path]))
    return findings + _passed_over(split)


def _passed_over(split):
    """Images among the files that the readers pass over for their names."""
    findings = []
    for path in sorted(split.directory.iterdir()) if split.directory else []:
        if path.is_file() and not is_image(path) and not path.name.startswith(".") and path not in split.paths:
            format = _format(_beginning(path))
            if format:
                findings.append(_finding("wrong-name", [path], f"a {format} file, not used under this name"))
    return findings


def _beginning(path):
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:  # nothing that training would read
        return b""


def _label_findings(split):
    """Images and labels that do not find each other, and the balance of the classes."""
    findings = []
    by_folded_name = {path.name.casefold(): path.name for path in split.paths}
    for path, row in (split.rows or {}).items():
        if path not in split.labels:
            other = by_folded_name.get(path.name.casefold())
            findings.append(_finding("no-image", [path], f"row {row.row}" + (f"; there is {other}" if other else "")))
    for path in split.paths:
        if split.rows is not None and path not in split.rows:
            findings.append(_finding("unlisted", [path]))
        if split.labels_from_names and path not in split.labels:
            findings.append(_finding("no-label", [path], "its name begins with neither H, N nor P"))
    counts = Counter(split.labels.values())
    for label in (0, 1):
        if split.labels and counts[label] < MIN_CLASS_SHARE * len(split.labels):
            text = f"{counts[label]} of {len(split.labels)} labelled {split.name} images have label {label}"
            findings.append(_finding("balance", (), text))
    return findings


def _fovea_findings(split, photos):
    """Foveas where none can be. Coordinates are pixels of the original; a smaller copy makes all of them too large."""
    findings, outside, marked = [], [], 0
    for path, row in (split.rows or {}).items():
        if photos.get(path, _bad("no-image")).problem or not (row.fovea_x or row.fovea_y):
            continue
        x, y = _number(row.fovea_x), _number(row.fovea_y)
        width, height = photos[path].size
        where = f"({row.fovea_x}, {row.fovea_y})"
        if math.isnan(x) or math.isnan(y):
            findings.append(_finding("fovea-unreadable", [path], where))
        elif x == y == 0:
            findings.append(_finding("fovea-unmarked", [path]))
        else:
            marked += 1
            if not (0 <= x < width and 0 <= y < height):
                outside.append(_finding("fovea-outside", [path], f"{where} in {_size(photos[path])}"))
    if len(outside) > marked / 2:
        text = f"{len(outside)} of {marked} foveas of the {split.name} images lie outside, as {outside[0].text}"
        return [*findings, _finding("fovea-resolution", (), text)]
    return findings + outside


def _number(text):
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _copy_findings(splits, photos):
    """Groups of images that are the same, or nearly so."""
    split_of = {path: split.name for split in splits for path in split.paths}
    label_of = {path: label for split in splits for path, label in split.labels.items()}
    paths = [path for path, photo in photos.items() if not photo.problem and not _is_blank(photo)]
    findings = []
    for group in similar_groups([photos[path].thumbnail for path in paths]):
        files = [paths[index] for index in group]
        kind = "identical" if len({photos[path].digest for path in files}) == 1 else "similar"
        leak = "-leak" if len({split_of[path] for path in files}) > 1 else ""
        labels = [label_of[path] for path in files if path in label_of]
        text = f"their labels differ: {', '.join(map(str, labels))}" if len(set(labels)) > 1 else ""
        findings.append(_finding(kind + leak, files, text))
    return findings


def similar_groups(thumbnails):
    """Groups of nearly identical images, lists of two or more indices, for thumbnails uint8 [N, height, width].

    Whatever is similar to one of a group belongs to it. Thumbnails of one colour are no input for this.
    """
    count = len(thumbnails)
    vectors = np.reshape(thumbnails, (count, -1)).astype("float32") if count else np.zeros((0, 1), "float32")
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group_of = np.arange(count)
    for start in range(0, count, BLOCK):
        similar = vectors[start : start + BLOCK] @ vectors[start:].T > 1 - SIMILAR  # [BLOCK, count - start]
        for row in np.flatnonzero(similar.sum(axis=1) > 1):
            joined = group_of[start + np.flatnonzero(similar[row])]
            group_of[np.isin(group_of, joined)] = joined.min()
    sizes = np.bincount(group_of, minlength=count)
    return [np.flatnonzero(group_of == group).tolist() for group in np.flatnonzero(sizes > 1)]


def _is_blank(photo):
    return photo.thumbnail.std() < BLANK


def _size(photo):
    return "{}x{}".format(*photo.size)


def _summary(split, photos):
    whole = [photos[path] for path in split.paths if not photos[path].problem]
    return {
        "images": len(split.paths),
        "classes": dict(sorted(Counter(split.labels.values()).items())),
        "sizes": dict(Counter(map(_size, whole)).most_common()),
        "channels": dict(Counter(photo.channels for photo in whole).most_common()),
        "formats": dict(Counter(photo.format for photo in whole).most_common()),
    }
