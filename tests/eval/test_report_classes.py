"""The report of a run with named classes: three in Chinese, two other than the lesson's, more than it shows."""

import io
import json
import re
import warnings

import matplotlib
import numpy as np
import pytest
from helpers.page import Page
from helpers.processes import assert_refused
from helpers.runs import made_up_run
from sklearn.metrics import auc

from palm_cls.checkpoints.weights import save
from palm_cls.core import figures
from palm_cls.core.device import set_seed
from palm_cls.data.demo_set import write_demo_set
from palm_cls.data.loaders import ImageLoader
from palm_cls.data.palm import find_dataset
from palm_cls.eval import plots, report
from palm_cls.eval.assess import detailed_metrics
from palm_cls.eval.evaluate import Predictions
from palm_cls.eval.multiclass_metrics import class_probabilities, multiclass_metrics
from palm_cls.eval.report import write_report
from palm_cls.recipes import build_model
from palm_cls.training.experiment import train_recipe

NAMES = {"normal": "正常", "high_myopia": "高度近视", "pathological": "病理性近视"}
CLASSES = sorted(NAMES.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on three classes with Chinese names, 15 training and 15 validation images; it has its report."""
    root = tmp_path_factory.mktemp("three")
    write_demo_set(root / "data", train=15, valid=15, layout="folders")
    for split in ("train", "val"):
        for name, chinese in NAMES.items():
            (root / "data" / split / name).rename(root / "data" / split / chinese)
    train_recipe("palm", data=root / "data", epochs=1, output=root / "run", device="cpu")
    return root / "run"


@pytest.fixture
def made_up(tmp_path, small_demo):
    """A function of classes and the labels of the demo's images: the page of a made-up run, and its metrics."""
    images = find_dataset(small_demo).valid_images

    def make(classes, labels):
        set_seed(0)
        network = build_model("palm", 224, len(classes))
        run = made_up_run(tmp_path / "run", [0.5, 0.7], classes=classes)
        save(run / "best", network)
        samples = list(zip(sorted(images.glob("*.jpg")), labels))
        loaders = [ImageLoader(images, samples, 5, mode, cache=False) for mode in ("train", "valid")]
        page = Page(write_report(run, network, *loaders))
        return page, json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["measures"]

    return make


def in_the_table(metric):
    return "undefined" if metric is None else "{value:.3f} {low:.3f} to {high:.3f}".format(**metric)


def test_three_classes_with_chinese_names(run):
    page = Page(run / "report.html")
    measures = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["measures"]
    assert sorted(file.stem for file in (run / "figures").iterdir()) == [
        *("accuracy", "calibration", "confusion", "loss", "roc")
    ]
    assert f"AUC, mean over the classes {in_the_table(measures['auc'])} Below each number" in page.text
    assert f"all classes; 0 is best, 2 worst {measures['brier']:.4f}" in page.text
    assert "class sensitivity specificity precision AUC F1 images" in page.text
    for name, row in zip(CLASSES, measures["classes"]):
        shares = " ".join(in_the_table(row[key]) for key in ("sensitivity", "specificity", "precision", "auc"))
        assert f"{name} {shares} {row['f1']:.3f} {row['support']}" in page.text
        assert page.source.count(f">{name}</text>") == 3  # in the legend, and twice beside the matrix
    assert "Of the answers given with 80%, are 80% right?" in page.text
    assert "images training validation 正常 6 6 病理性近视 8 8 高度近视 1 1 together 15 15 Some" in page.text
    assert "positive" not in page.text
    assert "not a medical device" in page.text


def test_the_mistakes_of_three_classes(run):
    page = Page(run / "report.html")
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["images"]
    wrong = sorted((row for row in rows if row["Label"] != row["predicted"]), key=lambda row: -row["probability"])
    assert wrong
    for row in wrong[: report.MAX_MISTAKES]:
        label, answer = CLASSES[row["Label"]], CLASSES[row["predicted"]]
        assert (
            f"{row['imgName']}: labelled {label}, called {answer}; probability {row['probability']:.4f}." in page.text
        )
    heat_maps = [image["alt"] for image in page.all("img") if "heat map" in image["alt"]]
    assert heat_maps == [
        f"The same with the heat map of the answer {CLASSES[row['predicted']]}." for row in wrong[: len(heat_maps)]
    ]
    assert len(heat_maps) == min(len(wrong), report.MAX_MISTAKES)


@pytest.mark.slow
def test_the_tool(run, tool_here):
    (run / "report.html").unlink()
    done = tool_here("report", run)
    assert (done.returncode, done.stdout) == (0, f"written: {run / 'report.html'}\n"), done.stderr
    assert "正常" in Page(run / "report.html").text
    assert_refused(tool_here("report", run, "--threshold", 0.3), "a threshold separates two classes")


@pytest.mark.slow
def test_two_named_classes(made_up):
    page, _ = made_up(["正常", "病理性近视"], [0, 1] * 5)
    assert "An image is called 病理性近视 where its probability is above 0.5, else 正常." in page.text
    assert "sensitivity of the images of 病理性近视, those called so" in page.text
    assert "Of the images called 病理性近视 with 80%, are 80% so?" in page.text
    assert re.search(r"called (正常|病理性近视); probability 0\.\d{4} of being 病理性近视\.", page.text)
    assert ">share of 病理性近视</text>" in page.source
    assert "positive" not in page.source.replace("positive predictive value", "")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [["no pathological myopia", "pathological myopia"], ["0", "1"]])
