import os
import shutil
import subprocess
import sys

import cv2
import matplotlib
import pytest
from helpers import PROJECT

from palm_cls.core.errors import InputError
from palm_cls.data.palm import detect_layout
from palm_cls.data.samples import lesson_examples, lesson_figure, show_or_write

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
