"""The demo set: both layouts, and tools/draw_demo.py."""

import os

import pytest
from helpers.files import tree
from helpers.processes import assert_refused, posix

from palm_cls.core.errors import InputError
from palm_cls.data.data_root import DEMO_DISCLAIMER, DEMO_MARK, DEMO_TEXT, is_in_demo_set
from palm_cls.data.demo_set import CLASSES, draw_demo_set, write_demo_set
from palm_cls.data.palm import detect_layout, find_dataset


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The demo set small_demo (20 and 10 images) in a folder for each class, and the numbers of its images."""
    root = tmp_path_factory.mktemp("folders") / "demo"
    return root, draw_demo_set(root, train=20, valid=10, layout="folders")


@pytest.fixture
def quick(monkeypatch):
    """Sets without pictures."""
    monkeypatch.setattr("palm_cls.data.demo_set._write_pictures", lambda files, kinds, seed: [(0, 0)] * len(files))


def images(root):
    return {path.name: path for path in root.rglob("*.jpg")}


def test_both_layouts_hold_the_same_files(small_demo, folders):
    course, by_class = images(small_demo), images(folders[0])
    assert course.keys() == by_class.keys()
    assert all(course[name].read_bytes() == by_class[name].read_bytes() for name in course)


def test_a_folder_for_each_class_in_each_split(folders):
    root, counts = folders
    assert {path.name for path in root.iterdir()} == {"train", "val", DEMO_MARK}
    for split, folder in (("training", "train"), ("validation", "val")):
        found = {path.name: len(list(path.iterdir())) for path in (root / folder).iterdir()}
        assert found == {name: number for name, number in counts[split].items() if number}
    assert all(counts["training"].values())
    assert {path.name[0]: path.parent.name for path in (root / "train").glob("*/*")} == CLASSES


def test_the_folders_agree_with_the_table(small_demo, folders):
    from palm_cls.data.labels import read_labels

    by_class = images(folders[0])
    for row in read_labels(detect_layout(small_demo).valid_labels):
        assert row.label == int(by_class[row.name].parent.name == "pathological")


def test_the_mark_is_found_from_a_class(folders):
    assert (folders[0] / DEMO_MARK).read_text(encoding="utf-8") == DEMO_TEXT
    assert is_in_demo_set(folders[0] / "val" / "normal")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", [15, 20, 100])
def test_from_15_images_on_a_split_has_every_class(tmp_path, number):
    counts = write_demo_set(tmp_path, train=number, valid=number, layout="folders")
    for classes in counts.values():
        assert sum(classes.values()) == number
        assert min(classes.values()) >= 1


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(InputError, match="layout 'class': not one of course, folders"):
        draw_demo_set(tmp_path / "demo", layout="class")
    assert list(tmp_path.iterdir()) == []


def test_the_tool_prints_what_it_has_drawn(tool, tmp_path):
    (tmp_path / "demo").mkdir()
    done = tool("draw_demo", "demo", "--train", 3, "--valid", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    training, validation = "0 high_myopia, 0 normal, 3 pathological", "0 high_myopia, 0 normal, 1 pathological"
    numbers = f"3 training images ({training}), 1 validation images ({validation})"
    assert done.stdout == f"demo: {numbers} {DEMO_DISCLAIMER}\n"
    assert done.stderr == ""
    assert os.listdir(tmp_path) == ["demo"]
    found = find_dataset(tmp_path / "demo")
    assert found.is_demo
    found.validate()


def test_the_tool_draws_folders(tool_here, tmp_path):
    done = tool_here("draw_demo", tmp_path / "new" / "demo", "--layout", "folders", "--train", 1, "--valid", 1)
    assert done.returncode == 0, done.stderr
    assert {path.parent.parent.name for path in images(tmp_path).values()} == {"train", "val"}
    assert len(images(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "message"), [("full", "full: not empty; give a new"), ("file", "file: a file, not a directory")]
)
def test_the_tool_writes_over_nothing(tool_here, tmp_path, name, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    done = tool_here("draw_demo", name, cwd=tmp_path)
    assert_refused(done, message)
    assert len(done.stderr.splitlines()) == 1
    assert tree(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]


def test_the_current_directory_is_not_replaced(tool_here, tmp_path):
    assert_refused(tool_here("draw_demo", ".", cwd=tmp_path), ".: the current directory; give another one")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--train", "0"], "argument --train: '0' is not a whole number from 1"),
        (["--valid", "-1"], "argument --valid: '-1' is not a whole number from 1"),
        (["--layout", "folder"], "invalid choice: 'folder'; did you mean folders?"),
    ],
)
def test_the_tool_refuses_wrong_options(tool_here, tmp_path, args, message):
    assert_refused(tool_here("draw_demo", "demo", *args, cwd=tmp_path), message)
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(directory, *_, **__):
        (directory / "train").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palm_cls.data.demo_set.write_demo_set", fail)
    with pytest.raises(OSError, match="No space left") as raised:
        draw_demo_set(tmp_path / "demo")
    assert raised.value.filename == str(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_fills_meanwhile_is_not_touched(tmp_path, monkeypatch):
    def meanwhile(directory, *_, **__):
        directory.mkdir()
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / "thesis.txt").write_text("mine")

    monkeypatch.setattr("palm_cls.data.demo_set.write_demo_set", meanwhile)
    with pytest.raises(InputError, match="demo: cannot be replaced"):
        draw_demo_set(tmp_path / "demo")
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "thesis.txt"]


@posix
@pytest.mark.usefixtures("quick")
def test_a_link_to_an_empty_directory_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "demo").symlink_to(tmp_path / "disk")
    draw_demo_set(tmp_path / "demo")
    assert (tmp_path / "demo").is_symlink()
    assert (tmp_path / "disk" / DEMO_MARK).is_file()
