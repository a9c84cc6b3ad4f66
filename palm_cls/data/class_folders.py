"""Data sets with a folder for each class.

    DIR/train/CLASS/*.jpg    DIR/val/CLASS/*.jpg    DIR/test/CLASS/*.jpg, or without the last
    DIR/CLASS/*.jpg          all images together, to be divided, see `palm_cls.data.split`

Imports neither paddle nor cv2.
"""

from dataclasses import dataclass
from pathlib import Path

from palm_cls.core.errors import InputError, shorten
from palm_cls.data.classes import check_classes
from palm_cls.data.data_root import DataRoot
from palm_cls.data.image_files import has_images, image_names
from palm_cls.data.spelling import name_key
from palm_cls.data.tables import SPLITS


@dataclass(frozen=True)
class ClassFolders(DataRoot):
    """A data set with a folder for each class.

    Args:
        splits: {"train", "valid", "test": Path}, those that there are; {"all": root} of images that are not divided.
    """

    splits: dict

    def class_names(self):
        """Return the names of the folders of the training images, or of all.

        Raises:
            InputError: They cannot be those of classes.
        """
        directory = self.directory("train")
        return check_classes(list(class_folders(directory)), directory)

    def directory(self, split):
        """Return the directory that holds the folders of a split; the root of a data set that is not divided.

        Raises:
            InputError: There is no such split.
        """
        if "all" in self.splits and split != "test":
            return self.root
        if split not in self.splits:
            names = " or ".join(SPLITS[split])
            raise InputError(f"{self.root}: no {split} images; expected a folder {names} with a folder for each class")
        return self.splits[split]

    def samples(self, split, classes):
        """List the images of a split.

        Args:
            split: "train", "valid" or "test".
            classes: names of the classes, in order.

        Returns:
            [(path, number of the class), ...] by class and name.

        Raises:
            InputError: There is no such split, or its folders are not those of the classes.
        """
        directory = self.directory(split)
        folders = class_folders(directory)
        if missing := [name for name in classes if name not in folders]:
            raise InputError(
                f"{directory}: no image of class {shorten(missing[0])}; expected a folder of that name with some"
            )
        if other := [name for name in folders if name not in classes]:
            raise InputError(f"{directory / other[0]}: none of the classes {shorten(', '.join(classes))}")
        return [
            (folders[name] / image, number)
            for number, name in enumerate(classes)
            for image in image_names(folders[name])
        ]


def find_class_folders(root):
    """Return the ClassFolders in a directory, or None without folders of images.

    Raises:
        InputError: The folders cannot be those of classes.
    """
    root, splits = Path(root), {}
    for split, names in SPLITS.items():
        for folder in [folder for folder in _folders(root) if folder.name.casefold() in names]:
            if split in splits:
                raise InputError(f"{root}: {splits[split].name} and {folder.name} are both {split} images; keep one")
            if any(map(has_images, _folders(folder))):
                splits[split] = folder
            elif has_images(folder):
                raise InputError(f"{folder}: images, but no folder for each class; expected {folder.name}/CLASS/*.jpg")
    if "train" in splits:
        return ClassFolders(root, splits)
    if splits:
        raise InputError(f"{root}: no training images; expected train/CLASS/*.jpg there")
    return ClassFolders(root, {"all": root}) if len(class_folders(root)) > 1 else None


def describe_folders(root):
    """Say which images there are in a directory without a known layout, for a message; "" without any."""
    root = Path(root)
    if has_images(root):
        return "images, but no folder for each class"
    if folders := [folder.name for folder in _folders(root) if has_images(folder)]:
        return f"one folder with images, {shorten(folders[0])}, and two or more are needed"
    nested = [inner for folder in _folders(root) for inner in _folders(folder) if has_images(inner)]
    return f"images in folders of folders ({shorten(nested[0].relative_to(root).as_posix())})" if nested else ""


def class_folders(directory):
    """Return {name of a class: its folder}, of the folders that hold images.

    A name is spelled as `name_key` and a table of labels spell it.

    Raises:
        InputError: Two folders have one name, spelled in two ways.
    """
    folders = {}
    for folder in _folders(directory):
        if has_images(folder) and folders.setdefault(name := name_key(folder.name).strip(), folder) != folder:
            raise InputError(f"{directory}: two folders {shorten(name)!r}, whose names look alike; merge them")
    return folders


def _folders(directory):
    if not Path(directory).is_dir():
        return []
    return sorted(entry for entry in Path(directory).iterdir() if entry.is_dir() and not entry.name.startswith("."))
