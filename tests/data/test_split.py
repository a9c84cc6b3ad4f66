"""Dividing images into training and validation images."""

import csv
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from helpers.folders import write_folders
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.core.errors import InputError
from palm_cls.data.split import check_one_class, choose_valid, divide, identical_files, joined_groups

FRACTIONS = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=5), FRACTIONS)
def test_each_class_gives_its_share(totals, fraction):
    labels = {f"{label}/{index}": str(label) for label, total in enumerate(totals) for index in range(total)}
    chosen = choose_valid(labels, {path: path for path in labels}, fraction, "x")
    assert chosen == choose_valid(dict(labels), {path: path for path in labels}, fraction, "y")
    counts = Counter(labels[path] for path in chosen)
    for label, total in enumerate(totals):
        assert abs(counts[str(label)] - fraction * total) <= 1
        assert 0 < counts[str(label)] < total


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9)), min_size=1, max_size=80), FRACTIONS)
def test_groups_are_not_divided(images, fraction):
    labels = {index: label for index, (label, _) in enumerate(images)}
    group_of = {index: group for index, (_, group) in enumerate(images)}
    try:
        chosen = choose_valid(labels, group_of, fraction, "x")
    except InputError:  # the groups are too large
        return
    assert not {group_of[path] for path in chosen} & {group_of[path] for path in labels.keys() - chosen}
    counts, totals = Counter(labels[path] for path in chosen), Counter(labels.values())
    shares = {label: max(1, fraction * total) for label, total in totals.items()}
    assert all(0 < counts[label] < total for label, total in totals.items())
    assert sum(abs(share - counts[label]) for label, share in shares.items()) < sum(shares.values())


def test_groups_of_all_sizes_are_drawn():
    """Patients with one photograph are not left out in favour of those with four."""
    group_of = {image: image if image < 100 else 100 + image // 4 for image in range(200)}
    chosen = choose_valid(dict.fromkeys(group_of, "A"), group_of, 0.2, "x")
    assert len(chosen) == 40
    assert 10 <= sum(image < 100 for image in chosen) <= 30


@pytest.mark.parametrize(("number", "size"), [(12, 3), (16, 4), (20, 5)])
def test_groups_that_do_not_fit_a_share_exactly(number, size):
    group_of = {image: image // size for image in range(number)}
    assert len(choose_valid(dict.fromkeys(group_of, "A"), group_of, 0.2, "x")) == size


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.sampled_from(["", "a", "b", "c"])), max_size=20))
def test_identical_files_are_one_group(files):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(index)) for index in range(len(files))]
        for path, (content, _) in zip(paths, files):
            path.write_bytes(content)
        groups = {path: group for path, (_, group) in zip(paths, files) if group}
        joined = joined_groups(dict.fromkeys(paths, "A"), groups)
        assert sorted(map(len, identical_files(paths))) == sorted(
            count for count in Counter(content for content, _ in files).values() if count > 1
        )
    assert list(joined) == paths
    for path, (content, group) in zip(paths, files):
        for other, (other_content, other_group) in zip(paths, files):
            if content == other_content or (group and group == other_group):
                assert joined[path] == joined[other]


@pytest.fixture
def photos(tmp_path):
    """(directory, {path: class}) of 10 and 15 images."""
    return write_folders(tmp_path / "数据", {"A, 1": 10, "01": 15}), labels_in(tmp_path / "数据")


def labels_in(root):
    return {path: path.parent.name for path in sorted(root.rglob("*.jpg"))}


