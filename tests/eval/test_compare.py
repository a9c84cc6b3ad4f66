"""Runs beside each other. Most runs here are made up: a settings.json, a log.csv, a predictions.csv."""

import csv
import json

import cv2
import numpy as np
import pytest
from helpers.processes import assert_refused
from helpers.runs import made_up_run

from palm_cls.core.errors import InputError
from palm_cls.eval import compare, compare_figure
from palm_cls.eval.compare import compare_predictions, comparison_table, find_runs, format_spread
from palm_cls.eval.compare_figure import plot_curves, write_figure

ACCURACIES = {0: [0.5, 0.9, 0.7], 1: [0.6, 0.7, 0.8]}


def made_up_seeds(directory, accuracies, seeds, epochs=3, **settings):
    """A directory of runs, {seed: accuracies}, that should become those of all `seeds`."""
    directory.mkdir()
    (directory / "seeds.json").write_text(json.dumps({"seeds": seeds, "epochs": epochs, "versions": {}}))
    for seed, values in accuracies.items():
        made_up_run(directory / f"seed-{seed}", values, seed=seed, **{"epochs": epochs, **settings})
    return directory


def write_predictions(run, rows):
    """rows: [(name, label, logit), ...]"""
    with (run / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["imgName", "Label", "logit", "probability", "predicted"])
        writer.writerows([name, label, logit, 1 / (1 + np.exp(-logit)), int(logit > 0)] for name, label, logit in rows)


def words(text):
    return [line.split() for line in text.splitlines()]


def test_the_table_has_last_and_best_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_up_run(tmp_path / "a", ACCURACIES[0])
    made_up_run(tmp_path / "b", [0.75, 0.75], model="alexnet", seed=7, demo=True)
    runs, missing = find_runs(["a", "b", "a/"])  # each once
    assert missing == {}
    lines = words(comparison_table(runs))
    assert lines[1:3] == [
        ["a", "lenet", "0", "3", "0.7000", "0.3000", "0.9000", "0.1000"],
        ["b", "alexnet", "7", "2", "0.7500", "0.2500", "0.7500", "0.2500"],
    ]
    assert "optimistic:" in lines[3]
    assert "tells nothing about eyes" in " ".join(lines[4])
    assert len(lines) == 5


def test_several_seeds_stand_for_their_runs(tmp_path):
    whole = made_up_seeds(tmp_path / "whole", ACCURACIES, [0, 1])
    partly = made_up_seeds(tmp_path / "partly", {**ACCURACIES, 2: [0.1], 3: []}, [0, 1, 2, 3, 4, 5])
    runs, missing = find_runs([whole, partly])
    assert missing == {str(partly): [4, 5]}
    assert [run.path.name for run in runs] == ["seed-0", "seed-1", "seed-0", "seed-1", "seed-2", "seed-3"]
    text = comparison_table(runs)
    assert words(text)[6][2:] == ["3", "0", "-", "-", "-", "-"]
    last = "    last epoch: mean 0.7500, standard deviation 0.0707, range 0.7000 to 0.8000\n"
    best = "chosen on these very images): mean 0.8500, standard deviation 0.0707, range 0.8000 to 0.9000\n"
    for directory in (whole, partly):  # the unfinished are left out
        assert f"\n{directory}, 2 seeds with all epochs, validation accuracy:\n{last}" in text
    assert text.count(best) == 2
    assert text.splitlines()[-1] == f"Not finished: {partly / 'seed-2'}, {partly / 'seed-3'}."


def test_the_spread_of_one_run():
    assert "mean 0.5000, standard deviation undefined (one run), range" in format_spread([[{"valid_accuracy": 0.5}]])


