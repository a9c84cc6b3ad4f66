import os
import shutil
import tempfile
from dataclasses import astuple
from pathlib import Path

import openpyxl
import pytest
from helpers.files import archives, tree

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError
from palm_cls.data import palm
from palm_cls.data.image_files import image_names
from palm_cls.data.labels import read_labels
from palm_cls.data.loader_factory import palm_loaders
from palm_cls.data.mnist import find_mnist
from palm_cls.data.palm import detect_layout, find_dataset, find_workbooks, workbook_difference
from palm_cls.data.prepare import prepare_data


def table(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in [["imgName", "Label"], *labels.items()]:
        book.active.append(list(row))
    book.save(path)


def test_other_entries_are_passed_over_and_told_once(tmp_path, capsys):
    log_once.cache_clear()
    for name in ("b.PNG", "a.jpg", "c.JPEG", ".DS_Store", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    assert image_names(tmp_path) == image_names(str(tmp_path)) == ["a.jpg", "b.PNG", "c.JPEG"]
    assert capsys.readouterr().err.count("5 of 8 entries are no images") == 1


def test_image_names_of_nothing(tmp_path):
    with pytest.raises(InputError, match="no images in it"):
        image_names(tmp_path)
    with pytest.raises(InputError, match="no such directory"):
        image_names(tmp_path / "missing")


@pytest.mark.parametrize("nested_folder", ["PALM-Training400/PALM-Training400", "PALM-Training400"])
def test_the_courses_layout(tmp_path, small_demo, nested_folder):
    shutil.copytree(small_demo / "PALM-Training400" / "PALM-Training400", tmp_path / nested_folder)
    shutil.copytree(small_demo / "PALM-Validation400", tmp_path / "PALM-Validation400")
    shutil.copytree(small_demo / "PALM-Validation-GT", tmp_path / "PALM-Validation-GT")
    found = detect_layout(tmp_path)
    assert found.train_images == tmp_path / nested_folder
    assert found.train_labels is None
    assert found.valid_labels.name == "PM_Label_and_Fovea_Location.xlsx"
    assert not found.is_demo
    train, valid = palm_loaders(found)
    assert (train.num_samples, valid.num_samples) == (20, 10)


def test_the_layout_of_2024(tmp_path, small_demo):
    shutil.copytree(small_demo / "PALM-Training400" / "PALM-Training400", tmp_path / "Training" / "Images")
    shutil.copytree(small_demo / "PALM-Validation400", tmp_path / "Validation" / "Images")
    names = image_names(tmp_path / "Training" / "Images")  # not a cache that another test left beside them
    table(tmp_path / "Training" / "Classification Labels.xlsx", {name: int(name[0] == "P") for name in names[:15]})
    table(tmp_path / "Validation" / "Classification Labels.xlsx", {f"V{i:04d}.jpg": i % 2 for i in range(1, 11)})
    found = detect_layout(tmp_path)
    train, valid = palm_loaders(found)
    assert (train.num_samples, valid.num_samples) == (15, 10)  # the release's own table says which images count
    assert sum(labels.sum() for _, labels in train()) == sum(name[0] == "P" for name in names[:15])

    prepare_data(directory=tmp_path)  # no archives: the tables alone
    assert detect_layout(tmp_path).train_labels == tmp_path / "Training" / "labels.csv"
    assert len(read_labels(tmp_path / "Validation" / "labels.csv")) == 10


def test_what_is_missing_is_told_when_it_is_asked_for(tmp_path, small_demo):
    shutil.copytree(small_demo / "PALM-Validation400", tmp_path / "PALM-Validation400")
    found = detect_layout(tmp_path)
    assert found.valid_images.is_dir()
    with pytest.raises(InputError, match="no training images; expected them in .*PALM-Training400"):
        found.train_images
    with pytest.raises(InputError, match=r"no labels; expected PM_Label_and_Fovea_Location\.xlsx or labels\.csv"):
        found.valid_labels


def test_where_data_is_looked_for(nowhere, tmp_path, small_demo, monkeypatch, capsys):
    aistudio = tmp_path / "aistudio_work" / "palm"
    shutil.copytree(small_demo, aistudio)
    assert find_dataset().root == aistudio
    assert "tells nothing about eyes" in capsys.readouterr().err  # its mark travels with the demo set
    (aistudio / "DEMO.txt").unlink()
    shutil.copytree(aistudio, nowhere / "data" / "palm")
    assert find_dataset().root == nowhere / "data" / "palm"
    monkeypatch.setenv("PALM_DATA", str(aistudio))
    assert find_dataset().root == aistudio
    assert find_dataset(small_demo).root == small_demo


def test_an_explicit_directory_is_never_replaced(nowhere, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"missing: no such directory; expected that of the images \(--data DIR\)"):
        find_dataset(tmp_path / "missing")
    monkeypatch.setenv("PALM_DATA", str(tmp_path / "project"))
    with pytest.raises(
        InputError, match=r"no images in a known layout \(given by the environment variable PALM_DATA\)"
    ):
        find_dataset()
    assert not (nowhere / "data" / "demo").exists()


@pytest.mark.parametrize("place", ["project/data/palm", "aistudio_work/palm", "aistudio_data"])
def test_archives_not_unpacked_yet_end_in_the_command_to_run(nowhere, tmp_path, small_demo, place):
    archives(small_demo, tmp_path / place)
    with pytest.raises(
        InputError, match=f"no images. .*unpack them: python tools/prepare_data.py --archives .*{place}$"
    ):
        find_dataset()


def test_archives_in_an_explicit_directory(nowhere, tmp_path, small_demo):
    folder = archives(small_demo, tmp_path / "with space")
    with pytest.raises(InputError, match="--archives '.*with space' --data '.*with space'$"):
        find_dataset(folder)


def test_a_data_set_half_unpacked_ends_in_the_command_to_run(nowhere, small_demo):
    target = archives(small_demo, nowhere / "data" / "palm")
    shutil.copytree(small_demo / "PALM-Training400", target / "PALM-Training400")
    with pytest.raises(InputError, match="no validation images(.|\n)*prepare_data.py --archives .*palm --data .*palm$"):
        palm_loaders(find_dataset())


def test_a_table_is_found_without_images(nowhere, tmp_path, small_demo, monkeypatch):
    gt = tmp_path / "gt" / "PALM-Validation-GT"
    shutil.copytree(small_demo / "PALM-Validation-GT", gt)
    assert find_workbooks(tmp_path / "gt") == [gt / "PM_Label_and_Fovea_Location.xlsx"]
    monkeypatch.setenv("PALM_DATA", str(tmp_path / "gt"))
    assert find_workbooks() == [gt / "PM_Label_and_Fovea_Location.xlsx"]
    assert find_workbooks(small_demo)[0].is_file()


def test_prepare_data_twice_and_after_an_interruption(nowhere, tmp_path, small_demo, capsys):
    folder = archives(small_demo, tmp_path / "aistudio_data")
    target = nowhere / "data" / "palm"
    found, written = prepare_data()
    assert found.root == target
    assert written == 20 + 10 + 1 + 1  # images, xlsx, CSV
    assert find_dataset().valid_labels == target / "PALM-Validation-GT" / "labels.csv"
    first = tree(target)
    assert prepare_data(folder, target)[1] == 0
    assert tree(target) == first

    next(target.glob("PALM-Validation400/*")).unlink()
    (target / "PALM-Validation-GT" / "labels.csv").unlink()
    assert prepare_data()[1] == 2

    (target / "PALM-Validation-GT" / "labels.csv").write_text("mine")
    assert prepare_data()[1] == 0
    assert (target / "PALM-Validation-GT" / "labels.csv").read_text() == "mine"
    assert "labels.csv cannot be compared with PM_Label_and_Fovea_Location.xlsx" in capsys.readouterr().err


def test_a_table_is_compared_with_its_workbook_by_names_and_labels(tmp_path):
    table(tmp_path / "Classification Labels.xlsx", {"V1.jpg": 0, "V2.jpg": 1})
    own = tmp_path / "labels.csv"
    own.write_bytes(b"\xef\xbb\xbfimgName;Label\r\n./V2.jpg;1.0\r\nV1.jpg;0\r\n")  # as Excel writes it again
    assert workbook_difference(own) == ""
    own.write_text("imgName,Label\nV1.jpg,0\n")
    assert "other labels or groups for 1 images (first: V2.jpg)" in workbook_difference(own)
    own.write_text("imgName,Label,Group\nV1.jpg,0,\nV2.jpg,1,a patient\n")
    assert "other labels or groups for 1 images (first: V2.jpg)" in workbook_difference(own)
    assert workbook_difference(own.rename(tmp_path / "own.csv")) == ""


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, even by root")
def test_a_workbook_that_cannot_be_read_stops_nobody(tmp_path):
    (tmp_path / "Classification Labels.xlsx").symlink_to("/proc/self/mem")
    (tmp_path / "labels.csv").write_text("imgName,Label\nV1.jpg,0\n")
    assert "cannot be compared with Classification" in workbook_difference(tmp_path / "labels.csv")


def test_prepare_data_writes_no_table_without_rows(nowhere, tmp_path, small_demo):
    target = nowhere / "data" / "palm"
    shutil.copytree(small_demo, target)
    table(target / "PALM-Validation-GT" / "PM_Label_and_Fovea_Location.xlsx", {})
    with pytest.raises(InputError, match="lists no image"):
        prepare_data()
    assert not (target / "PALM-Validation-GT" / "labels.csv").exists()


@pytest.mark.parametrize("converted", [True, False])
def test_prepare_data_writes_nothing_where_all_is_there_and_nothing_can_be_written(
    converted, nowhere, tmp_path, small_demo, monkeypatch
):
    folder, target = archives(small_demo, tmp_path / "some"), tmp_path / "target"
    prepare_data(folder, target)
    if not converted:
        next(target.glob("*/labels.csv")).unlink()
    before = tree(target), [path.stat().st_mtime_ns for path in target.rglob("*")]
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    temporary_file = tempfile.TemporaryFile

    def elsewhere(dir=None):
        assert dir is None
        return temporary_file()

    monkeypatch.setattr(tempfile, "TemporaryFile", elsewhere)
    assert prepare_data(folder, target)[1] == 0
    assert (tree(target), [path.stat().st_mtime_ns for path in target.rglob("*")]) == before


def test_a_file_where_a_directory_is_expected_is_called_one(nowhere, tmp_path, small_demo):
    file = tmp_path / "file"
    file.touch()
    for function in (find_dataset, image_names, prepare_data, lambda path: prepare_data(None, path), find_mnist_in):
        with pytest.raises(InputError, match="file: a file, not a directory; expected "):
            function(file)


def find_mnist_in(directory):
    return find_mnist("mnist", directory)


def test_prepare_data_on_ai_studio_unpacks_to_what_persists(nowhere, tmp_path, small_demo):
    archives(small_demo, tmp_path / "aistudio_data")
    (tmp_path / "aistudio_work").mkdir()
    assert prepare_data()[0].root == tmp_path / "aistudio_work" / "palm"


@pytest.mark.parametrize("by_variable", [False, True])
def test_mounted_archives_are_not_unpacked_unasked_into_a_data_set_of_ones_own(
    nowhere, tmp_path, small_demo, monkeypatch, capsys, by_variable
):
    mounted, own = archives(small_demo, tmp_path / "aistudio_data"), tmp_path / "own"
    image = shutil.copytree(small_demo, own) / "PALM-Training400" / "PALM-Training400" / "P0001.jpg"
    image.write_bytes(b"my own photograph")
    before = tree(own)
    monkeypatch.setenv("PALM_DATA", str(own))
    found, written = prepare_data(directory=None if by_variable else own)
    labels = found.valid_labels
    assert (found.root, written, labels.name) == (own, 1, "labels.csv")  # the table is converted all the same
    labels.unlink()
    assert tree(own) == before
    told = capsys.readouterr().err
    assert "own: not empty, so the archives in" in told
    assert f"--archives {mounted} --data {own}" in told

    prepare_data(mounted, own)  # which is asking
    assert image.read_bytes() != b"my own photograph"
    assert "not empty" not in capsys.readouterr().err


def test_mounted_archives_and_a_target_that_is_incomplete_or_holds_something_else(
    nowhere, tmp_path, small_demo, capsys
):
    mounted = archives(small_demo, tmp_path / "aistudio_data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"mine")
    shutil.copytree(small_demo / "PALM-Training400", tmp_path / "half" / "PALM-Training400")
    for name, told in {"other": "no archives in .*other; expected", "half": "half: no validation images"}.items():
        before = tree(tmp_path / name)
        with pytest.raises(InputError, match=told):
            prepare_data(directory=tmp_path / name)
        assert tree(tmp_path / name) == before
        assert f"--archives {mounted} --data {tmp_path / name}" in capsys.readouterr().err


def test_a_new_target_takes_the_mounted_archives_and_says_whose(nowhere, tmp_path, small_demo, capsys):
    mounted = archives(small_demo, tmp_path / "aistudio_data")
    assert prepare_data(directory=tmp_path / "new")[1] == 32
    assert f"new: unpacking the archives in {mounted} into it" in capsys.readouterr().err


def test_prepare_data_without_archives_or_with_some_missing(nowhere, tmp_path, small_demo, capsys):
    with pytest.raises(InputError, match=r"no archives in .*expected training\.zip, validation\.zip, valid_gt\.zip"):
        prepare_data()
    folder = archives(small_demo, tmp_path / "some")
    (folder / "validation.zip").unlink()
    with pytest.raises(InputError, match="no validation images"):
        prepare_data(folder, tmp_path / "target")
    assert "some: validation.zip not there." in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_anywhere_draws_the_demo_set_once(nowhere, capsys):
    found = find_dataset()
    assert found.root == nowhere / "data" / "demo"
    assert found.is_demo
    assert "tells nothing about eyes" in found.disclaimer
    assert len(image_names(found.train_images)) == 200
    assert len(read_labels(found.valid_labels)) == len(image_names(found.valid_images)) == 100
    told = capsys.readouterr().err
    assert "drawing a demo set" in told
    first = tree(found.root)
    find_dataset()
    assert tree(found.root) == first
    assert os.listdir(nowhere / "data") == ["demo"]
    assert "drawing" not in capsys.readouterr().err

    shutil.rmtree(found.root / "PALM-Validation400")
    with pytest.raises(InputError, match="The demo set is incomplete: delete .*demo, and it is drawn anew"):
        find_dataset()


def test_something_else_in_the_place_of_the_demo_set_is_not_touched(nowhere):
    (nowhere / "data" / "demo").mkdir()
    (nowhere / "data" / "demo" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="in the way of the demo set"):
        find_dataset()
    assert (nowhere / "data" / "demo" / "thesis.txt").read_text() == "mine"


def test_layouts_are_those_of_the_documentation():
    for layout in palm.LAYOUTS:
        for directory in (layout.train_images[0], layout.valid_images[0], layout.xlsx):
            assert directory in palm.__doc__


def test_the_real_images(real_palm):
    found = find_dataset(real_palm)
    train, valid = palm_loaders(found)
    assert (train.num_samples, train.num_batches, valid.num_samples) == (400, 40, 200)
    labels = read_labels(found.valid_labels)
    assert sum(label.label for label in labels) == 107
    assert astuple(labels[0])[:5] == ("1", "V0001.jpg", 0, "1157.74", "1019.87")
    assert sum(labels.sum() for _, labels in train()) == 213
