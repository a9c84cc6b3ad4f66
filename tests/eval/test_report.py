"""The report of a run, as a file; test_report_in_browser.py looks at it in a browser."""

import io
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.page import Page
from helpers.processes import assert_refused
from helpers.runs import made_up_run

from palm_cls.checkpoints.run_files import read_settings
from palm_cls.checkpoints.weights import save
from palm_cls.core.console import DISCLAIMER
from palm_cls.core.device import set_seed
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import palm_loaders
from palm_cls.data.loaders import ImageLoader
from palm_cls.data.palm import find_dataset
from palm_cls.eval import plots, report
from palm_cls.eval.evaluate import predict_all
from palm_cls.eval.report import is_current, report_run, write_report
from palm_cls.models.lenet import LeNet
from palm_cls.recipes import build_model
from palm_cls.training.experiment import resume_recipe, train_recipe
from palm_cls.training.multi_seed import train_seeds

BINARY = ["accuracy", "calibration", "confusion", "loss", "precision_recall", "roc"]
LOADING = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}  # attributes


@pytest.fixture(scope="module")
def trained(tool, small_demo, tmp_path_factory):
    """The lesson's command in an empty directory: (CompletedProcess, directory of the run)."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = tool("train", "--model", "palm", "--data", small_demo, "--epochs", 2, cwd=cwd, report=True)
    assert done.returncode == 0, done.stderr
    return done, cwd / "output" / "palm"


def test_every_run_ends_with_its_report(trained):
    done, run = trained
    path = Path("output", "palm", "report.html")
    assert f"Its report, for a browser: {path}" in done.stdout
    page = Page(run / "report.html")
    measures = json.loads((run / "evaluation.json").read_text())["measures"]
    assert f"{measures['auc']['value']:.4f} {measures['auc']['low']:.3f} to {measures['auc']['high']:.3f}" in page.text
    assert f"measured with its weights on {measures['images']} of 10 validation images" in page.text
    assert "2 epochs of training, counted from 0; epoch" in page.text
    assert "an optimistic choice" in page.text
    assert "; tools/report.py writes it again." in page.text
    assert DISCLAIMER in page.text
    assert "Demo set: drawn images, tells nothing about eyes." in page.text
    assert sorted(file.stem for file in (run / "figures").iterdir()) == BINARY
    assert all(min(cv2.imread(str(file)).shape[:2]) > 300 for file in (run / "figures").iterdir())
    assert (run / "predictions.csv").is_file()


def test_it_needs_nothing_but_itself(trained):
    page = Page(trained[1] / "report.html")
    outside = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in LOADING and not value.startswith(("#", "data:"))
    ]
    assert outside == []
    assert re.findall(r"url\((?!#)|@import", page.source) == []
    assert page.all("script") == page.all("link") == []
    policy = next(tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_who_cannot_see_has_a_description(trained):
    page = Page(trained[1] / "report.html")
    drawings = page.all("svg")
    assert len(drawings) == len(BINARY)
    assert all(drawing["role"] == "img" and drawing["aria-label"].endswith(".") for drawing in drawings)
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers) > 100  # of six drawings in one page
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page.source))
    assert used <= set(identifiers)


def test_the_colours_are_those_of_the_page(trained):
    """Nothing in the drawings is black, which nobody would see on a dark page."""
    page = Page(trained[1] / "report.html")
    drawings = "".join(re.findall(r"<svg.*?</svg>", page.source, re.DOTALL))
    assert re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r'(href|url\()="?#[^")]+', "", drawings)) == []
    assert "var(--ink)" in drawings
    assert "var(--first)" in drawings


@pytest.fixture
def made_up(tmp_path, small_demo):
    """A function of a network and labels (10 numbers): the page of a made-up run with them on the demo's images."""
    images = find_dataset(small_demo).valid_images
    names = sorted(path.name for path in images.glob("*.jpg"))

    def make(network, labels, classes=None, accuracies=(0.5, 0.7), threshold=0.5, **settings):
        run = made_up_run(tmp_path / "run", accuracies, **({"classes": classes} if classes else {}), **settings)
        save(run / "best", network)
        samples = [(images / name, label) for name, label in zip(names, labels)]
        readers = [ImageLoader(images, samples, 5, mode, cache=False) for mode in ("train", "valid")]
        return Page(write_report(run, network, *readers, threshold))

    return make


def logits_of(model, small_demo):
    reader = palm_loaders(find_dataset(small_demo), 10, cache=False)[1]
    return predict_all(model, reader).logits.flatten()


@pytest.fixture
def network(small_demo):
    """An untrained network that calls half of the demo's images positive."""
    set_seed(1)
    model = build_model("palm", 224)
    middle = np.median(logits_of(model, small_demo))
    model.fc.bias.set_value(model.fc.bias - float(middle))
    return model


