"""Prediction with any number of named classes: rows, heat maps, exports, and what is refused."""

import csv
import io
import json
import shutil
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from helpers.processes import assert_refused

from palm_cls.checkpoints.weights import save
from palm_cls.core import device
from palm_cls.core.console import DISCLAIMER
from palm_cls.core.errors import InputError
from palm_cls.data.images import INPUT_SPEC, read_image, transform_img
from palm_cls.data.labels import CLASSES
from palm_cls.deploy.export import export_network
from palm_cls.deploy.predict import Prediction, find_classes, find_images, load_model, predict_images, probabilities
from palm_cls.deploy.prediction_files import row_writer
from palm_cls.eval.assess import assess
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.eval.multiclass_metrics import class_probabilities
from palm_cls.recipes import build_model

SIZE = 64  # pixels, so that predictions take no time
THREE = ["正常", "高度近视", "病理性 近视"]
TWO = ["good, or so", "bad"]
needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "paddle2onnx", "onnxruntime"))),
    reason="needs onnx, paddle2onnx and onnxruntime: see tools/README.md",
)
FORMS = ["paddle", pytest.param("onnx", marks=needs_onnx)]


def save_untrained(path, classes, photos):
    """Save untrained weights of the recipe palm for these classes, which predict several of them for these photos."""
    device.set_seed(0)
    model = build_model("palm", SIZE, len(classes))
    model.fc.weight.set_value(model.fc.weight * 100)
    logits = logits_of(model, np.stack([transform_img(read_image(path), SIZE) for path in photos]))
    model.fc.bias.set_value(-logits.mean(axis=0))
    save(path, model, metadata={"model": "palm", "input": {**INPUT_SPEC, "size": SIZE}, "classes": classes})
    return path.with_suffix(".pdparams")


def logits_of(model, imgs):
    model.eval()
    return model(device.paddle.to_tensor(imgs)).numpy()


@pytest.fixture(scope="module")
def three(photos, tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("three") / "best", THREE, photos)


@pytest.fixture(scope="module")
def two(photos, tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("two") / "best", TWO, photos)


@pytest.fixture(scope="module")
def folders(small_demo, tmp_path_factory):
    """A data set of the three classes: one training image and two validation images of each."""
    root, images = tmp_path_factory.mktemp("data"), sorted(small_demo.glob("PALM-Training400/*/*.jpg"))
    for number, name in enumerate(THREE):
        for folder, image in zip(("train", "val", "val"), images[number::3]):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, root / folder / name)
    return root


@pytest.fixture(scope="module")
def photos(folders):
    return find_images([folders / "val" / name for name in THREE])