def test_the_lessons_classes_and_numbers_are_called_positive(made_up, classes):
    page, _ = made_up(classes, [0, 1] * 5)
    for words in (
        f"An image counts as positive ({classes[1]}) where its probability is above 0.5.",
        "how often a positive image ranks above a negative one",
        "Of the images called positive with 80%, are 80% positive?",
        "of being positive.",
        "How many alarms are right (precision), against how many of the positives are found (recall).",
    ):
        assert words in page.text


@pytest.mark.slow
def test_more_classes_than_it_shows(made_up):
    classes = [f"class {letter}" for letter in "abcdefghijkl"]
    page, measures = made_up(classes, [0, 1, 2, 3, 4, 5, 6, 7, 10, 11])
    assert measures["auc"] is None
    assert "AUC, mean over the classes how often an image of a class ranks above one of another undefined" in page.text
    assert "The first 10 of 12 classes; the last row counts all." in page.text
    assert "class j 0 0 together 10 10" in page.text
    assert "V0008.jpg: class h" in page.text
    assert "V0009.jpg: class k" not in page.text.partition("Some training images")[2]
    assert len(page.all("svg")) == 4  # of twelve classes there are no ROC curves
    assert "ROC" not in page.text


def test_folders_are_no_letters():
    """The photographs of the class "Healthy" are not of highly myopic eyes, as the course's H0001.jpg is."""
    labels, logits = np.array([[0.0], [1.0]]), np.array([[-1.0], [1.0]], "float32")
    predictions = Predictions(["Healthy/1.jpg", "Myopia/1.jpg"], labels, logits)
    assert "negatives" not in detailed_metrics(predictions, classes=["Healthy", "Myopia"])
    assert detailed_metrics(predictions)["negatives"]["H"]["value"] == 1


def test_roc_curves_of_classes():
    labels = np.array([0, 0, 1, 1, 3])
    logits = np.random.default_rng(0).normal(size=(5, 4))
    names = ["_a", "正常", "nowhere", "$d"]
    metrics = multiclass_metrics(labels, logits, names)
    figure, text = plots.class_roc_curves(labels, class_probabilities(logits), metrics, names)
    (axis,) = figure.axes
    shown = [entry.get_text() for entry in axis.get_legend().get_texts()]
    assert shown == ["by chance", " _a", "正常", r"\$d"]
    assert text.count(",") == 2
    for line, number in zip(axis.lines[1:], (0, 1, 3)):
        false_positive_rate, true_positive_rate = line.get_data()
        area = auc(false_positive_rate, true_positive_rate)
        np.testing.assert_allclose(area, metrics["classes"][number]["auc"]["value"], atol=1e-12)


def test_a_matrix_of_many_classes_has_no_numbers_but_names():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, text = plots.confusion_matrix(
            {"confusion": np.eye(100, dtype="int64")}, [f"class {k}" for k in range(100)]
        )
        figure.savefig(io.BytesIO())
    (axis,) = figure.axes
    assert len(axis.texts) == 0
    assert [label.get_text() for label in axis.get_yticklabels()][:3] == ["class 0", "class 4", "class 8"]
    assert len(axis.collections) == 100  # cells that hold images
    assert text.startswith("The confusion matrix: 100 of 100 images")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("病理性近视", "病理性近视"),
        ("非增殖性糖尿病视网膜病变", "非增殖性糖尿..."),
        ("x" * 19, "x" * 15 + "..."),
        ("", ""),
    ],
)
def test_a_name_without_spaces_is_cut_within(name, short):
    assert plots._shorten(name, lines=1) == short


def test_an_installed_font_lends_its_letters(monkeypatch):
    """Of those that a machine may have, the first; none, and nothing changes."""
    with matplotlib.rc_context({"font.family": ["sans-serif"]}):
        monkeypatch.setattr(figures, "CJK_FONTS", ("none such", "STIXGeneral", "DejaVu Serif"))
        for _ in range(2):
            assert figures.import_matplotlib().rcParams["font.family"] == ["sans-serif", "STIXGeneral"]
    with matplotlib.rc_context({"font.family": ["sans-serif"]}):
        monkeypatch.setattr(figures, "CJK_FONTS", ("none such",))
        assert figures.import_matplotlib().rcParams["font.family"] == ["sans-serif"]