def test_the_most_confident_mistakes_come_first(made_up, network, small_demo, monkeypatch):
    logits = logits_of(network, small_demo)
    wrong = (logits <= 0).astype(int)
    right = 1 - wrong
    surest = np.argsort(-np.abs(logits))
    labels = right.copy()
    labels[surest[[1, 4, 6]]] = wrong[surest[[1, 4, 6]]]
    monkeypatch.setattr(report, "MAX_MISTAKES", 2)
    page = made_up(network, labels.tolist())
    assert "On 3 of 10 images. These are the 2 that it was most sure of" in page.text
    shown = re.findall(r"(V\d+\.jpg): labelled", page.text)
    assert shown == [f"V{surest[k] + 1:04d}.jpg" for k in (1, 4)]
    heat_maps = [image for image in page.all("img") if "heat map" in image["alt"]]
    assert len(heat_maps) == 2
    assert "Beside each stands the same with its heat map" in page.text


@pytest.mark.slow
def test_sure_of_an_answer_is_sure_at_its_threshold(made_up, network, small_demo):
    """What is most probably positive, called negative by a threshold above it, is the least sure of the mistakes."""
    logits = logits_of(network, small_demo)
    page = made_up(network, [1] * 10, threshold=0.999999)
    shown = re.findall(r"(V\d+\.jpg): labelled", page.text)
    assert shown == [f"V{k + 1:04d}.jpg" for k in np.argsort(logits)[: report.MAX_MISTAKES]]


@pytest.mark.slow
def test_one_epoch_and_several(made_up, network):
    page = made_up(network, [0, 1] * 5, accuracies=[0.5])
    assert "One epoch of training; everything below is measured with its weights on 10 of 10" in page.text
    assert "optimistic" not in page.text
    assert "An image counts as positive (pathological myopia) where" in page.text
    assert "; palm_cls.write_report writes it again." in page.text  # being no run of a recipe


def test_without_a_mistake(made_up, network, small_demo):
    labels = (logits_of(network, small_demo) > 0).astype(int).tolist()
    page = made_up(network, labels)
    assert "On none of these images." in page.text
    assert len(page.all("svg")) == len(BINARY)


@pytest.mark.slow
def test_with_one_class_only(made_up, network):
    page = made_up(network, [0] * 10)
    assert "neither a ROC nor a precision-recall curve" in page.text
    assert "AUC undefined" in page.text.replace("how often a positive image ranks above a negative one ", "")
    assert len(page.all("svg")) == len(BINARY) - 2


@pytest.mark.slow
def test_without_a_convolution_there_is_no_heat_map(made_up, network):
    page = made_up(build_model("tiny"), [1, 0] * 5)
    assert "labelled" in page.text
    assert "heat map" not in page.source


@pytest.mark.slow
def test_ten_classes(made_up):
    set_seed(0)
    classes = [f"<digit {number}>" for number in range(10)]
    page = made_up(LeNet(num_classes=10, activation="relu"), list(range(10)), classes)
    assert len(page.all("svg")) == 4  # loss, accuracy, reliability diagram, confusion matrix
    assert "<digit 7> " in page.text
    assert "class sensitivity specificity precision AUC F1 images" in page.text
    assert "ROC" not in page.text
    assert "positive" not in page.text


@pytest.mark.slow
def test_more_classes_than_the_readers_have_names(made_up):
    """The lesson's reader names two; a network of one's own with three shows their numbers."""
    set_seed(0)
    page = made_up(LeNet(num_classes=3, activation="relu"), [0, 1, 2, 2] * 2 + [0, 1])
    assert "class sensitivity specificity precision AUC F1 images 0 " in page.text
    assert "labelled 2, called" in page.text
    assert "pathological" not in page.text


def test_loaders_that_cannot_show_their_images_are_refused(tmp_path, network, small_demo):
    run = made_up_run(tmp_path / "run", [0.5])
    save(run / "best", network)
    loader = palm_loaders(find_dataset(small_demo), 10, cache=False)[1]
    with pytest.raises(InputError, match="a report shows images, and function, a loader, has no metadata, directory,"):
        write_report(run, network, loader, lambda: loader())
    assert not (run / "evaluation.json").exists()


def test_names_are_text(made_up, recwarn, network, small_demo):
    """Whatever a class or a model is called, it is no part of the page's markup."""
    evil = '<script>alert("1")</script>&amp;'
    page = made_up(network, [0, 1] * 5, [evil, "病理性近视"], model=evil)
    assert [warning for warning in recwarn if "Glyph" in str(warning.message)] == []
    assert page.all("script") == []
    assert f"{evil}: what the network learned" in page.text


