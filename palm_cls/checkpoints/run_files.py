"""What runs leave behind for others to read: their settings, log and list of seeds. Imports neither paddle nor cv2.

A run's directory is described in `palm_cls.checkpoints.run_dir`; a directory of runs that differ only in their seed in
`palm_cls.training.multi_seed`.
"""

import csv
import json
import math
from pathlib import Path

from palm_cls.core.errors import InputError
from palm_cls.core.files import TEXT, atomic_write

SETTINGS = "settings.json"
LOG = "log.csv"
SEEDS = "seeds.json"
EVALUATION, PREDICTIONS = "evaluation.json", "predictions.csv"  # what an evaluation or a report writes
REPORT, FIGURES = "report.html", "figures"
LOGGED = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # what a log must tell of every epoch


def read_settings(path):
    """The settings of the run that `path` belongs to (its directory, or a file in it); {} where there are none."""
    path = Path(path)
    return read_json((path.parent if path.is_file() else path) / SETTINGS, "the settings of a run")


def read_seeds(directory):
    """The content of a directory's seeds.json, with its "seeds", a list of int; {} where there is none."""
    content = read_json(Path(directory, SEEDS), "the list of seeds of several runs")
    seeds = content.get("seeds")
    if content and not (isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds)):
        raise InputError(f"{Path(directory, SEEDS)}: not the list of seeds of several runs")
    return content


def seed_directory(directory, seed):
    """Path of the run with one of the seeds of a directory."""
    return Path(directory, f"seed-{seed}")


def read_json(file, what):
    """The dict in a file, which tells the versions it was made with as all of ours do; {} where there is no file.

    Raises InputError for a file that is no such thing; what: it should be, in words.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
    if not isinstance(content, dict) or "versions" not in content:
        raise InputError(f"{file}: not {what}")
    return content


def write_json(content, path):
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", **TEXT)


def write_table(rows, path):
    """Write dicts that have the same keys as CSV with a heading, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_log(directory):
    """The log of a run, oldest epoch first: [{"epoch": int from 0, and all of LOGGED: float}]; [] where there is none.

    Raises InputError, naming the line, for what is no log of a run.
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
        record = {"epoch": int(row["epoch"]), **{name: float(row[name]) for name in LOGGED}}
    except (KeyError, TypeError, ValueError):
        record = {}
    if not record or not all(map(math.isfinite, record.values())):
        raise InputError(f"{file}, line {line}: not the log of a run; expected numbers for epoch, {', '.join(LOGGED)}")
    return record


def best_record(records):
    """The record with the highest validation accuracy, the first of equals."""
    return max(records, key=lambda record: record["valid_accuracy"])