def test_other_validation_images_are_reported(tmp_path):
    first = made_up_run(tmp_path / "a", [0.5])
    second = made_up_run(tmp_path / "b", [0.5], valid_sha256="other")
    assert "NOT on the same validation images" in comparison_table(find_runs([first, second])[0])
    assert "NOT" not in comparison_table(find_runs([first])[0])


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("empty", "file", "nowhere"):
        with pytest.raises(InputError, match=f"{name}: no run there"):
            find_runs([made_up_run(tmp_path / f"beside {name}", [0.5]), tmp_path / name])
    begun = made_up_run(tmp_path / "begun", [])
    with pytest.raises(InputError, match="no epoch finished yet"):
        find_runs([begun])
    for number, content in enumerate(["epoch,valid_loss\n0,1\n", "epoch\n", "\0", b"\xff"]):
        damaged = made_up_run(tmp_path / f"damaged {number}", [0.5])
        log = (damaged / "log.csv").read_text().splitlines()[0] + "\n0,0.1,nan,0,0,0,1\n" if not number else content
        (damaged / "log.csv").write_bytes(log if isinstance(log, bytes) else log.encode())
        with pytest.raises(InputError, match=r"not the log of a run|damaged|no epoch finished"):
            find_runs([damaged])


@pytest.fixture
def two(tmp_path):
    """Two runs, the first right on 3 of 4 images and ranking without a fault, the second on 2: list of Run."""
    first = made_up_run(tmp_path / "first", [0.75])
    second = made_up_run(tmp_path / "second", [0.5])
    write_predictions(first, [("a", 1, 2.0), ("b", 1, 1.0), ("c", 0, 0.5), ("d", 0, -1.0)])
    write_predictions(second, [("d", 0, 1.5), ("c", 0, -2.0), ("b", 1, -1.0), ("a", 1, 1.0)])  # in another order
    return find_runs([first, second])[0]


def test_two_runs_on_the_same_images(two):
    """McNemar: right are a, b, d and a, c; p of 2 against 1 is 1. AUC: 4 of 4 pairs and 2 of 4."""
    first, second = two
    lines = compare_predictions(first, second).splitlines()
    assert lines[0].startswith("The two runs on the same 4 images")
    assert lines[1].endswith(f"only {first.path} is right on 2, only {second.path} on 1: p = 1")
    assert lines[2].startswith(f"    AUC of {first.path} minus AUC of {second.path}: +0.5000 (95% interval ")
    assert len(lines) == 3
    back = compare_predictions(second, first).splitlines()
    assert back[1].endswith(f"only {second.path} is right on 1, only {first.path} on 2: p = 1")
    assert ": -0.5000 (" in back[2]


def test_the_numbers_come_from_the_right_columns(two, monkeypatch):
    seen = []
    monkeypatch.setattr(compare, "mcnemar", lambda *args: seen.extend(args) or comparison_of_nothing)
    comparison_of_nothing = {"only_first_right": 0, "only_second_right": 0, "p": 1.0}
    monkeypatch.setattr(compare, "paired_auc_difference", lambda *args: seen.extend(args))
    assert "undefined" in compare_predictions(*two)
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [2, 1, 0.5, -1], [1, -1, -2, 1.5]]
    assert [array.tolist() for array in seen] == expected


def made_up_classes(directory, predicted, classes):
    """A run of three classes or more, {image: (label, predicted class)}; its predictions have no logits."""
    accuracy = sum(label == answer for label, answer in predicted.values()) / len(predicted)
    run = made_up_run(directory, [accuracy], classes=classes)
    rows = [f"{name},{label},0.5,{answer}" for name, (label, answer) in predicted.items()]
    (run / "predictions.csv").write_text("\n".join(["imgName,Label,probability,predicted", *rows, ""]))
    return run


def test_three_classes_are_tested_without_an_auc(tmp_path):
    first = made_up_classes(tmp_path / "a", {"x": (0, 0), "y": (1, 1), "z": (2, 2), "w": (2, 1)}, ["k", "m", "重度"])
    second = made_up_classes(tmp_path / "b", {"w": (2, 2), "x": (0, 2), "y": (1, 0), "z": (2, 2)}, ["k", "m", "重度"])
    runs, _ = find_runs([first, second])
    lines = compare_predictions(*runs).splitlines()
    assert lines[1].endswith(f"only {first} is right on 2, only {second} on 1: p = 1")
    assert len(lines) == 2
    assert "NOT" not in comparison_table(runs)


