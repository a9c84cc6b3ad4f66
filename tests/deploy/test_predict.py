"""The metadata of weights, predictions from Python, and the tool as a user runs it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import PROJECT
from helpers.checkpoints import ON_DEMO_SET
from helpers.processes import assert_refused, posix

from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import palm_valid_loader
from palm_cls.data.loaders import data_loader
from palm_cls.data.palm import detect_layout
from palm_cls.deploy import prediction_files
from palm_cls.deploy.predict import Prediction, find_images, load_model, predict_images, probabilities
from palm_cls.deploy.prediction_files import display_names, overlay_paths, row_writer
from palm_cls.eval import metrics
from palm_cls.eval.evaluate import evaluate
from palm_cls.models.lenet import LeNet
from palm_cls.recipes import build_model
from palm_cls.training.experiment import train, train_recipe

import paddle

DISCLAIMER = "This is a teaching model, not a medical device."
DEMO_LINE = "Its weights were trained on the demo set (drawn images): its predictions tell nothing about eyes."
DEMO_WEIGHTS = {"model": "lenet-relu", **ON_DEMO_SET}


@pytest.fixture(scope="module")
def run(small_demo, tmp_path_factory):
    """Directory of a run: an epoch of lenet-relu on the small demo set."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    options = {"epochs": 1, "device": "cpu", "cache": False, "report": False}
    train_recipe("lenet-relu", data=small_demo, output=directory, **options)
    return directory


@pytest.fixture(scope="module")
def weights(run, tmp_path_factory):
    """The weights of the run, copied elsewhere."""
    return shutil.copy(run / "best.pdparams", tmp_path_factory.mktemp("elsewhere") / "copy.pdparams")


