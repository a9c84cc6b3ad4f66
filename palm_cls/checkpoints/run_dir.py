"""The output directory of a run, from which it can be resumed after any interruption.

    settings.json             how the run was made; every .pdparams repeats its metadata (`read_metadata`)
    log.csv                   one row for each epoch
    best.pdparams             weights of the epoch with the highest validation accuracy (the first of equals)
    last-EPOCH-STEP.json      a checkpoint after EPOCH epochs and STEP steps: position, random state, order of the
                              images, and names and checksums of the next two
    last-EPOCH-STEP.pdparams  its weights
    last-EPOCH-STEP.pdopt     its optimizer's state
    report.html, figures, evaluation.json, predictions.csv     written at the end by `palm_cls.eval.report`
    visualdl/                 curves for VisualDL, if requested: see `palm_cls.training.visualdl`

The last MAX_CHECKPOINTS checkpoints are kept. A checkpoint is valid only as a whole: its .json is written last, and no
file that a .json names is ever overwritten.
"""

import contextlib
import hashlib
import json
import os
import platform
import random
import re
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.metadata import run_metadata
from palm_cls.checkpoints.run_files import (
    CROSSVALIDATION,
    LOG,
    SEEDS,
    SETTINGS,
    best_record,
    read_crossvalidation_settings,
    read_seeds,
    read_settings,
    seed_directory,
)
from palm_cls.checkpoints.run_lock import LOCK, lock_run
from palm_cls.checkpoints.state_file import verify
from palm_cls.checkpoints.train_state import TrainState
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.console import log
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, RunError
from palm_cls.core.files import write_json, write_table

CHECKPOINT = re.compile(r"last-\d{4}-\d{8}\.(json|pdparams|pdopt)")
TEMP_FILE = re.compile(  # which a killed process leaves
    rf"\.({CHECKPOINT.pattern}|best\.pdparams|(log|predictions|folds|held_out)\.csv|report\.html|"
    r"(settings|seeds|crossvalidation|evaluation|results)\.json)"
    r"\.\d+\.tmp"
)
MAX_CHECKPOINTS = 2  # the last one, and the one before in case the disk damages it


def create_run_dir(directory, settings):
    """Create the directory of a run with its settings.json.

    An earlier run there is moved to `directory`-1, -2, ...

    Args:
        directory: the run's output directory.
        settings: a dict for settings.json.

    Returns:
        The lock, an open file that keeps other processes out until it is closed.

    Raises:
        InputError: something other than an earlier run is in the way.
        RunError: another process uses the directory.
    """
    return _create_locked(directory, SETTINGS, settings)


def create_seeds_dir(directory, content):
    """Create a directory for runs with several seeds, with its seeds.json; otherwise as `create_run_dir`."""
    return _create_locked(directory, SEEDS, content)


def create_crossvalidation_dir(directory, content):
    """Create the directory of a cross-validation, with its crossvalidation.json; otherwise as `create_run_dir`."""
    return _create_locked(directory, CROSSVALIDATION, content)


def _create_locked(directory, name, content):
    directory = Path(os.path.abspath(directory))
    _prepare_output_dir(directory)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(lock_run(directory))
        write_json({**content, "versions": versions()}, directory / name)
        stack.pop_all()
    return lock


def _prepare_output_dir(directory):
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: a file; --output takes a directory")
    if Path.cwd().is_relative_to(directory):
        raise InputError(f"{directory}: the current directory lies in it; give another --output")
    if read_settings(directory) or read_seeds(directory) or read_crossvalidation_settings(directory):
        _backup_run(directory)
    elif directory.is_dir() and not all(
        entry.name == LOCK or TEMP_FILE.fullmatch(entry.name) for entry in directory.iterdir()
    ):
        raise InputError(f"{directory}: not empty, and not the output of a run; give another --output")
    directory.mkdir(parents=True, exist_ok=True)


