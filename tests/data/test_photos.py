"""Loaders of photographs in every layout: folders, tables, the course's."""

import shutil

import numpy as np
import pytest
from helpers.folders import encoded, write_folders
from helpers.processes import assert_refused

from palm_cls.core.errors import InputError
from palm_cls.data.class_folders import ClassFolders
from palm_cls.data.data_root import DataRoot
from palm_cls.data.groups import find_groups
from palm_cls.data.labels import CLASSES
from palm_cls.data.loader_factory import make_loaders, make_train_loader, make_valid_loader
from palm_cls.data.options import DataOptions
from palm_cls.data.photos import find_photos
from palm_cls.recipes import find_recipe

LENET = find_recipe("lenet", batch_size=4, shuffle=False)


def write_images(root, counts):
    """Write images of noise, no two the same, into folders."""
    rng = np.random.default_rng(0)
    return write_folders(root, counts, lambda *_: encoded(rng.integers(0, 256, (24, 24, 3), np.uint8)))


def write_labels(file, rows, columns="imgName,Label"):
    """Write a table of labels, one row for each str, and return its path."""
    file.write_text("\n".join([columns, *rows, ""]), encoding="utf-8")
    return file


def loaders(root, **options):
    return make_loaders(LENET, DataOptions(root, **options), cache=False)


def labelled(loader):
    """{name with "/": name of its class}."""
    return {name.replace("\\", "/"): loader.classes[label] for name, label in zip(loader.order, loader.labels)}


def listed(root, labels, columns="imgName,Label"):
    """Images 0.jpg, 1.jpg, ..., one for each label, and their table."""
    write_images(root, {".": len(labels)})
    return write_labels(root / "labels.csv", [f"{index},{label}" for index, label in enumerate(labels)], columns)


def test_three_classes_in_divided_folders(tmp_path, capsys):
    write_images(
        tmp_path, {f"{split}/{label}": 2 for split in ("train", "val", "test") for label in ("轻度", "2", "10")}
    )
    train, valid, dataset = loaders(tmp_path)
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 classes: 2 (2 training, 2 validation), 10 (2 training, 2 validation), "
        "轻度 (2 training, 2 validation).\n"
    )
    assert isinstance(dataset, ClassFolders)
    assert train.classes == valid.classes == valid.metadata["classes"] == ["2", "10", "轻度"]
    assert train.order == valid.order == [f"{name}/{image}.jpg" for name in train.classes for image in range(2)]
    assert train.load_image("10/1.jpg").shape == (24, 24, 3)
    assert train.fingerprint != valid.fingerprint == loaders(tmp_path)[1].fingerprint
    ((imgs, labels), (_, rest)) = train()
    assert (imgs.shape, imgs.dtype) == ((4, 3, 224, 224), "float32")
    assert (labels.dtype, labels.tolist(), rest.tolist()) == ("int64", [[0], [0], [1], [1]], [[2], [2]])
    test, _ = make_valid_loader(LENET, DataOptions(tmp_path, classes=["轻度", "10", "2"]), split="test")
    assert (test.directory, test.labels, test.classes[0]) == (tmp_path / "test", [0, 0, 1, 1, 2, 2], "轻度")


def test_two_classes_with_the_positive_one_named(tmp_path):
    write_images(tmp_path, {f"{split}/{label}": 2 for split in ("train", "val") for label in ("glaucoma", "normal")})
    assert loaders(tmp_path)[0].classes == ["glaucoma", "normal"]
    train, _, _ = loaders(tmp_path, positive="glaucoma")
    assert train.classes == ["normal", "glaucoma"]
    ((_, labels),) = train()
    assert (labels.dtype, labels.tolist()) == ("float32", [[0], [0], [1], [1]])


def test_folders_are_divided_once(tmp_path):
    write_images(tmp_path, {"01": 10, " b ": 10, "c": 10})
    train, valid, dataset = loaders(tmp_path)
    assert (train.num_samples, sorted(valid.labels)) == (24, [0, 0, 1, 1, 2, 2])
    assert not set(train.order) & set(valid.order)
    assert (tmp_path / "split-0.2.csv").is_file()
    again, _ = make_valid_loader(LENET, DataOptions(tmp_path, classes=["c", "b", "01"]))
    assert labelled(again) == labelled(valid)
    all_images, _ = make_train_loader(LENET, DataOptions(tmp_path))
    assert sorted(all_images.order) == sorted(train.order + valid.order)
    assert loaders(tmp_path, valid_fraction=0.5)[1].num_samples == 15
    with pytest.raises(InputError, match="no test images; expected a folder test or testing"):
        make_valid_loader(LENET, DataOptions(tmp_path), split="test")


