"""Files of a run for others to read: settings, log, list of seeds. Imports neither paddle nor cv2.

`palm_cls.checkpoints.run_dir` describes the directory of a run, `palm_cls.training.multi_seed` one of runs that differ
only in their seed.
"""

import csv
import math
from pathlib import Path

from palm_cls.core.errors import InputError
from palm_cls.core.files import read_json

SETTINGS = "settings.json"
LOG = "log.csv"
SEEDS = "seeds.json"
CROSSVALIDATION = "crossvalidation.json"
EVALUATION, PREDICTIONS = "evaluation.json", "predictions.csv"  # of an evaluation or a report
REPORT, FIGURES = "report.html", "figures"
LOG_COLUMNS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # required in every log


def read_settings(path):
    """Read the settings of a run.

    Args:
        path: the directory of the run, or a file in it.

    Returns:
        A dict, {} if there is no settings.json.

    Raises:
        InputError: settings.json is damaged or something else.
    """
    path = Path(path)
    return read_json((path.parent if path.is_file() else path) / SETTINGS, "the settings of a run")


def read_seeds(directory):
    """Read the seeds.json of a directory.

    Returns:
        A dict with "seeds", a list of int; {} if there is no seeds.json.

    Raises:
        InputError: seeds.json is damaged or something else.
    """
    content = read_json(Path(directory, SEEDS), "the list of seeds of several runs")
    seeds = content.get("seeds")
    if content and not (isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds)):
        raise InputError(f"{Path(directory, SEEDS)}: not the list of seeds of several runs")
    return content


def read_crossvalidation_settings(directory):
    """Read the crossvalidation.json of a directory, see `palm_cls.training.crossvalidation`; {} if there is none.

    Raises:
        InputError: It is damaged or something else.
    """
    content = read_json(Path(directory, CROSSVALIDATION), "the settings of a cross-validation")
    if content and not _is_crossvalidation(content):
        raise InputError(f"{Path(directory, CROSSVALIDATION)}: not the settings of a cross-validation; start a new one")
    return content


def _is_crossvalidation(content):
    seeds = content.get("seeds")
    numbers = [content.get(name) for name in ("folds", "epochs", "batch_size")]
    return (
        all(isinstance(content.get(name), str) for name in ("model", "data", "images_sha256"))
        and all(type(number) is int and number > 0 for number in numbers)
        and isinstance(seeds, list)
        and 0 < len(seeds) == len(set(map(str, seeds)))
        and all(type(seed) is int for seed in seeds)
        and {"demo", "groups"} <= set(content)
    )


def fold_directory(directory, seed, fold):
    """Return the Path of the run of a fold, from 0, in the directory of a cross-validation."""
    return seed_directory(directory, seed) / f"fold-{fold}"


def seed_directory(directory, seed):
    """Return the Path of the run with this seed in a directory of several."""
    return Path(directory, f"seed-{seed}")


def read_log(directory):
    """Read the log of a run.

    Returns:
        A list with one dict for each epoch, oldest first: "epoch" (int, from 0) and LOG_COLUMNS (float); [] if there
        is no log.csv.

    Raises:
        InputError: log.csv is no log of a run; the message names the line.
    """
    file = Path(directory, LOG)
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except FileNotFoundError:
        return []
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
    return [_log_record(file, line, row) for line, row in enumerate(rows, start=2)]


def _log_record(file, line, row):
    try:
        record = {"epoch": int(row["epoch"]), **{name: float(row[name]) for name in LOG_COLUMNS}}
    except (KeyError, TypeError, ValueError):
        record = {}
    if not record or not all(map(math.isfinite, record.values())):
        raise InputError(
            f"{file}, line {line}: not the log of a run; expected numbers for epoch, {', '.join(LOG_COLUMNS)}"
        )
    return record


def best_record(records):
    """Return the record with the highest validation accuracy, the first of equals."""
    return max(records, key=lambda record: record["valid_accuracy"])
