"""Runs compared: a table, and the tests of two of them on the same images.

    runs, missing = find_runs(["output/lenet-relu", "output/alexnet"])
    print(comparison_table(runs))

The figure of their curves is in `palm_cls.eval.compare_figure`. A directory of runs with several seeds (see
`palm_cls.training.multi_seed`) stands for its runs. Imports neither paddle nor cv2.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

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
from palm_cls.core.console import format_table
from palm_cls.core.errors import InputError
from palm_cls.data.data_root import DEMO_DISCLAIMER
from palm_cls.eval.auc import paired_auc_difference
from palm_cls.eval.metrics import mcnemar, summarize
from palm_cls.eval.predictions_file import read_predictions

HEADER = ("run", "model", "seed", "epochs", "last accuracy", "loss", "best accuracy", "loss")
OPTIMISTIC = "The best epoch is optimistic: it is chosen on the very images that it is measured on."


@dataclass(frozen=True)
class Run:
    """A run as read from its directory.

    Attributes:
        path: Its directory.
        group: The directory that was asked for: the run's own, or that of several seeds.
        planned: Number of epochs that it will have in the end, or None.
        settings: As `read_settings` returns them.
        log: As `read_log` returns it.
    """

    path: Path
    group: str
    planned: Optional[int]
    settings: dict
    log: list

    @property
    def name(self):
        """The path as text."""
        return str(self.path)

    @property
    def classes(self):
        """Names of the classes; [] if the settings do not state them."""
        return self.settings.get("classes") or []

    @property
    def predictions_file(self):
        """The Path of the run's predictions.csv."""
        return self.path / PREDICTIONS

    @property
    def is_seed(self):
        """Whether the run is one of several seeds."""
        return self.name != self.group


def find_runs(paths):
    """Find the runs in directories, each once, in this order.

    Args:
        paths: Run directories, or directories of runs with several seeds.

    Returns:
        (list of Run, {directory: its seeds that have not started}).

    Raises:
        InputError: There is no run, or none with a finished epoch.
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


def comparison_table(runs):
    """Format the validation results of each Run, last and best epoch, with remarks."""
    lines = format_table([HEADER, *(_row(run) for run in runs)], left=2)
    for group in dict.fromkeys(run.group for run in runs if run.is_seed):
        finished = [run.log for run in runs if run.group == group and len(run.log) == run.planned]
        if finished:
            seeds = "seed" if len(finished) == 1 else "seeds"
            lines += [
                f"{group}, {len(finished)} {seeds} with all epochs, validation accuracy:",
                format_spread(finished),
            ]
    return "\n".join(lines + _remarks(runs))


def _row(run):
    cells = run.name, str(run.settings.get("model", "-")), str(run.settings.get("seed", "-")), str(len(run.log))
    if not run.log:
        return (*cells, "-", "-", "-", "-")
    values = [record[key] for record in (run.log[-1], best_record(run.log)) for key in ("valid_accuracy", "valid_loss")]
    return (*cells, *(f"{value:.4f}" for value in values))


def format_spread(histories):
    """Format mean, standard deviation and range of the validation accuracy over several runs.

    Args:
        histories: Lists of epochs, as `train` returns or `read_log` reads them.

    Returns:
        Two lines: the last epoch of each run, and its best.
    """
    last = summarize([history[-1]["valid_accuracy"] for history in histories])
    best = summarize([best_record(history)["valid_accuracy"] for history in histories])
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
    """List the limits of the table."""
    remarks = [OPTIMISTIC]
    if len({tuple(run.classes) for run in runs if run.classes}) > 1:
        remarks.append("NOT with the same classes: do not compare these numbers.")
    if len({run.settings.get("valid_sha256") for run in runs}) > 1:
        remarks.append("NOT on the same validation images, or not with the same labels: do not compare these numbers.")
    if unfinished := [run.name for run in runs if run.planned and len(run.log) < run.planned]:
        remarks.append(f"Not finished: {', '.join(unfinished)}.")
    return remarks + demo_remark(runs)


def demo_remark(runs):
    """Return [the remark of the demo set] if a Run is on it, else []."""
    return [DEMO_DISCLAIMER] if any(run.settings.get("demo") for run in runs) else []


def compare_predictions(first, second):
    """Test two runs on the same images: which is right more often, which ranks better?

    McNemar's test of the predicted classes and, if both networks have one logit, the difference of the AUCs with an
    interval of the paired bootstrap.

    Args:
        first: Run with a predictions.csv in its directory.
        second: Another such Run.

    Returns:
        Lines of text; if classes, images or labels differ, a line that says how.
    """
    tables = [read_predictions(run.predictions_file) for run in (first, second)]
    if difference := _difference(first, second, *tables):
        return f"The predictions of the two runs are not tested against each other: {difference}."
    names = list(tables[0])
    labels = np.array([tables[0][name].label for name in names])
    predicted = [np.array([table[name].predicted for name in names]) for table in tables]
    test = mcnemar(labels, *predicted)
    only = (
        f"only {first.name} is right on {test['only_first_right']}, only {second.name} on {test['only_second_right']}"
    )
    lines = [
        f"The two runs on the same {len(names)} images ({PREDICTIONS} of each):",
        f"    McNemar's test: {only}: p = {test['p']:.3g}",
    ]
    logits = [np.array([table[name].logit for name in names]) for table in tables]
    if all(column.dtype.kind == "f" for column in logits):
        difference = _format_difference(paired_auc_difference(labels, *logits))
        lines.append(f"    AUC of {first.name} minus AUC of {second.name}: {difference}")
    notes = [_other_epoch_note(run, table) for run, table in zip((first, second), tables)]
    return "\n".join(lines + list(filter(None, notes)))


def _format_difference(difference):
    if difference is None:
        return "undefined: only one class among the images"
    return "{value:+.4f} (95% interval {low:+.4f} to {high:+.4f}, paired bootstrap)".format(**difference)


def _difference(first, second, predictions, others):
    """Describe how classes, images or labels of two runs' predictions differ; "" if they do not."""
    if first.classes and second.classes and first.classes != second.classes:
        names = [", ".join(map(str, run.classes)) for run in (first, second)]
        return f"the classes of {first.name} are {names[0]}, those of {second.name} {names[1]}"
    for ours, theirs, run in ((predictions, others, first), (others, predictions, second)):
        if only := [name for name in ours if name not in theirs]:
            return f"{len(only)} images are in {run.predictions_file} only ({only[0]} is one)"
    if other := [name for name in predictions if predictions[name].label != others[name].label]:
        return f"{len(other)} images have another label in {second.predictions_file} ({other[0]} is one)"
    return ""


def _other_epoch_note(run, predictions):
    """Return a line if predictions cannot be those of the best epoch, else ""."""
    accuracy = sum(row.label == row.predicted for row in predictions.values()) / len(predictions)
    if not run.log or abs(accuracy - best_record(run.log)["valid_accuracy"]) <= 1e-6:
        return ""
    best = best_record(run.log)["valid_accuracy"]
    return (
        f"    Note: {run.predictions_file} has an accuracy of {accuracy:.4f}, the best epoch of the run "
        f"{best:.4f}: made before further training, at another threshold, or on other images?"
    )
