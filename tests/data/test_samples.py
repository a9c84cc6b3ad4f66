import os
import shutil
import subprocess
import sys

import cv2
import matplotlib
import pytest
from helpers import PROJECT
from helpers.processes import assert_refused

from palm_cls.core.errors import InputError
from palm_cls.data import samples
from palm_cls.data.demo_set import write_demo_set
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import detect_layout
from palm_cls.data.photos import find_photos, photo_loader
from palm_cls.data.samples import (
    augmentation_figure,
    classes_figure,
    example_names,
    lesson_examples,
    lesson_figure,
    show_or_write,
)

matplotlib.use("Agg")


def test_the_lessons_figure(small_demo, tmp_path):
    figure, shapes = lesson_figure(detect_layout(small_demo))
    assert list(shapes) == ["N0001.jpg", "P0001.jpg"]
    assert set(shapes.values()) == {(512, 512, 3)}
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "Normal\nN0001.jpg, shape (512, 512, 3)",
        "Pathological myopia (PM)\nP0001.jpg, shape (512, 512, 3)",
    ]
    assert "tells nothing about eyes" in figure.texts[0].get_text()
    red, green, blue = figure.axes[0].images[0].get_array().reshape(-1, 3).mean(0)
    assert red > green > blue

    path = show_or_write(figure, tmp_path / "deep" / "figure.png")
    assert min(cv2.imread(str(path)).shape[:2]) > 500
    with pytest.raises(InputError, match=r"not the name of a \.png"):
        show_or_write(figure, tmp_path / "figure.jpg")


def test_the_lessons_own_examples_where_they_exist(real_palm):
    assert [path.name for path in lesson_examples(detect_layout(real_palm))] == ["N0012.jpg", "P0095.jpg"]


def test_the_examples_have_the_labels_they_are_titled_with(small_demo, tmp_path):
    shutil.copytree(small_demo / "PALM-Training400" / "PALM-Training400", tmp_path / "Training" / "Images")
    for name in ("N0012.jpg", "P0095.jpg"):
        shutil.copy(small_demo / "PALM-Validation400" / "V0001.jpg", tmp_path / "Training" / "Images" / name)
    (tmp_path / "Training" / "labels.csv").write_text("imgName,Label\nN0012.jpg,1\nP0095.jpg,0\n")
    assert [path.name for path in lesson_examples(detect_layout(tmp_path))] == ["P0095.jpg", "N0012.jpg"]


def test_a_class_without_an_image(small_demo, tmp_path):
    source = small_demo / "PALM-Training400" / "PALM-Training400"
    (tmp_path / "PALM-Training400").mkdir()
    shutil.copy(source / "N0001.jpg", tmp_path / "PALM-Training400")
    with pytest.raises(InputError, match="no image with label 1"):
        lesson_examples(detect_layout(tmp_path))


@pytest.mark.parametrize("backend", ["of no such name", "svg"])
def test_no_backend_that_the_environment_names_is_in_the_way(backend):
    """A notebook's is inherited by "!python ...", and may not be installed; pyplot keeps one that is."""
    code = "from palm_cls.core import figures; matplotlib = figures.import_matplotlib(); matplotlib.figure.Figure(); "
    code += "import matplotlib.pyplot; print(matplotlib.get_backend())"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MPLBACKEND": backend, "DISPLAY": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.lower().split() == ["svg" if backend == "svg" else "agg"], done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three folders of images that are not divided: 1, 6 and 8 images; two names are Chinese."""
    root = tmp_path_factory.mktemp("folders")
    write_demo_set(root / "drawn", train=15, valid=1, layout="folders")
    for old, new in (("high_myopia", "高度 近视"), ("normal", "a" * 40), ("pathological", "病理性近视")):
        (root / "data").mkdir(exist_ok=True)
        (root / "drawn" / "train" / old).rename(root / "data" / new)
    return root / "data"


def test_some_images_of_each_class(folders):
    dataset, options = find_photos(DataOptions(folders))
    loader = photo_loader(dataset, "all", options, cache=False)
    figure = classes_figure(dataset, loader)
    titles = [axis.get_title() for axis in figure.axes]
    cut = "a" * 27 + "..."
    assert titles[:3] == [f"{cut}\nN0001.jpg", f"{cut}\nN0003.jpg", f"{cut}\nN0005.jpg"]
    assert titles[3:6] == ["病理性近视\nP0001.jpg", "病理性近视\nP0003.jpg", "病理性近视\nP0005.jpg"]
    assert titles[6:] == ["高度 近视\nH0001.jpg", "", ""]
    assert [len(axis.images) for axis in figure.axes] == [1] * 7 + [0, 0]
    for axis, name in zip(figure.axes[3:6], example_names(loader, 1, 3)):
        assert (axis.images[0].get_array() == loader.load_image(name)[:, :, ::-1]).all()


def test_more_classes_than_are_drawn(folders, monkeypatch, capsys):
    monkeypatch.setattr(samples, "MAX_CLASSES", 2)
    dataset, options = find_photos(DataOptions(folders))
    figure = classes_figure(dataset, photo_loader(dataset, "all", options, cache=False))
    assert len(figure.axes) == 6
    assert f"{folders}: 3 classes; the first 2 are drawn." in capsys.readouterr().err


def test_an_augmented_image_of_the_last_class(folders):
    dataset, options = find_photos(DataOptions(folders))
    loader = photo_loader(dataset, "all", options, cache=False)
    figure = augmentation_figure(dataset, "lesson", loader)
    assert [axis.get_title() for axis in figure.axes][:2] == ["高度 近视\nH0001.jpg", "epoch 0"]
    loader.samples = loader.samples[:3]
    with pytest.raises(InputError, match="no image of class 高度 近视 to show"):
        augmentation_figure(dataset, "lesson", loader)


def test_the_tool_on_folders(tool_here, folders, tmp_path):
    before = sorted(folders.iterdir())
    done = tool_here("show_images", "--data", folders, "--output", tmp_path / "a.png")
    assert (done.returncode, done.stdout) == (0, f"figure: {tmp_path / 'a.png'}\n"), done.stderr
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert height > width > 700  # three rows, with titles, of three images
    assert sorted(folders.iterdir()) == before  # nothing is divided
    wrong = tool_here(
        "show_images", "--data", folders, "--classes", "病理性近视,高度 近视", "--output", tmp_path / "b.png"
    )
    assert_refused(wrong, "none of the classes 病理性近视, 高度 近视")


def test_the_tool_with_a_table(tool_here, small_demo, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("imgName,Label\nN0001.jpg,N\nP0001.jpg,P\nH0001.jpg,H\n", encoding="utf-8")
    options = ("--data", small_demo, "--train-csv", table, "--classes", "N,H,P", "--output", tmp_path / "a.png")
    done = tool_here("show_images", *options)
    assert (done.returncode, done.stdout) == (0, f"figure: {tmp_path / 'a.png'}\n"), done.stderr
    assert_refused(
        tool_here("show_images", "--dataset", "mnist", *options), "--train-csv is for photographs, not for mnist"
    )
