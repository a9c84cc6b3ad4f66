"""Reading of predictions.csv, which an evaluation or a report writes into a run."""

import csv
import math
from dataclasses import dataclass
from typing import Optional

from palm_cls.core.errors import InputError

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