@pytest.mark.parametrize(
    ("labels", "options", "classes", "numbers"),
    [
        (["b", "a", "c", "a"], {}, ["a", "b", "c"], [1, 0, 2, 0]),
        (["0", "2", "1.0", "01"], {}, ["0", "1", "2"], [0, 2, 1, 1]),
        (["4", "1", "2", "4"], {}, ["1", "2", "4"], [2, 0, 1, 2]),
        (["0", "2", "1", "P"], {"classes": ["N", "H", "P"]}, ["N", "H", "P"], [0, 2, 1, 2]),
        (["4", "1", "2", "2"], {"classes": ["4", "2", "1"]}, ["4", "2", "1"], [0, 2, 1, 1]),
        (["01", "02", "03", "01"], {"classes": ["01", "02", "03"]}, ["01", "02", "03"], [0, 1, 2, 0]),
        (["1", "0", "0", "1"], {"positive": "0"}, ["1", "0"], [0, 1, 1, 0]),
        (["正常", "né", "ne\u0301", "正常"], {}, ["né", "正常"], [1, 0, 0, 1]),
    ],
)
def test_labels_in_tables(tmp_path, labels, options, classes, numbers):
    table = listed(tmp_path, labels)
    train, valid, dataset = loaders(tmp_path, train_csv=table, valid_csv=table, **options)
    assert type(dataset) is DataRoot
    assert (train.classes, train.labels, valid.labels) == (classes, numbers, numbers)
    assert train.order == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_a_table_whose_images_are_divided_by_its_groups(tmp_path):
    rows = [f"{'ab'[index % 2]},{index // 4 or ''}" for index in range(40)]
    table = listed(tmp_path, rows, columns="imgName,Label,Group")
    train, valid, _ = loaders(tmp_path, train_csv=table)
    assert (train.num_samples, valid.num_samples) == (32, 8)
    groups = [{loader.groups.get(name) for name in loader.order} - {None} for loader in (train, valid)]
    assert groups[0] | groups[1] == set(map(str, range(1, 10)))
    assert not groups[0] & groups[1]
    assert len(set(find_groups(make_train_loader(LENET, DataOptions(tmp_path, train_csv=table))[0])[0].values())) == 13
    assert (tmp_path / "labels-split-0.2.csv").is_file()


def test_a_table_with_paths_from_elsewhere(tmp_path):
    write_images(tmp_path / "elsewhere", {"a": 5, "b": 5})
    (tmp_path / "data").mkdir()
    images = sorted((tmp_path / "elsewhere").rglob("*.jpg"))
    table = write_labels(tmp_path / "data" / "own.csv", [f"{path},{path.parent.name}" for path in images])
    for _ in range(2):
        train, valid, _ = loaders(tmp_path / "data", train_csv=table)
        assert (train.num_samples, valid.num_samples) == (8, 2)


def test_tables_beat_the_folders_of_one_of_the_usual_places(nowhere):
    root = write_images(nowhere / "data" / "palm", {"train/A": 1, "train/B": 1, "val/A": 1, "val/B": 1})
    tables = [write_labels(root / f"{split}.csv", [f"{split}/A/0,x", f"{split}/B/0,y"]) for split in ("train", "val")]
    train, valid, dataset = loaders(None, train_csv=tables[0], valid_csv=tables[1])
    assert (train.classes, valid.labels) == (["x", "y"], [0, 1])