@pytest.fixture
def photos(small_demo, tmp_path):
    """A folder with five images of the demo set, an empty one (c.jpg), one cut off (e.jpg), and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for source, name in zip(sorted(small_demo.glob("PALM-Validation400/*.jpg")), ("a", "b", "c", "d", "e", "f", "g")):
        shutil.copy(source, folder / f"{name}.jpg")
    (folder / "c.jpg").write_bytes(b"")
    (folder / "e.jpg").write_bytes((folder / "e.jpg").read_bytes()[:-100])
    (folder / "notes.txt").write_text("no image")
    return folder


# The metadata of weights


def test_weights_carry_their_metadata_wherever_they_go(run, weights):
    assert read_metadata(weights) == DEMO_WEIGHTS
    for file in run.glob("*.pdparams"):  # of every checkpoint
        assert read_metadata(file) == DEMO_WEIGHTS
    settings = json.loads((run / "settings.json").read_text())
    assert {name: settings[name] for name in DEMO_WEIGHTS} == DEMO_WEIGHTS


class Tiny(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.pool, self.fc = paddle.nn.AvgPool2D(56, 56), paddle.nn.Linear(48, 1)

    def forward(self, x):
        return self.fc(paddle.flatten(self.pool(x), 1))


@pytest.mark.parametrize("demo", [True, False])
def test_so_do_weights_that_no_recipe_trained(small_demo, tmp_path, demo):
    folder = tmp_path / "demo" / "PALM-Training400" / "PALM-Training400"
    shutil.copytree(small_demo / "PALM-Training400" / "PALM-Training400", folder)
    if demo:
        shutil.copy(small_demo / "DEMO.txt", tmp_path / "demo")
    loaders = [data_loader(folder, mode=mode, cache=False) for mode in ("train", "valid")]
    train(Tiny(), *loaders, epochs=1, output=tmp_path / "run")
    expected = {name: value for name, value in DEMO_WEIGHTS.items() if name != "model"}
    train(Tiny(), *loaders, epochs=2, output=tmp_path / "run", resume=True)
    for file in (tmp_path / "run").glob("*.pdparams"):
        assert read_metadata(file) == {**expected, "demo": demo}


def test_plain_paddle_finds_only_the_state_beside_it(weights, run):
    model = build_model("lenet-relu")
    state = paddle.load(str(weights))
    assert sorted(state) == sorted(model.state_dict())
    assert model.set_state_dict(state) == ([], [])


def test_files_of_before_are_described_by_their_run(run, tmp_path):
    shutil.copy(run / "settings.json", tmp_path)
    model = build_model("lenet-relu")
    load(run, model)
    paddle.save(model.state_dict(), str(tmp_path / "best.pdparams"))
    assert read_metadata(tmp_path / "best.pdparams") == DEMO_WEIGHTS
    (tmp_path / "settings.json").unlink()
    assert read_metadata(tmp_path / "best.pdparams") == {}
    with pytest.raises(
        InputError, match=r"best\.pdparams does not name its network; give --model \(lenet, lenet-relu, "
    ):
        load_model(tmp_path)
    found, about = load_model(tmp_path, "lenet-relu")
    assert about == {"input": DEMO_WEIGHTS["input"]}
    np.testing.assert_array_equal(found.fc2.weight.numpy(), model.fc2.weight.numpy())


@pytest.mark.parametrize(
    ("about", "name", "message"),
    [
        ({"model": "lenet-relu"}, "lenet", "weights of lenet-relu, not of lenet"),  # their shapes are the same
        ({"model": "vgg"}, None, "weights of 'vgg', which is none of lenet, lenet-relu, alexnet"),
        ({"model": ["lenet"]}, None, "which is none of lenet"),
        (
            {"model": "lenet", "input": {"size": 299}},
            None,
            "takes images as .*299.*; this program .* as .*224",
        ),
        ({"model": "lenet"}, "lenet", r"weights of another network\. .* another shape: conv1.weight"),
    ],
)
def test_weights_that_would_be_fed_wrongly_are_refused(tmp_path, about, name, message):
    save(tmp_path / "a", LeNet(num_classes=1, in_channels=1, image_size=28), metadata=about)
    with pytest.raises(InputError, match=rf"a\.pdparams: .*{message}"):
        load_model(tmp_path / "a", name)


@pytest.mark.parametrize("damage", [b"[]", b'{"model": ', b"[" * 50000, b'{"a": \xff}'])
def test_the_metadata_of_weights_may_be_damaged(tmp_path, damage):
    save(tmp_path / "a", LeNet(1, 1, 28), metadata={"model": "lenet"})
    content = (tmp_path / "a.pdparams").read_bytes()
    assert read_metadata(tmp_path / "a.pdparams") == {"model": "lenet"}
    (tmp_path / "a.pdparams").write_bytes(content.replace(b'{"model": "lenet"}', damage))
    with pytest.raises(InputError, match=r"a\.pdparams: damaged"):
        load_model(tmp_path / "a")
    (tmp_path / "a.pdparams").write_bytes(content.replace(b'"lenet"}', b'"alexn"}'))
    with pytest.raises(InputError, match=r"a\.pdparams: damaged: its content does not match its checksum"):
        load(tmp_path / "a", LeNet(1, 1, 28))


def test_metadata_have_a_largest_size(tmp_path):
    with pytest.raises(ValueError, match="bytes of metadata"):
        save(tmp_path / "a", LeNet(1, 1, 28), metadata={"model": "x" * 70000})
    assert not list(tmp_path.iterdir())


# Which images


def test_what_the_names_of_images_may_be(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "a.cam.jpg", "notes.txt", "deep/c.jpeg", "deep/er/d.jpg", "[x].jpg", "x.jpg"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    def found(*names):
        return [path.as_posix() for path in find_images(names)]

    everything = ["f/[x].jpg", "f/a.PNG", "f/b.jpg", "f/x.jpg"]
    assert found("f") == everything
    assert found("f/x.jpg", "f/b.jpg", "./f/x.jpg") == ["f/x.jpg", "f/b.jpg"]
    assert found("f/*.jpg") == ["f/[x].jpg", "f/b.jpg", "f/x.jpg"]
    assert found("f/*") == ["f/[x].jpg", "f/a.PNG", "f/b.jpg", "f/deep/c.jpeg", "f/x.jpg"]
    assert found("f/**/*.j*") == ["f/[x].jpg", "f/b.jpg", "f/deep/c.jpeg", "f/deep/er/d.jpg", "f/x.jpg"]
    assert found("f/[x].jpg") == ["f/[x].jpg"]  # a file of that name, not the pattern for f/x.jpg
    assert found("f/notes.txt", "gone.jpg", "f/a.cam.jpg") == ["f/notes.txt", "gone.jpg", "f/a.cam.jpg"]
    for name in ("*.tif", "f/*.txt"):
        with pytest.raises(InputError, match="matches no image"):
            find_images([name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images in it"):
        find_images(["f", "empty"])


def test_no_two_overlays_have_one_name(tmp_path):
    def targets(*images):
        return [path.relative_to("out").as_posix() for path in overlay_paths("out", [tmp_path / i for i in images])]

    assert targets("l/a.jpg", "r/b.png") == ["a.cam.jpg", "b.cam.jpg"]
    assert targets("l/a.jpg", "l/a.png") == ["a.jpg.cam.jpg", "a.png.cam.jpg"]
    assert targets("l/a.jpg", "r/a.jpg", "r/b.jpg") == ["l/a.cam.jpg", "r/a.cam.jpg", "r/b.cam.jpg"]
    assert targets("1/l/a.jpg", "2/l/a.jpg") == ["1/l/a.cam.jpg", "2/l/a.cam.jpg"]
    assert targets("a.jpg", "l/A.jpg") == [f"{tmp_path.name}/a.cam.jpg", "l/A.cam.jpg"]
    with pytest.raises(InputError, match="differ by no name"):
        targets("l/a.jpg", "l/A.jpg")


def test_rows_carry_the_names_of_the_tables_or_paths_where_those_repeat(tmp_path):
    assert display_names([tmp_path / "l" / "a.jpg", tmp_path / "b.jpg"]) == ["a.jpg", "b.jpg"]
    assert display_names([tmp_path / "l" / "a.jpg", tmp_path / "a.jpg"]) == [
        str(tmp_path / "l" / "a.jpg"),
        str(tmp_path / "a.jpg"),
    ]


# Predictions


def test_predictions_are_those_of_the_evaluation(weights, small_demo):
    model, _ = load_model(weights)
    model.train()
    dataset = detect_layout(small_demo)
    loader = palm_valid_loader(dataset, cache=False)
    found = list(predict_images(model, [path for path, _ in loader.samples], batch_size=4))
    assert model.training
    assert len({row.probability for row in found}) == 10
    hits = [row.label == label for row, (_, label) in zip(found, loader.samples)]
    assert np.mean(hits) == evaluate(model, loader)["accuracy"]
    losses = [
        -np.log(row.probability if label else 1 - row.probability) for row, (_, label) in zip(found, loader.samples)
    ]
    assert np.mean(losses) == pytest.approx(evaluate(model, loader)["loss"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_what_cannot_be_read_gets_an_error_and_the_rest_its_prediction(weights, photos, batch_size):
    model, _ = load_model(weights)
    (photos / "folder.jpg").mkdir()
    whole = (photos / "a.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    (photos / "deep.jpg").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint16))[1])
    names = ("a", "b", "c", "gone", "d", "e", "half", "deep", "folder")
    paths = [photos / f"{name}.jpg" for name in names] + [photos / "notes.txt"]
    found = list(predict_images(model, paths, batch_size))
    assert [row.path for row in found] == paths
    errors = {row.path.name: row.error for row in found if row.error}
    assert list(errors) == ["c.jpg", "gone.jpg", "e.jpg", "half.jpg", "deep.jpg", "folder.jpg", "notes.txt"]
    assert "(it is empty)" in errors["c.jpg"]
    assert "(it is truncated)" in errors["e.jpg"]
    assert "(corrupt JPEG data: premature end of data segment)" in errors["half.jpg"]
    assert "16 bits per channel" in errors["deep.jpg"]
    assert "no such image" in errors["gone.jpg"]
    assert "directory" in errors["folder.jpg"] or "denied" in errors["folder.jpg"]  # Linux, Windows
    for row in found:
        if row.error is None:
            (alone,) = predict_images(model, [row.path])
            assert (row.probability, row.label) == (pytest.approx(alone.probability, abs=1e-5), alone.label)


def test_the_label_is_1_above_the_threshold_not_at_it(weights, photos):
    model, _ = load_model(weights)
    (row,) = predict_images(model, [photos / "a.jpg"])
    for threshold, label in ((row.probability, 0), (np.nextafter(row.probability, 0), 1), (0.0, 1), (1.0, 0)):
        assert next(predict_images(model, [photos / "a.jpg"], threshold=threshold)).label == label


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_make_errors_not_labels(weights, photos, value):
    model, _ = load_model(weights)
    model.fc2.bias.set_value(np.array([value], "float32"))
    (row,) = predict_images(model, [photos / "a.jpg"])
    assert row == Prediction(row.path, error="the network gives no finite number for this image")


def test_a_threshold_of_the_evaluation_parts_the_same_images():
    logits = np.random.RandomState(0).randn(50, 1).astype("float32")
    labels, found = np.arange(50) % 2, np.array(probabilities(logits))
    threshold = metrics.threshold_for_sensitivity(labels, metrics.positive_probabilities(logits[:, 0]), 0.8)
    assert (found > threshold)[labels == 1].sum() == 20
    assert probabilities(np.zeros((1, 1), "float32")) == [0.5]


def test_probabilities_of_two_logits():
    pairs = np.array([[0.0, 0.0], [1.0, 3.2]], "float32")
    assert probabilities(pairs) == pytest.approx([0.5, 1 / (1 + np.exp(-2.2))], abs=1e-6)


# Rows


ROWS = [
    ("a.jpg", Prediction(None, 0.25, 0, None)),
    ('图, "b".jpg', Prediction(None, 1e-07, 0, None)),
    ("c.jpg", Prediction(None, error="c.jpg: not\nan image")),
]


@pytest.mark.parametrize("name", ["new/a.csv", "a.jsonl"])
def test_rows_are_there_as_soon_as_they_are_written(tmp_path, name):
    with row_writer(tmp_path / name, "no, advice") as write_row:
        for done, row in enumerate(ROWS, 1):
            write_row(*row)
            assert read_rows(tmp_path / name) == [expected_row(name, row) for row in ROWS[:done]]


def test_the_note_is_one_line_that_pandas_reads_without_options(tmp_path):
    with row_writer(tmp_path / "a.csv") as write_row:  # with the caveat at least, whoever calls it
        for row in ROWS:
            write_row(*row)
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table.columns) == ["imgName", "probability", "label", "error", "note"]
    assert table["note"].tolist() == [DISCLAIMER] * len(ROWS)
    for about in ({}, {"demo": False}):  # older weights do not state it
        assert prediction_files.prediction_note(about) == DISCLAIMER
    assert prediction_files.prediction_note({"demo": True}) == f"{DISCLAIMER} {DEMO_LINE}"


def read_rows(path):
    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def expected_row(file, row):
    name, prediction = row
    columns = ("imgName", "probability", "label", "error", "note")
    values = dict(zip(columns, (name, prediction.probability, prediction.label, prediction.error, "no, advice")))
    if file.endswith(".csv"):
        return {name: "" if value is None else str(value) for name, value in values.items()}
    return values if values["error"] else {name: value for name, value in values.items() if name != "error"}


def test_no_half_row_stays_where_the_disk_is_full(tmp_path):
    class FullDisk(io.FileIO):
        def write(self, content):
            if b"c.jpg" not in content:
                return super().write(content[:7])  # the rest is asked for again
            if content.startswith(b"c.jpg"):
                return super().write(content[:7])
            raise OSError(28, "No space left on device")

    with FullDisk(tmp_path / "a.csv", "w") as file:
        for name in ("a.jpg,1\n", "a longer name.jpg,1\n"):
            prediction_files._append(file, name)
        with pytest.raises(OSError, match="No space left on device"):
            prediction_files._append(file, "c.jpg,1 and c.jpg\n")
    assert (tmp_path / "a.csv").read_text() == "a.jpg,1\na longer name.jpg,1\n"


def test_a_name_that_is_no_text_is_escaped(tmp_path):
    with row_writer(tmp_path / "a.jsonl") as write_row:
        write_row("\udcff.jpg", ROWS[0][1])
    assert read_rows(tmp_path / "a.jsonl")[0]["imgName"] == "\udcff.jpg"


# The tool


def test_the_tool_predicts_prints_and_draws(tool, weights, photos, tmp_path):
    done = tool("predict", "--weights", weights, "photos/[a-d].jpg", photos, "gone.jpg", "--cam", "cams", cwd=tmp_path)
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["imgName"] for row in rows] == [*(f"{name}.jpg" for name in "abcdefg"), "gone.jpg"]
    assert {row["note"] for row in rows} == {f"{DISCLAIMER} {DEMO_LINE}"}
    for row in rows:
        if row["error"]:
            assert (row["probability"], row["label"]) == ("", "")
        else:
            assert row["label"] == str(int(float(row["probability"]) > 0.5))
    good = [row["imgName"] for row in rows if not row["error"]]
    assert good == ["a.jpg", "b.jpg", "d.jpg", "f.jpg", "g.jpg"]
    assert sorted(path.name for path in (tmp_path / "cams").iterdir()) == [f"{n[0]}.cam.jpg" for n in good]
    photo, drawn = (cv2.imread(str(path)) for path in (photos / "a.jpg", tmp_path / "cams" / "a.cam.jpg"))
    assert drawn.shape == photo.shape
    assert np.abs(drawn.astype(int) - photo).max() > 50
    lines = done.stderr.splitlines()
    assert DISCLAIMER in lines
    assert DEMO_LINE in lines
    assert lines[-1] == "predict.py: 3 of 8 images could not be predicted; their rows state why"
    assert "%" not in done.stderr  # no bar but on a terminal


@pytest.mark.slow
def test_the_tool_writes_files_and_overwrites_none(tool, tool_here, weights, photos, tmp_path):
    model, about = load_model(weights)
    save(tmp_path / "real", model, metadata={**about, "demo": False})
    predict = ("predict", "--weights", tmp_path / "real", photos / "a.jpg", photos / "b.jpg")
    output = tmp_path / "out.jsonl"
    done = tool(*predict, "--output", output, "--threshold", 0.999, "--batch-size", 1)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "demo" not in done.stderr  # for all it knows, real images
    assert DISCLAIMER in done.stderr
    rows = read_rows(output)
    assert [sorted(row) for row in rows] == [["imgName", "label", "note", "probability"]] * 2
    assert [row["note"] for row in rows] == [DISCLAIMER] * 2
    assert [row["label"] for row in rows] == [0, 0]
    before = output.read_bytes()
    assert_refused(tool_here(*predict, "--output", output), "out.jsonl: already there, and not overwritten")
    (tmp_path / "a.cam.jpg").write_bytes(b"mine")
    assert_refused(tool_here(*predict, "--cam", tmp_path), "a.cam.jpg: already there, and not overwritten")
    assert (output.read_bytes(), (tmp_path / "a.cam.jpg").read_bytes()) == (before, b"mine")
    assert not (tmp_path / "b.cam.jpg").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--output", "a.xlsx"], "argument --output: 'a.xlsx' ends in none of .csv, .jsonl"),
        (["--threshold", "1.5"], "argument --threshold: '1.5' is not a number from 0, below 1"),
        (["nothing*.jpg"], "nothing*.jpg: matches no image"),
    ],
)
def test_the_tool_refuses_what_it_cannot_use(tool_here, weights, photos, args, message):
    assert_refused(tool_here("predict", "--weights", weights, photos, *args, cwd=photos), message)
    assert sorted(path.name for path in photos.iterdir()) == [*(f"{name}.jpg" for name in "abcdefg"), "notes.txt"]


@pytest.mark.slow
@posix
def test_a_reader_can_follow_the_rows(weights, photos):
    """The first row is there while the second image is still being written."""
    os.mkfifo(photos / "slow.jpg")
    command = [sys.executable, PROJECT / "tools" / "predict.py", "--weights", weights, "--batch-size", "1"]
    process = subprocess.Popen(
        [
            *map(str, command),
            str(photos / "a.jpg"),
            str(photos / "b.jpg"),
            str(photos / "d.jpg"),
            str(photos / "slow.jpg"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        assert process.stdout.readline() == "imgName,probability,label,error,note\n"
        assert process.stdout.readline().startswith("a.jpg,0.")
        (photos / "slow.jpg").write_bytes((photos / "f.jpg").read_bytes())
        assert [line[:5] for line in process.stdout.read().splitlines()] == ["b.jpg", "d.jpg", "slow."]
        assert process.wait() == 0
    finally:
        timer.cancel()
        process.kill()
        process.wait()