def table(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


# Rows


def test_csv_has_a_column_for_each_class(tool_here, three, photos):
    rows = table(tool_here("predict", "--weights", three, *photos))
    expected = list(predict_images(load_model(three)[0], photos))
    assert list(rows[0]) == ["imgName", "predicted", *THREE, "error", "note"]
    assert [row["imgName"] for row in rows] == [path.name for path in photos]
    assert len({row["predicted"] for row in rows}) > 1
    for row, prediction in zip(rows, expected):
        values = [float(row[name]) for name in THREE]
        assert tuple(values) == prediction.probabilities
        assert sum(values) == pytest.approx(1, abs=1e-12)
        assert row["predicted"] == THREE[np.argmax(values)] == THREE[prediction.label]
        assert prediction.probability == max(values)
        assert (row["error"], row["note"]) == ("", DISCLAIMER)


def test_json_lines_have_the_probabilities_by_name(tool_here, three, photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    output = tmp_path / "out.jsonl"
    done = tool_here("predict", "--weights", three, photos[0], tmp_path / "bad.jpg", "--output", output)
    assert done.returncode == 1
    good, bad = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    (expected,) = predict_images(load_model(three)[0], photos[:1])
    assert good == {
        "imgName": photos[0].name,
        "predicted": THREE[expected.label],
        "probabilities": dict(zip(THREE, expected.probabilities)),
        "note": DISCLAIMER,
    }
    assert (bad["predicted"], bad["probabilities"]) == (None, dict.fromkeys(THREE))
    assert "(it is empty)" in bad["error"]


def test_a_row_of_csv_after_an_error_has_as_many_columns(tmp_path):
    with row_writer(tmp_path / "a.csv", "note", THREE) as write_row:
        write_row("a.jpg", Prediction(None, error="no image"))
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[1] == "a.jpg,,,,,no image,note"


def test_predictions_are_those_of_the_evaluation(three, folders, photos):
    result = assess(three, data=folders, cache=False)
    found = list(predict_images(load_model(three)[0], photos))
    assert result.predictions.names == [f"{path.parent.name}/{path.name}" for path in photos]
    assert [list(row.probabilities) for row in found] == class_probabilities(result.predictions.logits).tolist()
    labels = result.predictions.labels.flatten()
    assert np.mean([row.label for row in found] == labels) == result.metrics["accuracy"]["value"]


def test_eight_views_are_averaged(three, photos):
    model, _ = load_model(three)
    img = transform_img(read_image(photos[0]), SIZE)
    views = [np.ascontiguousarray(np.rot90(view, k, (1, 2))) for k in range(4) for view in (img, img[:, :, ::-1])]
    alone = np.mean([class_probabilities(logits_of(model, view[None]))[0] for view in views], axis=0)
    (found,) = predict_images(model, photos[:1], views=8)
    assert found.probabilities == pytest.approx(alone, abs=1e-5)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-12)


def test_a_logit_that_is_not_finite_is_an_error():
    assert np.isnan(probabilities(np.array([[0, np.inf, 0], [0, -np.inf, 0]], "float32"))).all()
    assert probabilities(np.zeros((1, 4), "float32")) == [[0.25] * 4]


def test_two_named_classes(tool_here, two, photos):
    expected = list(predict_images(load_model(two)[0], photos))
    threshold = sorted(row.probability for row in expected)[2]
    rows = table(tool_here("predict", "--weights", two, *photos, "--threshold", threshold))
    assert list(rows[0]) == ["imgName", "predicted", *TWO, "error", "note"]
    assert [float(row["bad"]) for row in rows] == [row.probability for row in expected]
    assert [float(row["good, or so"]) for row in rows] == [1 - row.probability for row in expected]
    assert [row["predicted"] for row in rows] == [TWO[row.probability > threshold] for row in expected]


@pytest.mark.parametrize("metadata", [{}, {"classes": None}, {"classes": CLASSES}])
def test_the_classes_of_the_lesson(metadata):
    assert find_classes("a.pdparams", metadata) == CLASSES


def test_names_that_no_classes_have_are_refused():
    with pytest.raises(InputError, match=r"a\.pdparams: 'error' cannot be the name of a class"):
        find_classes("a.pdparams", {"classes": ["a", "error", "b"]})


# Heat maps


def test_heat_maps_of_the_predicted_class_or_another(tool_here, three, photos, tmp_path):
    model, _ = load_model(three)
    (prediction,) = predict_images(model, photos[:1])
    name, photo = THREE[(prediction.label + 1) % 3], read_image(photos[0])
    for folder, args, label in (
        ("own", (), prediction.label),
        ("other", ("--cam-class", name), THREE.index(name)),
    ):
        table(tool_here("predict", "--weights", three, photos[0], "--cam", tmp_path / folder, *args))
        drawn = cv2.imdecode(np.fromfile(tmp_path / folder / f"{photos[0].stem}.cam.jpg", "uint8"), cv2.IMREAD_COLOR)
        errors = [
            np.abs(overlay(photo, grad_cam(model, transform_img(photo, SIZE), label=k)).astype(int) - drawn).mean()
            for k in range(3)
        ]
        assert np.argmin(errors) == label
        assert errors[label] < 5  # what JPEG leaves of it


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--cam", "cam", "--cam-class", "病理性近视"),
            "--cam-class 病理性近视: none of the classes 正常, 高度近视, 病理性 近视; did you mean",
        ),
        (("--cam-class", THREE[0]), "--cam-class NAME goes with --cam DIR"),
        (("--threshold", 0.3), "a threshold separates two classes; this network has 3 and predicts the most"),
    ],
)
def test_what_does_not_fit_three_classes(tool_here, three, photos, tmp_path, args, message):
    done = tool_here("predict", "--weights", three, photos[0], "--output", "a.csv", *args, cwd=tmp_path)
    assert_refused(done, message)
    assert not list(tmp_path.iterdir())


def test_a_threshold_for_three_classes_is_refused_in_python_too(three, photos):
    with pytest.raises(InputError, match="a threshold separates two classes"):
        next(predict_images(load_model(three)[0], photos, threshold=0.3))


# Exports


@pytest.mark.parametrize("form", FORMS)
def test_an_export_predicts_the_same_classes(tool_here, three, photos, form, tmp_path):
    path = export_network(three, form, output=tmp_path / ("导出.onnx" if form == "onnx" else "导出")).path
    network, metadata = load_model(path)
    assert metadata["classes"] == THREE
    assert metadata["output"] == (
        "Logits, float32 [N, 3]: their softmax gives the probabilities of the classes, in this order: "
        "正常, 高度近视, 病理性 近视."
    )
    assert metadata["note"] == DISCLAIMER
    rows = table(tool_here("predict", "--weights", path, *photos))
    for row, expected in zip(rows, predict_images(load_model(three)[0], photos)):
        assert row["predicted"] == THREE[expected.label]
        assert [float(row[name]) for name in THREE] == pytest.approx(expected.probabilities, abs=5e-5)


@pytest.mark.slow
def test_an_export_of_two_named_classes(two, photos, tmp_path):
    path = export_network(two, "paddle", output=tmp_path / "a").path
    network, metadata = load_model(path)
    assert "is the probability of class 1, bad; label 1 is above 0.5" in metadata["output"]
    found, expected = (list(predict_images(model, photos)) for model in (network, load_model(two)[0]))
    assert [row.label for row in found] == [row.label for row in expected]

    about = json.loads((path / "about.json").read_text(encoding="utf-8"))
    (path / "about.json").write_text(json.dumps({**about, "classes": THREE}), encoding="utf-8")
    with pytest.raises(InputError, match=r"a: gives \(1, 1\) for 1 images; expected 3 logits for each$"):
        load_model(path)