def test_other_classes_in_the_courses_layout(small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    folders = {"train": "PALM-Training400/PALM-Training400", "valid": "PALM-Validation400"}
    tables = {}
    for split, folder in folders.items():
        names = sorted(path.name for path in (tmp_path / "demo" / folder).glob("*.jpg"))
        tables[f"{split}_csv"] = write_labels(
            tmp_path / f"{split}.csv", [f"{name},{'xyz'[index % 3]}" for index, name in enumerate(names)]
        )
    train, valid, _ = loaders(tmp_path / "demo", classes=["z", "y", "x"], **tables)
    assert (train.classes, train.labels[:3], valid.labels[:3]) == (["z", "y", "x"], [2, 1, 0], [2, 1, 0])
    with pytest.raises(InputError, match=r"row 2: label 'x' of .* is neither 0 nor 1 \(no pathological myopia and pa"):
        loaders(tmp_path / "demo", **tables)
    with pytest.raises(InputError, match="no training image of class w; every class needs some"):
        loaders(tmp_path / "demo", classes=["w", "x", "y", "z"], **tables)
    with pytest.raises(InputError, match=r"names of its images give .*; for others \(x, y, z\) give the labels"):
        loaders(tmp_path / "demo", classes=["x", "y", "z"])
    with pytest.raises(InputError, match="--positive: pathological myopia is the positive class here"):
        loaders(tmp_path / "demo", positive="x")
    assert find_photos(DataOptions(tmp_path / "demo"))[1].classes == CLASSES
    assert [label.dtype for _, label in loaders(tmp_path / "demo")[0]()][0] == np.float32


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"valid_csv": None, "classes": ["x", "y"]}, "row 2: label 'a' of '0' is neither 0 nor 1 (x and y); correct"),
        ({"classes": ["1", "2"]}, "label 'a' of '0' is none of the classes 1, 2; correct it (train.py takes"),
        ({"classes": ["a", "b"]}, "row 4: label 'c' of '2' is neither 0 nor 1 (a and b); correct it"),
        ({"classes": ["a", "b"], "positive": "a"}, "--classes or --positive, not both"),
        ({"positive": "a"}, "--positive is for two classes, and there are 3; leave it out"),
        ({"valid_fraction": 0.3}, "--valid-fraction: {root} is divided already; leave it out"),
        ({"train_csv": None}, "no table of the train labels; give --train-csv FILE"),
        ({"train_csv": "missing.csv"}, "missing.csv: no such file; expected a table of labels"),
    ],
)
def test_tables_that_are_refused(tmp_path, options, told):
    table = listed(tmp_path, ["a", "b", "c"])
    with pytest.raises(InputError) as refused:
        loaders(tmp_path, **{"train_csv": table, "valid_csv": table, **options})
    assert told.format(root=tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("train", "valid", "told"),
    [
        (
            ["0,a", "1,b"],
            ["2,a", "3,A"],
            "train.csv and {root}/valid.csv: the classes A and a differ in nothing but case",
        ),
        (["0,a", "1,b"], ["2,a"], "{root}: no validation image of class b; every class needs some"),
        (["0,a", "1,b"], ["0,b", "3,a"], "0.jpg: a in one table and b in the other; correct one of them"),
        (["0,a", "9,b"], ["2,a", "3,b"], "9: no such image; it is listed in {root}/train.csv, row 3"),
    ],
)
def test_two_tables_that_do_not_fit(tmp_path, train, valid, told):
    write_images(tmp_path, {".": 4})
    tables = {f"{name}_csv": tmp_path / f"{name}.csv" for name in ("train", "valid")}
    for file, rows in zip(tables.values(), (train, valid)):
        write_labels(file, rows)
    with pytest.raises(InputError) as refused:
        loaders(tmp_path, **tables)
    assert told.format(root=tmp_path) in str(refused.value)
    with pytest.raises(InputError, match="its tables have no test split; evaluate test images with --valid-csv FILE"):
        make_valid_loader(LENET, DataOptions(tmp_path, classes=["a", "b"], **tables), split="test")


def test_through_the_tool(tmp_path, tool_here):
    folders = write_images(
        tmp_path / "folders", {f"{split}/{label}": 1 for split in ("train", "val") for label in "AB"}
    )
    done = tool_here("train", "--data", folders, "--valid-fraction", 0.3, "--output", tmp_path / "run")
    assert_refused(done, "train.py: --valid-fraction: ", "is divided already; leave it out")
    done = tool_here("train", "--data", folders, "--classes", "A,B", "--positive", "B")
    assert_refused(done, "not allowed with argument")
    (folders / "train" / "B" / "0.jpg").write_bytes((folders / "val" / "A" / "0.jpg").read_bytes())
    done = tool_here("train", "--data", folders, "--output", tmp_path / "run")
    assert_refused(done, "train/B/0.jpg (B) and val/A/0.jpg (A) are the same image in two classes; keep one")
    shutil.rmtree(folders / "val" / "B")
    done = tool_here("train", "--data", folders, "--output", tmp_path / "run")
    assert_refused(done, "val: no image of class B; expected a folder of that name")
    assert not (tmp_path / "run").exists()
