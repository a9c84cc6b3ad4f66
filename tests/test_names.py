"""Names of files and directories that are not UTF-8, as `unzip` makes of GBK, work everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny  # noqa: F401  the recipe

from palm_cls.checkpoints.run_files import read_settings
from palm_cls.core import figures
from palm_cls.core.console import command_line
from palm_cls.core.files import read_json, write_json
from palm_cls.data import samples
from palm_cls.data.checks import check_data
from palm_cls.data.loaders import ImageLoader, data_loader
from palm_cls.data.palm import detect_layout
from palm_cls.data.pipeline import augmented_samples
from palm_cls.deploy.export import export_network
from palm_cls.deploy.exported_model import load_exported_model
from palm_cls.deploy.predict import find_images, predict_images
from palm_cls.eval import compare_figure, plots
from palm_cls.training.experiment import resume_recipe, train_recipe

GBK = os.fsdecode("眼".encode("gbk")) if sys.platform.startswith("linux") else ""  # elsewhere no file can have it
pytestmark = pytest.mark.skipif(not GBK, reason="file systems here take no such names")


def renamed(source, target):
    """A copy of a data set in the course's layout, its training images with GBK in their names."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".palm_cls-*"))
    for path in target.glob("PALM-Training400/*/*.jpg"):
        path.rename(path.with_name(f"{path.stem}{GBK}.jpg"))
    return target


def test_the_fingerprint_of_names_is_that_of_before(tmp_path):
    fingerprints = []
    for name in ("P1.jpg", "P眼.jpg", f"P{GBK}.jpg"):
        (tmp_path / name).write_bytes(b"a")
        fingerprints.append(ImageLoader(tmp_path, [(tmp_path / name, 1)], 1, "valid").fingerprint)
    assert fingerprints[:2] == [
        "76270b9c69197005a21f8a5b9a4a758b8f14165d6ac6e7dc900bccb0ae693548",
        "1a70210b9262a167118165f209f12ed0a7b0d9005992799ebb84189fb24dcfd4",
    ]
    assert len(set(fingerprints)) == 3


def test_json_gives_a_name_back(tmp_path):
    write_json({"data": f"/{GBK}/眼", "versions": {}}, tmp_path / f"{GBK}.json")
    assert read_json(tmp_path / f"{GBK}.json", "ours")["data"] == f"/{GBK}/眼"
    assert "眼" in (tmp_path / f"{GBK}.json").read_text(encoding="utf-8")


def test_a_name_can_be_drawn(tmp_path):
    figure = figures.import_matplotlib().figure.Figure()
    figure.subplots().set_title(figures.escape_text(f"{GBK} 眼 $x^"))
    figures.write_png(figure, tmp_path / f"{GBK}.png")
    assert compare_figure._shorten(f"{GBK}$") == plots._shorten(f"{GBK}$", 1) == r"\udcd1\udcdb\$"


def test_the_lessons_figure_and_the_check_of_a_data_set(small_demo, tmp_path):
    dataset = detect_layout(renamed(small_demo, tmp_path / GBK))
    figure, shapes = samples.lesson_figure(dataset)
    assert list(shapes) == [f"N0001{GBK}.jpg", f"P0001{GBK}.jpg"]
    samples.show_or_write(figure, tmp_path / f"{GBK}.png")
    assert check_data(dataset).count("error") == 0


@pytest.mark.slow
def test_a_run_from_training_to_predicting(small_demo, tmp_path):
    data, output = renamed(small_demo, tmp_path / GBK), tmp_path / f"run{GBK}"
    train_recipe("tiny", data=data, output=output, report=False)
    settings = json.loads((output / "settings.json").read_text(encoding="utf-8"))
    assert settings["data"] == str(data)
    trained = resume_recipe(output, epochs=2)  # images in the same order; with its report
    assert len(trained.history) == 2
    assert read_settings(output)["data"] == str(data)
    assert trained.report.is_file()
    exported = export_network(output, "paddle")
    images = find_images([data / "PALM-Training400" / "PALM-Training400"])
    found = list(predict_images(load_exported_model(exported.path)[0], images))
    assert [row.error for row in found] == [None] * 20
    assert sorted(os.listdir(exported.path))[0] == "about.json"


def test_a_reader_gives_the_images(small_demo, tmp_path):
    data = renamed(small_demo, tmp_path / GBK)
    reader = data_loader(Path(data, "PALM-Training400", "PALM-Training400"), batch_size=10)
    assert [len(imgs) for imgs, _ in reader()] == [10, 10]
    reader.augmentation = "lesson"
    assert len(augmented_samples(reader, f"N0001{GBK}.jpg", range(2))) == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_command_with_such_a_name_can_be_typed():
    words = [f"a '{GBK}\\1", "b c", ""]
    done = subprocess.run(["bash", "-c", command_line("printf", "%s|", *words)], capture_output=True, check=True)
    assert done.stdout == b"".join(os.fsencode(word) + b"|" for word in words)
