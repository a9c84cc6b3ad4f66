"""Runs beside each other: a table, their curves, and the tests of two of them on the same images.

    runs, missing = find_runs(["output/lenet-relu", "output/alexnet"])
    print(format_table(runs))
    write_figure(curves(runs), "output/compare.png")

A directory of runs with several seeds (see `palm_cls.training.multi_seed`) stands for its runs. Imports neither paddle
nor cv2.
"""

import csv
import math
import os
from collections import namedtuple
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_files import (
    PREDICTIONS,
    SETTINGS,
    best_record,
    read_log,
    read_seeds,
    read_settings,
    seed_directory,
)
from palm_cls.core.errors import InputError
from palm_cls.core.figures import drawable, import_matplotlib, write_png
from palm_cls.data.palm import DEMO_DISCLAIMER
from palm_cls.eval.metrics import mcnemar, mean_and_range, paired_auc_difference

PREDICTED = ("imgName", "Label", "predicted")  # its columns that are read here, and "logit" where there is one class
HEADER = ("run", "model", "seed", "epochs", "last accuracy", "loss", "best accuracy", "loss")
OPTIMISTIC = "The best epoch is optimistic: it is chosen on the very images that it is measured on."

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which the colour-blind tell apart; without yellow, too pale for a
# line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
STYLES = ("-", "--", ":")  # one after the other, when the colours are used up
PANELS = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
PNG = b"\x89PNG\r\n\x1a\n"
MARK = "palm_cls: runs compared"  # the title in the PNG, by which a figure of ours is recognised
NAME_LENGTH = 60  # of a run in the figure

# path: Path of the run's directory; group: str, the directory that was asked for: the run's own, or that of several
# seeds it is in; planned: epochs it should have in the end, or None; settings, log: as in
# `palm_cls.checkpoints.run_files`
Run = namedtuple("Run", ("path", "group", "planned", "settings", "log"))


def find_runs(paths):
    """The runs in these directories, each once and in this order; one with several seeds stands for its runs.

    Returns (list of Run, {directory: its seeds that are not begun yet}). Raises InputError where there is no run, or
    none with a finished epoch.
    """
    runs, missing = {}, {}
    for path in map(Path, paths):
        content = read_seeds(path) if path.is_dir() else {}
        directories = {seed: seed_directory(path, seed) for seed in content.get("seeds", [])} or {None: path}
        for seed, directory in directories.items():
            settings = read_settings(directory) if directory.is_dir() else {}
            if not settings and seed is None:
                raise InputError(f"{path}: no run there (no directory with {SETTINGS} in it)")
            if not settings:
                missing.setdefault(str(path), []).append(seed)
                continue
            planned = content.get("epochs", settings.get("epochs"))
            run = Run(directory, str(path), planned, settings, read_log(directory))
            runs.setdefault(os.path.realpath(directory), run)
    if not any(run.log for run in runs.values()):
        raise InputError(f"{', '.join(map(str, paths))}: no epoch finished yet, so there is nothing to compare")
    return list(runs.values()), missing


