"""Tables of predictions: predictions.csv of a run, folds.csv and held_out.csv of a cross-validation.

An evaluation or a report writes predictions.csv into a run. Imports neither paddle nor cv2.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.core.files import write_table
from palm_cls.eval.metrics import is_positive, positive_probabilities
from palm_cls.eval.multiclass_metrics import class_probabilities

FOLD_TABLE, HELD_OUT = "folds.csv", "held_out.csv"
REPAIR = "finish the cross-validation by crossvalidate.py --resume"
# Columns of a cross-validation for each number of views; three classes or more have logit_0, logit_1, ...
LOGITS = {1: "logit", 8: "logit_8_views"}
COLUMNS = ("imgName", "Label", "predicted")  # that are read here, and "logit" if the network has one


@dataclass(frozen=True)
class PredictedImage:
    """A row of predictions.csv."""

    label: int
    logit: Optional[float]  # None if the network has several
    predicted: int  # class number


def read_predictions(file):
    """Read a predictions.csv.

    Args:
        file: Path.

    Returns:
        {image name: PredictedImage}, at least one.

    Raises:
        InputError: The file is damaged or no such table; the message names the line.
    """
    predictions = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for line, row in enumerate(csv.DictReader(lines), start=2):
                name, image = row.get(COLUMNS[0]), _parse(row)
                if image is None or name in predictions:
                    raise InputError(
                        f"{file}, line {line}: expected the columns {', '.join(COLUMNS)}, an image a line and each "
                        "once; evaluate the run again"
                    )
                predictions[name] = image
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: damaged ({error}); evaluate the run again") from error
    if not predictions:
        raise InputError(f"{file}: holds no predictions; evaluate the run again")
    return predictions


def _parse(row):
    """Return the PredictedImage of a row of text; None if it is none."""
    try:
        _, label, predicted = (row[column] for column in COLUMNS)
        logit = float(row["logit"]) if "logit" in row else None
        image = PredictedImage(int(label), logit, int(predicted))
    except (KeyError, TypeError, ValueError):
        return None
    return image if logit is None or math.isfinite(logit) else None


def prediction_row(name, label, logits, logits_8_views):
    """Return the row of an image in the predictions.csv of a fold; its logits are a number, or one for each class."""
    row, probabilities = {"imgName": name, "Label": int(label)}, {}
    for views, values in zip(LOGITS, (logits, logits_8_views)):
        values = np.atleast_1d(np.asarray(values, "float32"))
        columns = _columns(views, len(values))
        row.update(zip(columns, values.tolist()))
        names = [column.replace("logit", "probability") for column in columns]
        probabilities.update(zip(names, image_probabilities(values[None])[0].tolist()))
    return {**row, **probabilities}


def _columns(views, num_logits):
    """Return the names of the columns with the logits of an image."""
    name = LOGITS[views]
    return [name] if num_logits == 1 else [f"{name}_{number}" for number in range(num_logits)]


def write_exactly(rows, path):
    """Write a table of this module as CSV; names that are not UTF-8 can be read again as they are."""
    write_table(rows, path, errors="surrogateescape")


def read_fold_table(directory, num_folds, num_classes=2):
    """Read the folds.csv of a cross-validation: [{"imgName", "Label", "group", "fold"}, ...], numbers as int."""
    file = Path(directory, FOLD_TABLE)
    rows = _read_table(file, {"imgName": str, "Label": int, "group": int, "fold": int})
    labels = set(range(num_classes))
    if {row["fold"] for row in rows} != set(range(num_folds)) or not {row["Label"] for row in rows} <= labels:
        expected = f"{'0 and' if num_classes == 2 else '0 to'} {num_classes - 1}"
        raise damaged(file, f"expected labels {expected}, and {num_folds} folds from 0")
    return rows


def read_held_out(directory, num_classes=2):
    """Read the predictions of a fold.

    Returns:
        {name of an image: {"Label": int, number of views: logit, or a list with that of each class}}.
    """
    num_logits = num_classes if num_classes > 2 else 1
    columns = {views: _columns(views, num_logits) for views in LOGITS}
    kinds = {"imgName": str, "Label": int, **dict.fromkeys(sum(columns.values(), []), _finite)}
    rows = {}
    for row in _read_table(Path(directory, HELD_OUT), kinds):
        logits = {views: [row[name] for name in names] for views, names in columns.items()}
        if num_logits == 1:
            logits = {views: value for views, (value,) in logits.items()}
        rows[row["imgName"]] = {"Label": row["Label"], **logits}
    return rows


def _finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _read_table(file, columns):
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            rows = [{name: kind(row[name]) for name, kind in columns.items()} for row in csv.DictReader(lines)]
    except FileNotFoundError:
        raise InputError(f"{file}: missing; {REPAIR}") from None
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise damaged(file, error) from error
    if not rows or len({row["imgName"] for row in rows}) < len(rows):
        raise damaged(file, "expected a row for each image")
    return rows


def damaged(file, reason):
    """Return the InputError for a damaged file of a cross-validation."""
    return InputError(f"{file}: damaged ({reason}); delete it, and {REPAIR}")


def image_probabilities(logits):
    """Return the probabilities of logits [N], [N, 1] or [N, C], float64 in the same shape; one logit is of class 1."""
    is_binary = logits.ndim == 1 or logits.shape[1] == 1
    return positive_probabilities(logits) if is_binary else class_probabilities(logits)


def predicted_classes(probabilities):
    """Return the predicted classes, int [N], for probabilities [N] of class 1 or [N, C] of all classes."""
    if probabilities.ndim == 1:
        return is_positive(probabilities).astype("int64")
    return probabilities.argmax(axis=1)