@pytest.mark.parametrize("classes", [["x" * 200, "cost $5, $x_$"], [f"a long name of class {k}" for k in range(10)]])
def test_names_leave_room_for_the_matrix(classes):
    """However long they are; and no dollar begins a formula, which may be none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib only warns where nothing is left for the axes
        figure, _ = plots.confusion_matrix({"confusion": np.eye(len(classes), dtype="int64")}, classes)
        figure.savefig(io.BytesIO())
    assert figure.axes[0].get_position().width > 0.4


def test_a_name_is_cut_off_where_it_must_be():
    assert plots._shorten("no pathological myopia", lines=2) == "no pathological\nmyopia"
    assert plots._shorten("a very long name, of a class", lines=1) == "a very long ..."
    assert plots._shorten("T-shirt/top", lines=1) == "T-shirt/top"
    assert plots._shorten("$5", lines=1) == r"\$5"


@pytest.mark.parametrize(("epochs", "ticks", "marked"), [(1, [0], True), (2, [0, 1], True), (100, None, False)])
def test_curves_of_few_epochs_and_of_many(epochs, ticks, marked):
    log = [dict.fromkeys(("train_loss", "valid_loss"), 0.5 + epoch / 100) | {"epoch": epoch} for epoch in range(epochs)]
    figure, text = plots.loss_curve(log, best=0)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    shown = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert shown == (ticks or [int(tick) for tick in shown])
    assert bool(figure.axes[0].lines[0].get_markersize()) is marked
    assert f"over {epochs} epoch{'s' if epochs > 1 else ''}:" in text


@pytest.mark.slow
def test_the_examples_are_from_all_over_the_list(made_up, network):
    page = made_up(network, [0] * 7 + [1] * 3)
    shown = re.findall(r"(V\d+\.jpg): no pathological", page.text)
    assert shown == ["V0001.jpg", "V0003.jpg", "V0005.jpg"]


@pytest.mark.slow
def test_it_is_written_again_and_when_it_is_not(tmp_path, small_demo, monkeypatch):
    options = {"data": small_demo, "output": tmp_path / "run", "device": "cpu"}
    assert train_recipe("tiny", report=False, **options).report is None
    assert not is_current(tmp_path / "run", 1)
    path = resume_recipe(tmp_path / "run").report
    assert is_current(tmp_path / "run", 1)
    before = path.stat()
    assert resume_recipe(tmp_path / "run").report == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns  # finished before, and reported
    resume_recipe(tmp_path / "run", epochs=2)
    assert is_current(tmp_path / "run", 2)

    measured = json.loads((tmp_path / "run" / "evaluation.json").read_text())["measures"]
    report_run(tmp_path / "run", threshold=0.999999)
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())["measures"]
    assert (measured["threshold"], again["threshold"]) == (0.5, 0.999999)
    assert again["sensitivity"]["value"] == 0


def test_a_report_that_fails_costs_no_run(tmp_path, small_demo, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr(report, "_render", full)
    trained = train_recipe("tiny", data=small_demo, output=tmp_path / "run", device="cpu")
    assert trained.report is None
    assert len(trained.history) == 1
    message = capsys.readouterr().err
    assert f"The run in {tmp_path / 'run'} is finished, but its report could not be written" in message
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_without_jinja2_it_names_the_command_that_installs_it(made_up, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match="^jinja2 is not installed: python -m pip install jinja2$"):
        made_up(network, [0, 1] * 5)


@pytest.mark.slow
def test_each_run_of_several_seeds_has_its_own(tmp_path, small_demo):
    train_seeds("tiny", [0, 3], data=small_demo, output=tmp_path / "runs", device="cpu")
    pages = [Page(tmp_path / "runs" / f"seed-{seed}" / "report.html").text for seed in (0, 3)]
    assert [re.search(r"seed (\d)", page)[1] for page in pages] == ["0", "3"]


def test_what_is_no_run_is_refused(trained, tmp_path, small_demo):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no weights there; expected a run directory"):
        report_run(tmp_path / "empty")
    with pytest.raises(InputError, match="no such directory; expected that of a run"):
        report_run(tmp_path / "nowhere")
    _, run = trained
    shutil.copytree(run, tmp_path / "from-python")
    settings = read_settings(run)
    del settings["model"]
    (tmp_path / "from-python" / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"no run of a recipe; .* takes palm_cls\.write_report"):
        report_run(tmp_path / "from-python")
    begun = made_up_run(tmp_path / "begun", [], data=str(small_demo), batch_size=10)
    with pytest.raises(InputError, match="begun"):
        report_run(begun)


@pytest.mark.slow
def test_the_tool(tool, tool_here, trained, tmp_path, small_demo):
    run = shutil.copytree(trained[1], tmp_path / "run")
    (run / "report.html").unlink()
    done = tool("report", run, "--threshold", 0.25)
    assert (done.returncode, done.stdout) == (0, f"written: {run / 'report.html'}\n")
    assert "probability is above 0.25" in Page(run / "report.html").text
    assert_refused(tool_here("report", tmp_path / "nowhere"), "no such directory; expected that of a run")
    assert_refused(tool_here("report", run, "--data", tmp_path / "nowhere"), "nowhere")


def test_a_report_of_other_images_is_refused(trained, small_demo, tmp_path):
    """They would stand there as those that the run was trained on."""
    before = (trained[1] / "report.html").read_bytes()
    other = shutil.copytree(small_demo, tmp_path / "other")
    images = find_dataset(other).valid_images
    shutil.copy(images / "V0001.jpg", images / "V0002.jpg")
    with pytest.raises(InputError, match="its run began with other validation images or labels than .*other"):
        report_run(trained[1], data=other)
    assert (trained[1] / "report.html").read_bytes() == before