def rows(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_table_is_written_once_and_holds_for_later_runs(photos, capsys):
    root, labels = photos
    parts = divide(root, labels, {}, 0.2, write=True)
    file = root / "split-0.2.csv"
    assert capsys.readouterr().err == f"{file}: written; later runs divide the images as it does.\n"
    assert sorted(parts["train"] + parts["valid"]) == sorted(labels)
    assert Counter(labels[path] for path in parts["valid"]) == {"A, 1": 2, "01": 3}
    table = rows(file)
    assert [(root / row["imgName"], row["Label"]) for row in table] == list(labels.items())
    assert [root / row["imgName"] for row in table if row["Split"] == "valid"] == parts["valid"]

    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]).replace("valid", "train", 1), encoding="utf-8")
    before = file.read_bytes()
    again = divide(root, labels, {}, 0.2, write=True)
    assert len(again["valid"]) == 4  # what the user has changed holds
    assert (file.read_bytes(), capsys.readouterr().err) == (before, "")

    other = divide(root, labels, dict.fromkeys(list(labels)[:2], "patient"), 1 / 3, "own.csv", write=True)
    assert Counter(labels[path] for path in other["valid"]) == {"A, 1": 3, "01": 5}
    assert {row["Group"] for row in rows(root / "own-split-0.333333.csv")} == {"", "patient"}


def test_other_images_than_those_divided(photos, capsys):
    root, labels = photos
    parts = divide(root, labels, {}, 0.2, write=True)
    fewer = divide(root, dict(list(labels.items())[1:]), {}, 0.2)  # an image that is gone does not count
    assert fewer == {split: [path for path in paths if path != next(iter(labels))] for split, paths in parts.items()}
    assert "1 of its images are gone (01/0.jpg is one)" in capsys.readouterr().err
    write_folders(root, {"A, 1": 11})
    with pytest.raises(InputError, match=r"split-0\.2\.csv: does not list 1 of the images \(A, 1/10\.jpg is one\)"):
        divide(root, labels_in(root), {}, 0.2)
    assert divide(root, labels_in(root), {}, 0.3)["valid"]
    assert not (root / "split-0.3.csv").exists()  # nothing is written unless asked for


def test_a_directory_that_cannot_be_written(photos, capsys):
    root, labels = photos
    (root / f".split-0.2.csv.{os.getpid()}.tmp").mkdir()  # in the way, also for root, who may write everywhere
    first = divide(root, labels, {}, 0.2, write=True)
    assert not (root / "split-0.2.csv").exists()
    again = divide(root, dict(reversed(list(labels.items()))), {}, 0.2)
    assert {split: sorted(paths) for split, paths in again.items()} == first
    (notice,) = capsys.readouterr().err.splitlines()
    assert "split-0.2.csv: not written" in notice
    assert notice.endswith("; the images are divided in the same way every time.")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\0\1\2", "not a text file"),
        (b"imgName,Label,Split\n", "lists no image"),
        (b"imgName;Split\n", "no column Label"),
        (b'imgName,Label,Split\n"A, 1/0.jpg,A,train\n', "not readable as CSV"),
        (b"imgName,Label,Split\nx.jpg,A,train\n", "does not list 25 of the images"),
        (None, "not train or valid; correct it"),
    ],
)
def test_damaged_tables(photos, content, told):
    root, labels = photos
    divide(root, labels, {}, 0.2, write=True)
    file = root / "split-0.2.csv"
    file.write_bytes(content if content is not None else file.read_bytes().replace(b"train", b"test", 1))
    with pytest.raises(InputError) as refused:
        divide(root, labels, {}, 0.2, write=True)
    assert str(refused.value).startswith(str(file))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_classes_that_cannot_be_divided(tmp_path):
    write_folders(tmp_path, {"A": 5, "B": 1})
    with pytest.raises(InputError, match=r"1 image of class B cannot be divided .*; add images, or divide them"):
        divide(tmp_path, labels_in(tmp_path), {}, 0.2)
    assert not list(tmp_path.glob("*.csv"))


def test_one_image_in_two_classes(photos):
    root, labels = photos
    check_one_class(labels, root)
    (root / "01" / "copy.jpg").write_bytes((root / "01" / "0.jpg").read_bytes())
    check_one_class(labels_in(root), root)
    (root / "A, 1" / "copy.jpg").write_bytes((root / "01" / "0.jpg").read_bytes())
    with pytest.raises(InputError) as refused:
        check_one_class(labels_in(root), root)
    told = ("01/0.jpg (01)", "A, 1/copy.jpg (A, 1)", "are the same image in two classes; keep one")
    assert all(text in str(refused.value).replace("\\", "/") for text in (f"{root}: ", *told))
