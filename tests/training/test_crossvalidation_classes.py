"""Cross-validation of three named classes, each in a folder."""

import csv
import json

import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.folders import encoded, write_folders
from helpers.kills import fill_disk_at_checkpoint
from helpers.processes import assert_refused
from helpers.runs import contents

from palm_cls.checkpoints.run_files import CROSSVALIDATION, read_log, read_settings
from palm_cls.core.errors import InputError
from palm_cls.training.crossvalidation import crossvalidate, resume_crossvalidation
from palm_cls.training.experiment import train_recipe
from palm_cls.training.options import balanced_weights

CLASSES = ["中度 <b>", "正常", "轻度"]  # sorted by their names
COUNTS = (8, 3, 5)
FILES = ("folds.csv", "predictions.csv", "results.json")


def write_noise(root, counts=COUNTS):
    """Write so many images of noise for each class; no two are alike."""
    rng = np.random.default_rng(0)

    def noise(*_):
        return encoded(rng.integers(0, 255, (24, 24, 3)).astype("uint8"), ".png")

    return write_folders(root, dict(zip(CLASSES, counts)), noise, ".png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images that are not divided into training and validation images."""
    return write_noise(tmp_path_factory.mktemp("classes") / "data")


def run(output, data, **options):
    options = {"folds": 2, "epochs": 2, "batch_size": 4, "class_weights": "balanced", "cache": False, **options}
    return crossvalidate("tiny", output, data=data, **options)


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    """(Directory of a cross-validation, its result)."""
    output = tmp_path_factory.mktemp("folds") / "run"
    return output, run(output, folders, save_every=2)


def results(output):
    """What a cross-validation leaves behind, to the bit, but for the page, which holds the time."""
    folds = {path.name: contents(path) for path in sorted(output.glob("seed-*/fold-*"))}
    return {**folds, **{name: (output / name).read_bytes() for name in FILES}}


def test_all_images_are_predicted_with_a_column_for_each_class(finished):
    output, result = finished
    assert (result.classes, len(result.names)) == (CLASSES, sum(COUNTS))
    assert np.bincount(result.labels).tolist() == list(COUNTS)
    assert result.logits[1].shape == result.logits[8].shape == (1, sum(COUNTS), 3)
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = ("logit", "logit_8_views", "probability", "probability_8_views")
    assert list(rows[0])[5:] == [f"{kind}_{number}" for kind in kinds for number in range(3)]
    assert [row["imgName"].split("/")[0] for row in rows] == [CLASSES[label] for label in result.labels]
    for row in rows:
        assert sum(float(row[f"probability_8_views_{number}"]) for number in range(3)) == pytest.approx(1)


def test_a_fold_is_predicted_by_the_last_epoch_of_its_run(finished):
    output, result = finished
    for fold in range(2):
        chosen = result.folds == fold
        accuracy = (result.logits[1][0][chosen].argmax(axis=1) == result.labels[chosen]).mean()
        assert read_log(output / "seed-0" / f"fold-{fold}")[-1]["valid_accuracy"] == accuracy


def test_class_weights_are_those_of_the_images_that_a_fold_trains_on(finished):
    output, result = finished
    used = [read_settings(output / "seed-0" / f"fold-{fold}")["loss_weights"] for fold in range(2)]
    assert used == [balanced_weights(result.labels[result.folds != fold].tolist(), 3) for fold in range(2)]
    assert used[0] != used[1]
    assert "loss_weights" not in json.loads((output / CROSSVALIDATION).read_text(encoding="utf-8"))


def test_the_page_names_the_classes(finished):
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert "labelled 正常, called " in page
    assert ("中度 &lt;b&gt;" in page, "中度 <b>" in page) == (True, False)


def test_interrupted_and_resumed_it_has_the_same_bits(finished, folders, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk_at_checkpoint(patch, 7)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "run", folders, save_every=2)
    assert (tmp_path / "run" / "seed-0" / "fold-0" / "held_out.csv").is_file()
    assert list((tmp_path / "run" / "seed-0" / "fold-1").glob("last-*"))
    resume_crossvalidation(tmp_path / "run", cache=False)
    assert results(tmp_path / "run") == results(finished[0])


@pytest.mark.slow
def test_of_divided_images_those_to_train_on_are_used(tmp_path):
    write_noise(tmp_path / "data" / "train", (4, 4, 4))
    write_noise(tmp_path / "data" / "val", (1, 1, 1))
    assert len(run(tmp_path / "run", tmp_path / "data", epochs=1).names) == 12


def test_weights_of_a_run_on_a_part_of_the_images_are_refused(folders, tmp_path):
    output = train_recipe("tiny", tmp_path / "seen", data=folders, cache=False, report=False).output
    with pytest.raises(InputError, match="trained on these very images, so that it has seen every fold"):
        run(tmp_path / "run", folders, weights=output)


def test_the_class_of_too_few_images_is_named(tool_here, folders):
    told = (
        "4 folds need as many groups of images of each class, and the smallest class, 正常, has 3; take fewer --folds"
    )
    assert_refused(tool_here("crossvalidate", "--model", "palm", "--data", folders, "--folds", 4, "--no-cache"), told)
    assert_refused(tool_here("crossvalidate", "--model", "palm", "--valid-csv", "x"), "unrecognized arguments")