def test_other_classes_are_reported_and_not_tested(two, tmp_path):
    first = made_up_classes(tmp_path / "a", {"a": (1, 1), "b": (1, 1), "c": (0, 0), "d": (0, 2)}, ["k", "m", "重度"])
    second = made_up_run(tmp_path / "b", [0.75], classes=["k", "m"])
    write_predictions(second, [("a", 1, 2.0), ("b", 1, 1.0), ("c", 0, 0.5), ("d", 0, -1.0)])
    runs, _ = find_runs([first, second])
    assert "NOT with the same classes: do not compare these numbers." in comparison_table(runs)
    assert compare_predictions(*runs) == (
        "The predictions of the two runs are not tested against each other: "
        f"the classes of {first} are k, m, 重度, those of {second} k, m."
    )
    assert "NOT" not in comparison_table([runs[0], two[0]])  # an old run, whose settings do not state them


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        ([("a", 1, 1), ("b", 1, 1), ("c", 0, 1)], "1 images are in {first} only (d is one)"),
        ([(name, int(name in "ab"), 1) for name in "abcdef"], "2 images are in {second} only (e is one)"),
        ([("a", 1, 1), ("b", 0, 1), ("c", 0, 1), ("d", 0, 1)], "1 images have another label in {second} (b is one)"),
    ],
)
def test_other_images_or_labels_are_not_tested(two, rows, difference):
    first, second = two
    write_predictions(second.path, rows)
    files = {"first": first.path / "predictions.csv", "second": second.path / "predictions.csv"}
    assert compare_predictions(first, second) == (
        f"The predictions of the two runs are not tested against each other: {difference.format(**files)}."
    )


def test_predictions_that_are_not_of_the_best_epoch_are_reported(two):
    first, second = two
    write_predictions(first.path, [("a", 1, 2.0), ("b", 1, 1.0), ("c", 0, 0.5), ("d", 0, 1.0)])
    lines = compare_predictions(first, second).splitlines()
    assert f"{first.path / 'predictions.csv'} has an accuracy of 0.5000, the best epoch of the run 0.7500" in lines[3]
    assert len(lines) == 4


@pytest.mark.parametrize(
    "content",
    [
        "",
        "imgName,Label,logit,predicted\n",
        "imgName,Label,logit\na,1,1\n",
        "imgName,Label,logit,predicted\na,1,nan,1\n",
        "imgName,Label,logit,predicted\na,1,1,1\na,1,1,1\n",
        "imgName,Label,logit,predicted\na,one,1,1\n",
        "imgName,Label,logit,predicted\na,1\n",
    ],
)
def test_damaged_predictions_are_named(two, content):
    file = two[0].path / "predictions.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=r"predictions\.csv.*evaluate the run again"):
        compare_predictions(*two)


def test_the_curves_are_the_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_up_seeds(tmp_path / "several", {**ACCURACIES, 2: []}, [0, 1, 2], demo=True)
    made_up_run(tmp_path / "_one $x$", [0.8, 0.2])
    figure = plot_curves(find_runs(["several", "_one $x$"])[0])
    drawn = {
        (kind, what): figure.axes[2 * row + column].lines
        for row, what in enumerate(("loss", "accuracy"))
        for column, kind in enumerate(("train", "valid"))
    }
    assert [line.get_ydata().tolist() for line in drawn["valid", "accuracy"]] == [*ACCURACIES.values(), [0.8, 0.2]]
    assert drawn["train", "accuracy"][2].get_ydata() == pytest.approx([0.7, 0.1])
    assert drawn["train", "loss"][2].get_ydata() == pytest.approx([0.3, 0.9])
    assert drawn["valid", "loss"][2].get_ydata() == pytest.approx([0.2, 0.8])
    assert drawn["valid", "loss"][2].get_xdata().tolist() == [0, 1]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["while training", "validation images"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "", "accuracy", ""]
    first, second, other = (line.get_color() for line in drawn["valid", "loss"])
    assert first == second != other
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["several (2 seeds)", r"./_one \$x\$"]
    assert [line.get_color() for line in legend.get_lines()] == [first, other]
    assert "tells nothing about eyes" in legend.get_title().get_text()


