"""Data sets with a folder for each class."""

import os
import sys
import unicodedata

import pytest
from helpers.folders import write_folders

from palm_cls.core.errors import InputError
from palm_cls.data.class_folders import find_class_folders
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import find_dataset
from palm_cls.data.photos import find_photos

DECOMPOSED = unicodedata.normalize("NFD", "né 正常")
COMPOSED = unicodedata.normalize("NFC", DECOMPOSED)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "Validation", None)]
)
def test_splits_by_the_names_of_folders(tmp_path, names):
    given = dict(zip(("train", "valid", "test"), names))
    write_folders(tmp_path, {f"{name}/{label}": 2 for name in names if name for label in ("B", "A")})
    found = find_class_folders(tmp_path)
    assert found.splits == {split: tmp_path / name for split, name in given.items() if name}
    assert found.class_names() == ["A", "B"]
    files = [("A/0.jpg", 0), ("A/1.jpg", 0), ("B/0.jpg", 1), ("B/1.jpg", 1)]
    assert found.samples("valid", ["A", "B"]) == [(tmp_path / given["valid"] / file, label) for file, label in files]
    assert {label for path, label in found.samples("train", ["B", "A"]) if path.parent.name == "B"} == {0}
    if not given["test"]:
        with pytest.raises(InputError, match="no test images; expected a folder test or testing with a folder for"):
            found.samples("test", ["A", "B"])


def test_undivided(tmp_path):
    write_folders(tmp_path, {"B": 2, "A": 1, "notes": 0, ".cache": 1, "A/sub": 1})
    found = find_class_folders(tmp_path)
    assert (found.splits, found.class_names()) == ({"all": tmp_path}, ["A", "B"])
    assert found.directory("train") == found.directory("valid") == tmp_path
    assert found.samples("train", ["A", "B"]) == found.samples("valid", ["A", "B"])
    assert not found.is_demo


def test_names_composed_and_decomposed(tmp_path):
    write_folders(tmp_path, {f"train/{DECOMPOSED}": 1, "train/病理": 1, f"val/{COMPOSED}": 1, "val/病理": 1})
    dataset, options = find_photos(DataOptions(tmp_path))
    assert options.classes == [COMPOSED, "病理"]
    assert [label for _, label in dataset.samples("valid", options.classes)] == [0, 1]
    assert find_photos(DataOptions(tmp_path, positive=DECOMPOSED))[1].classes[1] == COMPOSED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file systems here take no such names")
def test_names_that_linux_alone_has(tmp_path):
    gbk = os.fsdecode("正常".encode("gbk"))  # as unzip leaves it
    write_folders(tmp_path / "gbk", {gbk: 1, " P ": 1})
    assert sorted(find_class_folders(tmp_path / "gbk").class_names()) == ["P", "正常"]
    write_folders(tmp_path / "twice", {DECOMPOSED: 1, COMPOSED: 1, "P": 1})
    with pytest.raises(InputError, match=f"two folders '{COMPOSED}', whose names look alike; merge them"):
        find_dataset(tmp_path / "twice")


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"train": 3, "val/A": 1}, "train: images, but no folder for each class; expected train/CLASS/*.jpg"),
        ({"train/A": 1, "train/B": 1, "val/A": 1, "Valid/A": 1}, "val are both valid images; keep one"),
        ({"val/A": 1, "val/B": 1}, "no training images; expected train/CLASS/*.jpg there"),
        ({"train/A": 1, "val/A": 1}, "train: only the class A; expected two or more"),
        (
            {"A/normal": 1, "B/normal": 1},
            "but images in folders of folders (A/normal). Expected in it: a folder for each class (train/CLASS/*.jpg",
        ),
        ({"A": 1, "B": 0}, "but one folder with images, A, and two or more are needed"),
        ({f"patient {number}": 1 for number in range(101)}, "101 classes (patient 0, patient 1, patient 10, ...); at"),
        ({"A": 1, "Note": 1}, "'Note' cannot be the name of a class; give it another"),
    ],
)
def test_folders_that_are_refused(tmp_path, counts, told):
    write_folders(tmp_path, counts)
    with pytest.raises(InputError) as refused:
        find_photos(DataOptions(tmp_path))
    assert str(tmp_path) in str(refused.value)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folders_of_other_classes(tmp_path):
    write_folders(tmp_path, {"train/A": 1, "train/B": 1, "val/A": 1, "val/B": 0, "test/A": 1, "test/B": 1, "test/C": 1})
    found = find_class_folders(tmp_path)
    with pytest.raises(InputError, match="val: no image of class B; expected a folder of that name"):
        found.samples("valid", ["A", "B"])
    with pytest.raises(InputError, match="C: none of the classes A, B$"):
        found.samples("test", ["A", "B"])


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems here ignore case")
def test_folders_whose_names_differ_in_case(tmp_path):
    write_folders(tmp_path, {"Normal": 1, "normal": 1})
    with pytest.raises(InputError, match="the classes Normal and normal differ in nothing but case; rename one"):
        find_photos(DataOptions(tmp_path))
