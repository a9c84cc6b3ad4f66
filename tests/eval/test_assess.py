import csv
import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    PROJECT,
    tiny,  # noqa: F401  the recipe
)

from palm_cls.checkpoints.weights import save
from palm_cls.core.console import DEMO_WARNING
from palm_cls.core.device import set_seed
from palm_cls.core.errors import InputError
from palm_cls.data.data_root import DEMO_MARK
from palm_cls.deploy.predict import predict_images
from palm_cls.eval.assess import (
    EvaluationResult,
    assess,
    check_threshold_source,
    detailed_metrics,
    prediction_rows,
    threshold_from,
)
from palm_cls.eval.evaluate import Predictions
from palm_cls.recipes import build_model
from palm_cls.training.experiment import train_recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of an untrained LeNet with ReLU: it calls some images positive, and others not."""
    set_seed(1)
    path = tmp_path_factory.mktemp("weights") / "relu"
    save(path, build_model("lenet-relu"))
    return path.with_suffix(".pdparams")


def evaluate(tool, small_demo, weights, *args):
    done = tool("evaluate", "--weights", weights, "--model", "lenet-relu", "--data", small_demo, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_files_and_the_table_agree(tool, small_demo, weights):
    output = evaluate(tool, small_demo, weights)
    report = json.loads(weights.with_name("relu.evaluation.json").read_text(encoding="utf-8"))
    with weights.with_name("relu.predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    metrics = report["measures"]
    assert report["listed"] == metrics["images"] == len(rows) == len(report["images"]) == 10
    assert report["demo"]
    assert report["ten_crop"] is False
    assert [row["imgName"] for row in rows] == [f"V{k:04d}.jpg" for k in range(1, 11)]
    hits = [row["Label"] == row["predicted"] for row in rows]
    assert metrics["accuracy"]["value"] == np.mean(hits)
    assert f"acc={np.mean(hits)}" in output
    confusion = metrics["confusion"]
    positive = [row["predicted"] == "1" for row in rows]
    assert confusion["tp"] + confusion["fp"] == sum(positive)
    for row, image in zip(rows, report["images"]):
        assert {key: str(value) for key, value in image.items()} == row
        assert image["probability"] == pytest.approx(1 / (1 + np.exp(-image["logit"])), abs=1e-6)
    assert "10 of 10 images (demo set: drawn images, tells nothing about eyes)" in output
    assert "not a medical device" in output
    assert "sensitivity" in output


@pytest.mark.slow
def test_the_threshold_of_another_evaluation(tool, small_demo, weights, tmp_path):
    first = tmp_path / "first.json"
    evaluate(tool, small_demo, weights, "--json", first, "--csv", tmp_path / "first.csv")
    again = ("--sensitivity", 0.8, "--threshold-from", first, "--json", tmp_path / "second.json")
    done = tool("evaluate", "--weights", weights, "--model", "lenet-relu", "--data", small_demo, *again)
    assert (done.returncode, (tmp_path / "second.json").exists()) == (2, False)
    assert done.stderr.splitlines()[-1].startswith(f"evaluate.py: {first}: of these very images, and a threshold")
    content = json.loads(first.read_text())
    first.write_text(json.dumps({**content, "images": content["images"][1:]}))  # as if there were others
    evaluate(tool, small_demo, weights, *again, "--csv", tmp_path / "second.csv")
    metrics = json.loads((tmp_path / "second.json").read_text())["measures"]
    assert metrics["threshold"] == threshold_from(first, 0.8) != 0.5
    assert metrics["sensitivity"]["value"] >= 0.8


def test_a_run_is_evaluated_on_its_own_images_and_keeps_that(tool, small_demo, tmp_path, monkeypatch, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    train_recipe("tiny", data=small_demo, output=run, epochs=1)
    shutil.copytree(small_demo, other)
    (other / DEMO_MARK).unlink()
    with (other / "PALM-Validation400" / "V0001.jpg").open("ab") as file:
        file.write(b"another size")
    monkeypatch.setenv("PALM_DATA", str(other))
    found = assess(run)
    assert (Path(found.data).parent, found.other_dataset) == (small_demo, "")
    capsys.readouterr()
    found = assess(run, data=other)
    assert found.other_dataset == "other"
    seen = capsys.readouterr().err.splitlines()
    assert {f"{run}: its run has other validation images than {other / 'PALM-Validation400'}", DEMO_WARNING} < set(seen)
    monkeypatch.syspath_prepend(PROJECT / "tools")
    from evaluate import files_to_write

    asked = Namespace(json=None, csv=None, split="valid")
    names = ("evaluation.json", "predictions.csv")
    assert files_to_write(asked, found) == tuple(str(run / f"other.{name}") for name in names)
    assert files_to_write(asked, replace(found, other_dataset="")) == tuple(str(run / name) for name in names)
    assert files_to_write(asked, replace(found, weights=run / "a.b.pdparams", other_dataset="")) == tuple(
        str(run / f"a.b.{name}") for name in names
    )


def test_what_cannot_be_evaluated_is_named(tmp_path):
    (tmp_path / "runs" / "seed-3").mkdir(parents=True)
    (tmp_path / "runs" / "seed-3" / "best.pdparams").touch()
    for path, message in {
        "runs": "runs with several seeds; give one of them, as .*seed-3$",
        "a.onnx": "exported",
    }.items():
        with pytest.raises(InputError, match=message):
            assess(tmp_path / path)


def test_what_no_threshold_can_be_taken_from(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        threshold_from(tmp_path / "none.json", 0.9)
    for content in ("", "[]", "{}", '{"images": [{"Label": 1}]}', '{"images": [{"Label": "x", "probability": 0.1}]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match=r"bad\.json: not the evaluation\.json"):
            threshold_from(tmp_path / "bad.json", 0.9)


def test_a_threshold_of_another_network_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"model": "lenet", "images": []}')
    found = EvaluationResult("alexnet", None, None, False, 0, Predictions([], np.zeros((0, 1)), np.zeros((0, 1))), {})
    with pytest.raises(InputError, match=r"a\.json: a threshold of lenet does not apply to alexnet"):
        check_threshold_source(tmp_path / "a.json", found)


def test_a_threshold_for_other_views_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"model": "lenet", "images": []}')  # of a version without views
    found = EvaluationResult("lenet", None, None, False, 0, Predictions([], np.zeros((0, 1)), np.zeros((0, 1))), {}, 8)
    with pytest.raises(InputError, match=r"a\.json: a threshold for 1 views of each image does not apply to 8"):
        check_threshold_source(tmp_path / "a.json", found)


def test_views_that_there_are_none_of(weights, small_demo):
    for options, message in (({"views": 5}, "5 views of an image"), ({"views": 8, "ten_crop": True}, "not both")):
        with pytest.raises(InputError, match=message):
            assess(weights, "lenet-relu", small_demo, **options)
    with pytest.raises(InputError, match="10 views of an image: expected 1 or 8"):
        next(predict_images(build_model("lenet-relu"), [], views=10))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--ten-crop", "--views", 8), "not allowed with argument"),
        (("--sensitivity", 0.9), "go together"),
        (("--threshold-from", "x.json"), "go together"),
        (("--threshold", 0.3, "--sensitivity", 0.9, "--threshold-from", "x.json"), "not both"),
        (("--threshold", 1.5), "from 0, below 1"),
        (("--sensitivity", 0.9, "--threshold-from", "x.json"), "x.json: no such file"),
    ],
)
def test_wrong_options(tool_here, weights, args, message):
    done = tool_here("evaluate", "--weights", weights, "--model", "lenet-relu", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]


def test_ten_classes():
    logits = np.eye(10, dtype="float32")[[3, 1, 4, 1, 5]] * 4
    predictions = Predictions(list("abcde"), np.array([[3], [1], [4], [1], [0]]), logits)
    metrics = detailed_metrics(predictions)
    assert metrics["accuracy"]["value"] == 0.8
    rows = prediction_rows(EvaluationResult("lenet-mnist", None, None, False, 5, predictions, metrics))
    assert [row["predicted"] for row in rows] == [3, 1, 4, 1, 5]
    sure, other = np.e**4 / (np.e**4 + 9), 1 / (np.e**4 + 9)
    assert rows[4] == {
        "imgName": "e",
        "Label": 0,
        "predicted": 5,
        "probability": pytest.approx(sure),
        **{f"probability_{number}": pytest.approx(sure if number == 5 else other) for number in range(10)},
    }
