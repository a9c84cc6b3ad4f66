"""The demo set: drawn fundus photographs in the course's layout, or in a folder for each class."""

import contextlib
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from palm_cls.core import environment
from palm_cls.core.errors import InputError
from palm_cls.data.data_root import DEMO_MARK, DEMO_TEXT
from palm_cls.data.synthetic import draw_fundus

BLOCK = "H" + "N" * 6 + "P" * 8  # close to the 26 : 161 : 213 of the real training set
CLASSES = {"H": "high_myopia", "N": "normal", "P": "pathological"}
SPLIT_FOLDERS = {  # layout: directories of the training and the validation images
    "course": ("PALM-Training400/PALM-Training400", "PALM-Validation400"),
    "folders": ("train", "val"),
}
TRAIN, VALID = 0, 1  # keep the random numbers of the two splits apart


def draw_demo_set(directory, train=200, valid=100, layout="course"):
    """Draw a demo set with its mark, DEMO.txt, whole or not at all.

    Args:
        directory: the root, absent or empty.
        train, valid: numbers of images.
        layout: "course" or "folders", see `write_demo_set`.

    Returns:
        Numbers of images, as `write_demo_set` returns them.

    Raises:
        InputError: The directory is not empty or cannot be replaced, or there is no such layout.
    """
    root = Path(os.path.realpath(directory))  # a link to an empty directory stays one
    _check_replaceable(root, directory)
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=root.parent) as temporary:
            drawn = Path(temporary, "demo")
            counts = write_demo_set(drawn, train, valid, layout=layout)
            (drawn / DEMO_MARK).write_text(DEMO_TEXT, encoding="utf-8")
            _move(drawn, root, directory)
    except OSError as error:
        error.filename = str(directory)  # the user does not know the temporary name
        raise
    return counts


def _check_replaceable(root, directory):
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"{directory}: a file, not a directory; give a new or an empty directory")
    if any(root.iterdir()):
        raise InputError(f"{directory}: not empty; give a new or an empty directory")
    if os.path.samefile(root, os.curdir):  # the shell would stay in the removed one
        raise InputError(f"{directory}: the current directory; give another one")


def _move(drawn, root, directory):
    with contextlib.suppress(OSError):
        root.rmdir()  # under Windows an empty directory is in the way of a renamed one
    try:
        os.replace(drawn, root)
    except OSError as error:  # filled in the meantime, or a mount point
        raise InputError(f"{directory}: cannot be replaced ({error.strerror}); give a new directory") from error


def write_demo_set(directory, train=200, valid=100, seed=0, layout="course"):
    """Write a set of drawn images, without the mark of a demo set.

    Picture k of a split depends on `seed` and k only, so that a larger set begins with the smaller one, and both
    layouts hold the same files.

    Args:
        directory: the root, absent or empty.
        train, valid: numbers of images.
        seed: of the random numbers.
        layout: "course" (that of data set 19065, with its table of labels) or "folders" (train/CLASS/*.jpg and
            val/CLASS/*.jpg, CLASS one of high_myopia, normal, pathological).

    Returns:
        {"training": {class: number of images}, "validation": likewise}.

    Raises:
        FileExistsError: The directory is not empty.
        InputError: There is no such layout.
    """
    if layout not in SPLIT_FOLDERS:
        raise InputError(f"layout {layout!r}: not one of {', '.join(SPLIT_FOLDERS)}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty")
    train_dir, valid_dir = (directory / folder for folder in SPLIT_FOLDERS[layout])

    train_kinds = _kinds(train, [seed, TRAIN])
    names = [f"{kind}{train_kinds[: k + 1].count(kind):04d}.jpg" for k, kind in enumerate(train_kinds)]
    _write_pictures(_paths(train_dir, names, train_kinds, layout), train_kinds, [seed, TRAIN])

    valid_kinds = _kinds(valid, [seed, VALID])
    files = _paths(valid_dir, [f"V{k + 1:04d}.jpg" for k in range(valid)], valid_kinds, layout)
    foveas = _write_pictures(files, valid_kinds, [seed, VALID])
    if layout == "course":
        _write_table(directory / "PALM-Validation-GT", files, valid_kinds, foveas)
    return {"training": _count(train_kinds), "validation": _count(valid_kinds)}


def _kinds(count, seed):
    """Draw `count` letters in random order, each block of 15 in the right proportions."""
    blocks = [np.random.default_rng([*seed, k, 1]).permutation(list(BLOCK)) for k in range(0, count, len(BLOCK))]
    return "".join("".join(block) for block in blocks)[:count]


def _count(kinds):
    numbers = Counter(kinds)
    return {name: numbers[kind] for kind, name in CLASSES.items()}


def _paths(folder, names, kinds, layout):
    folders = [folder / CLASSES[kind] if layout == "folders" else folder for kind in kinds]
    return [parent / name for parent, name in zip(folders, names)]


def _write_pictures(files, kinds, seed):
    """Draw and write the pictures, and return their foveas, [(x, y), ...] in pixels."""
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True)

    def write(k):
        image, fovea = draw_fundus(kinds[k], np.random.default_rng([*seed, k]))
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        files[k].write_bytes(jpeg.tobytes())  # cv2.imwrite would fail on some paths under Windows
        return fovea

    with ThreadPoolExecutor(environment.available_cores()) as pool:
        return list(pool.map(write, range(len(files))))


def _write_table(folder, files, kinds, foveas):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["ID", "imgName", "Label", "Fovea_X", "Fovea_Y"])
    for k, (file, kind, (x, y)) in enumerate(zip(files, kinds, foveas), start=1):
        book.active.append([k, file.name, int(kind == "P"), round(x, 2), round(y, 2)])
    folder.mkdir()
    book.save(folder / "PM_Label_and_Fovea_Location.xlsx")