def test_one_large_loss_does_not_flatten_the_others(tmp_path):
    even = plot_curves(find_runs([made_up_run(tmp_path / "even", [0.5, 0.6])])[0])
    steep = plot_curves(
        find_runs([made_up_run(tmp_path / "steep", [-30, 0.6])])[0]
    )  # a loss of 31 after the first epoch
    assert [axis.get_yscale() for axis in even.axes] == ["linear"] * 4
    assert [axis.get_yscale() for axis in steep.axes] == ["log", "log", "linear", "linear"]
    assert steep.axes[0].get_ylabel() == "loss (logarithmic)"


def test_many_runs_look_different(tmp_path):
    paths = [made_up_run(tmp_path / f"run {number} {'long ' * 20}", [0.5, 0.6]) for number in range(12)]
    figure = plot_curves(find_runs(paths)[0])
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 12
    assert max(len(text.get_text()) for text in figure.legends[0].get_texts()) == compare_figure.NAME_LENGTH


def test_only_a_figure_of_ours_is_replaced(tmp_path, recwarn):
    figure = plot_curves(find_runs([made_up_run(tmp_path / "数据", [0.5, 0.6])])[0])
    path = write_figure(figure, tmp_path / "deep" / "figure.png")
    before = path.stat().st_ino
    assert min(cv2.imread(str(path)).shape[:2]) > 500
    write_figure(figure, path)
    assert path.stat().st_ino != before
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.png"]
    assert [warning for warning in recwarn if "Glyph" in str(warning.message)] == []

    (tmp_path / "directory.png").mkdir()
    (tmp_path / "text.png").write_text(compare_figure.MARK)
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((4, 4, 3), "uint8"))
    for name in ("directory", "text", "other"):
        with pytest.raises(InputError, match=rf"{name}\.png: exists, and is not a figure of compare\.py"):
            write_figure(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "text.png").read_text() == compare_figure.MARK
    with pytest.raises(InputError, match=r"not the name of a \.png"):
        write_figure(figure, tmp_path / "figure.jpg")


@pytest.mark.slow
def test_the_tool(tool, two, tmp_path):
    for name in ("paddle", "cv2", "pandas"):  # none of which is needed
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')")
    first, second = (run.path for run in two)
    environment = {"MPLBACKEND": "module://nothing", "PYTHONPATH": str(tmp_path)}
    done = tool("compare", "first", "second", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1].split()[0] == "first"
    assert "McNemar's test: only first is right on 2, only second on 1: p = 1" in done.stdout
    assert lines[-1].startswith("figure: output")
    assert (tmp_path / "output" / "compare.png").is_file()

    (second / "predictions.csv").unlink()
    done = tool("compare", first, second, "--output", tmp_path / "own.png")
    assert done.returncode == 0
    assert f"evaluate.py --weights {second}" in done.stdout
    assert f"evaluate.py --weights {first}" not in done.stdout
    assert "McNemar" not in done.stdout
    partly = made_up_seeds(tmp_path / "partly", ACCURACIES, [0, 1, 2])
    done = tool("compare", first, partly, "--output", tmp_path / "own.png")
    assert "McNemar" not in done.stdout
    assert "evaluate.py" not in done.stdout  # three runs
    assert f"train.py --resume {partly}" in done.stdout


def test_the_tool_refuses_in_a_line(tool_here, two, tmp_path):
    assert_refused(tool_here("compare"), "RUN")
    assert_refused(tool_here("compare", tmp_path / "nowhere"), "nowhere: no run there")
    (tmp_path / "mine.png").write_text("mine")
    assert_refused(tool_here("compare", two[0].path, "--output", tmp_path / "mine.png"), "not a figure of compare.py")
    assert (tmp_path / "mine.png").read_text() == "mine"