def _backup_run(directory):
    """Rename the directory of an earlier run to the first free of `directory`-1, -2, ..."""
    number = 1
    while (backup := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    seeds = read_seeds(directory).get("seeds", [])
    with contextlib.ExitStack() as stack:
        for place in (directory, *(seed_directory(directory, seed) for seed in seeds)):
            if place.is_dir():  # no process may use any of them
                lock = stack.enter_context(lock_run(place))
                if os.name == "nt":  # Windows renames no directory that holds an open file
                    lock.close()
        directory.rename(backup)
    log(f"The earlier run{'s' if seeds else ''} in {directory} {'were' if seeds else 'was'} moved to {backup}.")


def write_settings(directory, settings):
    """Write settings.json, and in it the versions of Python, paddle and NumPy."""
    write_json({**settings, "versions": versions()}, Path(directory, SETTINGS))


def versions():
    """Return {name: version} of what the numbers of a run depend on."""
    return {"python": platform.python_version(), "paddle": paddle.__version__, "numpy": np.__version__}


def check_same_images(directory, settings, train_loader, valid_loader):
    """Check that the loaders have the images and labels that a run began with.

    Args:
        directory: of the run, for messages.
        settings: its settings, with "train_sha256" and "valid_sha256".
        train_loader, valid_loader: loaders with a `fingerprint`.

    Raises:
        InputError: they have others.
    """
    for kind, what, loader in (("train", "training", train_loader), ("valid", "validation", valid_loader)):
        if settings.get(f"{kind}_sha256") != loader.fingerprint:
            raise InputError(
                f"{directory}: its run began with other {what} images or labels than {loader.directory} has"
            )


def resolve_data_dir(directory, settings, data=None):
    """Return the directory of a run's images.

    Args:
        directory: of the run, for messages.
        settings: its settings, with the directory that it began with in "data".
        data: the directory, if it was given now.

    Raises:
        InputError: none is given, and the one in the settings is gone.
    """
    place = data or settings.get("data")
    if place and not data and not Path(place).is_dir():
        raise InputError(f"{directory}: its images were in {place}, which is gone; say where they are with --data")
    return place


def save_checkpoint(directory, train_state, model, optimizer, loader):
    """Save all that `restore` needs to resume from here, and delete all but the last checkpoints.

    Args:
        directory: of the run.
        train_state: its TrainState.
        model, optimizer: the network and its optimizer.
        loader: the training loader, whose `order` of the images is saved.

    Raises:
        RunError: weights or velocities are not finite; nothing is saved.
    """
    directory = Path(directory)
    _check_finite(train_state, model, optimizer)
    name = f"last-{train_state.epoch:04d}-{train_state.step:08d}"
    files = save(directory / name, model, optimizer, metadata=run_metadata(directory))
    content = {
        "progress": train_state.to_json(),
        "order": loader.order,
        "random": _get_random_state(),
        "files": files,
    }
    write_json({"sha256": _digest(content), **content}, directory / f"{name}.json")
    _prune_checkpoints(directory)


def save_epoch(directory, train_state, model, optimizer, loader):
    """Save a checkpoint after an epoch, then log.csv and, after the best epoch so far, best.pdparams."""
    save_checkpoint(directory, train_state, model, optimizer, loader)
    _write_results(Path(directory), train_state, model)


def _write_results(directory, train_state, model):
    if train_state.batch == 0 and train_state.history:
        if best_record(train_state.history) is train_state.history[-1]:
            save(directory / "best", model, metadata=run_metadata(directory))
        write_table(train_state.history, directory / LOG)


def _check_finite(train_state, model, optimizer):
    states = [*model.state_dict().values(), *optimizer.state_dict().values()]
    if not all(paddle.isfinite(value).all().item() for value in states if isinstance(value, paddle.Tensor)):
        raise RunError(
            f"weights or velocities are not finite after step {train_state.step}, learning rate {optimizer.get_lr()}\n"
            "Earlier checkpoints are kept; begin a new run with a smaller learning rate."
        )


def restore(directory, model, optimizer, loader):
    """Restore the last good checkpoint of a run; damaged ones are reported and renamed.

    Args:
        directory: of the run.
        model, optimizer, loader: take the weights, velocities and order of the checkpoint.

    Returns:
        The TrainState of the checkpoint, or None if there is no checkpoint yet.

    Raises:
        InputError: all checkpoints are damaged.
    """
    directory = Path(directory)
    _prune_checkpoints(directory)  # and temporary files of a killed process
    manifests = list_checkpoints(directory)
    for manifest in reversed(manifests):
        try:
            content = read_checkpoint(manifest)
        except (InputError, OSError) as error:
            log(f"{error}\nGoing back to the checkpoint before.")
            manifest.rename(manifest.with_suffix(".damaged"))
            continue
        train_state = _apply_checkpoint(manifest, content, model, optimizer, loader)
        _write_results(directory, train_state, model)  # a killed process may have left that out
        return train_state
    if manifests:
        raise InputError(f"{directory}: no good checkpoint is left; begin a new run")
    return None


def load_latest(directory, model, optimizer, loader):
    """Load the last checkpoint after another process has restored it; as `restore`, but writes nothing."""
    manifests = list_checkpoints(directory)
    if not manifests:
        return None
    return _apply_checkpoint(manifests[-1], read_checkpoint(manifests[-1]), model, optimizer, loader)


def _apply_checkpoint(manifest, content, model, optimizer, loader):
    load(manifest.with_suffix(".pdparams"), model, optimizer)
    if content["order"]:
        loader.order = content["order"]
    _set_random_state(content["random"])
    return TrainState.from_json(content["progress"])


def read_checkpoint(manifest):
    """Read the .json of a checkpoint, and verify it and the files that it names.

    Args:
        manifest: Path of the .json.

    Returns:
        Its content, a dict.

    Raises:
        InputError: one of the files is missing or damaged.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        intact = content.pop("sha256") == _digest(content)
    except (ValueError, AttributeError, KeyError):
        intact = False
    if not intact:
        raise InputError(f"{manifest}: damaged: its content does not match its checksum")
    for name, sha256 in content["files"].items():
        verify(manifest.with_name(name), sha256)
    return content


def list_checkpoints(directory):
    """List the .json files (Path) of the checkpoints of a run, oldest first."""
    return sorted(file for file in Path(directory).glob("last-*.json") if CHECKPOINT.fullmatch(file.name))


def drop_weights(directory):
    """Delete the checkpoints and the best weights of a run; its settings and its log stay."""
    _prune_checkpoints(Path(directory), keep=0)
    Path(directory, "best.pdparams").unlink(missing_ok=True)


def _prune_checkpoints(directory, keep=MAX_CHECKPOINTS):
    manifests = list_checkpoints(directory)
    kept = manifests[len(manifests) - min(keep, len(manifests)) :]
    for manifest in manifests[: len(manifests) - len(kept)]:
        manifest.unlink()  # first, so that no manifest names files that are gone
    stems = {manifest.stem for manifest in kept}
    for file in list(directory.iterdir()):
        if TEMP_FILE.fullmatch(file.name) or (CHECKPOINT.fullmatch(file.name) and file.stem not in stems):
            file.unlink()


def _get_random_state():
    """State of Python's and NumPy's random numbers; paddle's follow from the seed and the step."""
    kind, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]}


def _set_random_state(state):
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype="uint32"), *rest))


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