def format_table(runs):
    """The runs' accuracy and loss on the validation images, last and best epoch, as an aligned table; then remarks."""
    rows = [HEADER, *(_row(run) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [_aligned(row, widths) for row in rows]
    for group in dict.fromkeys(run.group for run in runs if str(run.path) != run.group):
        whole = [run.log for run in runs if run.group == group and len(run.log) == run.planned]
        if whole:
            seeds = "seed" if len(whole) == 1 else "seeds"
            lines += [f"{group}, {len(whole)} {seeds} with all epochs, validation accuracy:", format_spread(whole)]
    return "\n".join(lines + _remarks(runs))


def _row(run):
    about = str(run.path), str(run.settings.get("model", "-")), str(run.settings.get("seed", "-")), str(len(run.log))
    if not run.log:
        return (*about, "-", "-", "-", "-")
    values = [record[key] for record in (run.log[-1], best_record(run.log)) for key in ("valid_accuracy", "valid_loss")]
    return (*about, *(f"{value:.4f}" for value in values))


def _aligned(row, widths):
    """Names to the left, numbers to the right."""
    cells = [f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}" for i, (cell, width) in enumerate(zip(row, widths))]
    return "  ".join(cells)


def format_spread(histories):
    """Mean, standard deviation and range of the validation accuracy over several runs, in lines.

    histories: lists of epochs, as `train` returns or `read_log` reads them. The last epoch of each, and its best.
    """
    last = mean_and_range([history[-1]["valid_accuracy"] for history in histories])
    best = mean_and_range([best_record(history)["valid_accuracy"] for history in histories])
    return (
        f"    last epoch: {_spread_line(last)}\n"
        f"    best epoch (optimistic: chosen on these very images): {_spread_line(best)}"
    )


def _spread_line(spread):
    deviation = "undefined (one run)" if spread["sd"] is None else f"{spread['sd']:.4f}"
    return (
        f"mean {spread['mean']:.4f}, standard deviation {deviation}, range {spread['low']:.4f} to {spread['high']:.4f}"
    )


def _remarks(runs):
    """What a reader of the table must know."""
    remarks = [OPTIMISTIC]
    if len({run.settings.get("valid_sha256") for run in runs}) > 1:
        remarks.append("NOT on the same validation images, or not with the same labels: do not compare these numbers.")
    if unfinished := [str(run.path) for run in runs if run.planned and len(run.log) < run.planned]:
        remarks.append(f"Not finished: {', '.join(unfinished)}.")
    return remarks + _demo_remark(runs)


def _demo_remark(runs):
    return [DEMO_DISCLAIMER] if any(run.settings.get("demo") for run in runs) else []


def compare_predictions(first, second):
    """Which of two runs is right more often, and ranks better, on the same images: lines for people.

    first, second: Run with predictions.csv in its directory. McNemar's test of the predicted classes, and, where both
    networks have one logit, the difference of the AUCs with an interval from the paired bootstrap. Where the images or
    labels are not the same, the lines say so instead.
    """
    tables = [read_predictions(run.path) for run in (first, second)]
    if differing := _difference(first, second, *tables):
        return f"The predictions of the two runs are not tested against each other: {differing}."
    names = list(tables[0])
    labels, logits, predicted = (
        [np.array([table[name][column] for name in names]) for table in tables] for column in range(3)
    )
    test = mcnemar(labels[0], *predicted)
    only = (
        f"only {first.path} is right on {test['only_first_right']}, only {second.path} on {test['only_second_right']}"
    )
    lines = [
        f"The two runs on the same {len(names)} images ({PREDICTIONS} of each):",
        f"    McNemar's test: {only}: p = {test['p']:.3g}",
    ]
    if all(column.dtype.kind == "f" for column in logits):
        difference = _interval(paired_auc_difference(labels[0], *logits))
        lines.append(f"    AUC of {first.path} minus AUC of {second.path}: {difference}")
    return "\n".join(lines + list(filter(None, map(_not_of_the_best_epoch, (first, second), tables))))


def _interval(difference):
    if difference is None:
        return "undefined: only one class among the images"
    return "{value:+.4f} (95% interval {low:+.4f} to {high:+.4f}, paired bootstrap)".format(**difference)


def has_predictions(run):
    """Whether there is a predictions.csv to test the run with."""
    return Path(run.path, PREDICTIONS).is_file()


def read_predictions(directory):
    """The predictions.csv that an evaluation or a report wrote into a run: {image: (label, logit, predicted class)}.

    label, predicted: int; logit: float, or None of a network with several. Raises InputError, naming the line, for what
    is no such table.
    """
    file = Path(directory, PREDICTIONS)
    predictions = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for line, row in enumerate(csv.DictReader(lines), start=2):
                name, values = _prediction(row)
                if values is None or name in predictions:
                    raise InputError(
                        f"{file}, line {line}: expected the columns {', '.join(PREDICTED)}, an image a line and each "
                        "once; evaluate the run again"
                    )
                predictions[name] = values
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: damaged ({error}); evaluate the run again") from error
    if not predictions:
        raise InputError(f"{file}: holds no predictions; evaluate the run again")
    return predictions


def _prediction(row):
    try:
        name, label, predicted = (row[column] for column in PREDICTED)
        logit = float(row["logit"]) if "logit" in row else None
        values = int(label), logit, int(predicted)
    except (KeyError, TypeError, ValueError):
        return None, None
    return name, values if logit is None or math.isfinite(logit) else None


def _difference(first, second, predictions, others):
    """In words, what the images or labels of two runs' predictions differ in; "" if in nothing."""
    for here, there, run in ((predictions, others, first), (others, predictions, second)):
        if only := [name for name in here if name not in there]:
            return f"{len(only)} images are in {Path(run.path, PREDICTIONS)} only ({only[0]} is one)"
    if other := [name for name in predictions if predictions[name][0] != others[name][0]]:
        return f"{len(other)} images have another label in {Path(second.path, PREDICTIONS)} ({other[0]} is one)"
    return ""


def _not_of_the_best_epoch(run, predictions):
    """A line, where a run's predictions cannot be those of its best epoch on its own validation images."""
    accuracy = sum(label == predicted for label, _, predicted in predictions.values()) / len(predictions)
    if run.log and abs(accuracy - best_record(run.log)["valid_accuracy"]) > 1e-6:
        best = best_record(run.log)["valid_accuracy"]
        return (
            f"    Note: {Path(run.path, PREDICTIONS)} has an accuracy of {accuracy:.4f}, the best epoch of the run "
            f"{best:.4f}: made before further training, at another threshold, or on other images?"
        )
    return ""


def curves(runs):
    """A matplotlib Figure: loss above accuracy, while training to the left and on the validation images to the right.

    Runs of one directory with several seeds share a colour and an entry of the legend.
    """
    figure = import_matplotlib().figure.Figure(figsize=(11, 7.5))
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    drawn = [run for run in runs if run.log]
    groups = list(dict.fromkeys(run.group for run in drawn))
    for axis, key in zip(axes.flat, PANELS):
        for run in drawn:
            epochs, values = zip(*((record["epoch"], record[key]) for record in run.log))
            axis.plot(epochs, values, markevery=1 + len(epochs) // 20, **_look(groups.index(run.group)))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, title in zip(axes[0], ("while training", "validation images")):
        axis.set_title(title)
        axis.yaxis.set_tick_params(labelleft=True)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
        axis.yaxis.set_tick_params(labelleft=True)
    axes[0, 0].set_ylabel("loss" + _scale_losses(axes[0, 0], drawn))
    axes[1, 0].set_ylabel("accuracy")
    figure.tight_layout()
    _add_legend(figure, runs, groups)
    return figure


def _scale_losses(axis, runs):
    """Make the axis logarithmic where one large loss would press all others into a line; what its label should add."""
    from matplotlib.ticker import LogLocator, NullLocator

    losses = [record[key] for run in runs for record in run.log for key in ("train_loss", "valid_loss")]
    if not 0 < 10 * min(losses) < max(losses):
        return ""
    axis.set_yscale("log")
    # 0.5, 1, 2, 5: with fewer, a range within one power of ten would have no number at all
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    return " (logarithmic)"


def _look(number):
    colours = len(COLOURS)
    return {
        "color": COLOURS[number % colours],
        "marker": MARKERS[number % colours],
        "linestyle": STYLES[number // colours % len(STYLES)],
        "markersize": 4.5,
        "linewidth": 1.4,
        "alpha": 0.85,
    }


def _add_legend(figure, runs, groups):
    """Below the panels, an entry for each group; the demo set's remark below that."""
    from matplotlib.lines import Line2D

    names = []
    for group in groups:
        seeds = sum(run.group == group and bool(run.log) for run in runs if str(run.path) != group)
        names.append(_short(group) + (f" ({seeds} seed{'s' if seeds > 1 else ''})" if seeds else ""))
    remark = "\n".join(_demo_remark(runs)) or None
    figure.legend(
        [Line2D([], [], **_look(number)) for number in range(len(groups))],
        names,
        title=remark,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.01),
        ncol=1 if max(map(len, names)) > 40 else min(3, len(names)),
        frameon=False,
    )


def _short(name):
    """A run's name as the legend takes it: of a long one the end."""
    name = drawable(name if len(name) <= NAME_LENGTH else "..." + name[-NAME_LENGTH + 3 :])
    return f"./{name}" if name.startswith("_") else name  # matplotlib takes a leading "_" for "not in the legend"


def write_figure(figure, path):
    """Write the figure as PNG, whole or not at all, in place of an earlier one of ours; returns its Path.

    Raises InputError where anything else would be overwritten.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: not the name of a .png file to write")
    if path.exists() and not _is_ours(path):
        raise InputError(f"{path}: exists, and is not a figure of compare.py; give another --output")
    write_png(figure, path, dpi=120, bbox_inches="tight", metadata={"Title": MARK})
    return path


def _is_ours(path):
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return start.startswith(PNG) and MARK.encode() in start
