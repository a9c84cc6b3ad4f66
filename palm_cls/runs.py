"""The output directory of a run.

settings.json       how the run was made
log.csv             a row an epoch
last.pdparams       weights after the last epoch, with last.pdopt, the optimizer's state
best.pdparams       weights of the epoch with the highest validation accuracy (the first of equals)
"""

import csv
import json
import os
import platform
from pathlib import Path

import numpy as np

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle

from palm_cls.checkpoint import save
from palm_cls.files import replacing
from palm_cls.messages import InputError, notice

SETTINGS = "settings.json"
LOG = "log.csv"


def start_run(directory, settings):
    """Make a run's directory with its settings.json; an earlier run in it is moved to `directory`-1, -2, ...

    Raises InputError where anything but an earlier run would be in the way.
    """
    directory = Path(os.path.abspath(directory))
    _make_room(directory)
    write_json({**settings, "versions": versions()}, directory / SETTINGS)


def save_epoch(directory, history, model, optimizer):
    """Save checkpoint and log after an epoch; `history` is the list of all epochs' records, {column: value}."""
    directory = Path(directory)
    save(directory / "last", model, optimizer)
    if best_record(history) is history[-1]:
        save(directory / "best", model)
    with replacing(directory / LOG) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def best_record(records):
    """The record with the highest validation accuracy, the first of equals."""
    return max(records, key=lambda record: record["valid_accuracy"])


def read_settings(path):
    """The settings of the run that `path` belongs to (its directory, or a file in it); {} where there are none."""
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{file}: damaged ({error})") from error
    if not isinstance(settings, dict) or "versions" not in settings:
        raise InputError(f"{file}: not the settings of a run")
    return settings


def write_json(content, path):
    """Write `content` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def versions():
    """{name: version} of what a run's numbers depend on."""
    return {"python": platform.python_version(), "paddle": paddle.__version__, "numpy": np.__version__}


def _make_room(directory):
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: a file; --output takes a directory")
    if Path.cwd().is_relative_to(directory):
        raise InputError(f"{directory}: the current directory lies in it; give another --output")
    if read_settings(directory):
        number = 1
        while (aside := directory.with_name(f"{directory.name}-{number}")).exists():
            number += 1
        directory.rename(aside)
        notice(f"The earlier run in {directory} was moved to {aside}.")
    elif directory.is_dir() and any(directory.iterdir()):
        raise InputError(f"{directory}: not empty, and not the output of a run; give another --output")
    directory.mkdir(parents=True, exist_ok=True)
