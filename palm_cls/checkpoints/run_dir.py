"""The output directory of a run, from which it can go on after any interruption.

    settings.json             how the run was made; every .pdparams repeats from it what `describe` tells
    log.csv                   a row an epoch
    best.pdparams             weights of the epoch with the highest validation accuracy (the first of equals)
    last-EPOCH-STEP.json      a checkpoint after EPOCH epochs and STEP steps: position, random state, order of the
                              images, and names and checksums of
    last-EPOCH-STEP.pdparams  the weights and
    last-EPOCH-STEP.pdopt     the optimizer's state that belong to it; the last two checkpoints are kept
    report.html, figures, evaluation.json, predictions.csv     what `palm_cls.eval.report` writes in the end
    visualdl/                 its curves, where they were asked for: see `palm_cls.training.visualdl`

A checkpoint counts only as a whole: its .json is written last, and no file that a .json names is ever written again.
"""

import contextlib
import hashlib
import json
import os
import platform
import random
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_files import (
    LOG,
    SEEDS,
    SETTINGS,
    best_record,
    read_seeds,
    read_settings,
    seed_directory,
    write_json,
    write_table,
)
from palm_cls.checkpoints.weights import load, read_about, save, verify
from palm_cls.core.console import notice
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, RunError

ABOUT = ("model", "input", "classes", "demo")  # settings without which weights cannot be used, or not understood
LOCK = ".lock"
CHECKPOINT = re.compile(r"last-\d{4}-\d{8}\.(json|pdparams|pdopt)")
LEFT_OVER = re.compile(
    rf"\.({CHECKPOINT.pattern}|best\.pdparams|log\.csv|(settings|seeds|evaluation)\.json|predictions\.csv|report\.html)"
    r"\.\d+\.tmp"
)  # by a kill
KEPT = 2  # checkpoints: the last one, and the one before in case the disk damages it


@dataclass
class Progress:
    """How far a run has come; the running sums are those of the epoch under way."""

    seed: int  # from which the random numbers of each step follow
    epoch: int = 0
    batch: int = 0  # of the epoch, the next to train on
    step: int = 0  # of the run
    samples: int = 0
    hits: int = 0
    loss: float = 0.0  # summed over samples
    history: list = field(default_factory=list)  # of the finished epochs, as `train` returns it

    def end_step(self, samples, hits, loss):
        """Count a step on `samples` images, `hits` of them right, with mean loss `loss`."""
        self.batch += 1
        self.step += 1
        self.samples += samples
        self.hits += hits
        self.loss += loss * samples

    def end_epoch(self, valid, learning_rate):
        """Close the epoch with its `evaluate` on the validation images, and begin the next."""
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": learning_rate,
                "train_loss": self.loss / self.samples,
                "train_accuracy": self.hits / self.samples,
                "valid_loss": valid["loss"],
                "valid_accuracy": valid["accuracy"],
                "valid_images": valid["images"],
            }
        )
        self.epoch += 1
        self.batch = self.samples = self.hits = 0
        self.loss = 0.0


def start_run(directory, settings):
    """Make a run's directory with its settings.json; what was run there before is moved to `directory`-1, -2, ...

    Returns the lock that keeps other processes out until it is closed. Raises InputError where anything but an earlier
    run would be in the way, RunError where another process is at work there.
    """
    return _start(directory, SETTINGS, settings)


def start_seeds(directory, content):
    """Make a directory for runs with several seeds, with its seeds.json; all else is as with `start_run`."""
    return _start(directory, SEEDS, content)


def _start(directory, name, content):
    directory = Path(os.path.abspath(directory))
    _make_room(directory)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(lock_run(directory))
        write_json({**content, "versions": versions()}, directory / name)
        stack.pop_all()
    return lock


def write_settings(directory, settings):
    """Write settings.json, with the versions of what the numbers depend on."""
    write_json({**settings, "versions": versions()}, Path(directory, SETTINGS))


def refuse_other_images(directory, settings, train_loader, valid_loader):
    """Raise InputError unless these readers are of the images that a run, with these settings, began with."""
    for kind, what, loader in (("train", "training", train_loader), ("valid", "validation", valid_loader)):
        if settings.get(f"{kind}_sha256") != loader.fingerprint:
            raise InputError(
                f"{directory}: its run began with other {what} images or labels than {loader.directory} has"
            )


def images_of(directory, settings, data=None):
    """The directory of a run's images: `data` if given, else where its settings say; InputError if that is gone."""
    place = data or settings.get("data")
    if place and not data and not Path(place).is_dir():
        raise InputError(f"{directory}: its images were in {place}, which is gone; say where they are with --data")
    return place


def versions():
    """{name: version} of what the numbers of a run depend on."""
    return {"python": platform.python_version(), "paddle": paddle.__version__, "numpy": np.__version__}


def lock_run(directory):
    """Keep other processes out of a run's directory until the file returned is closed, or this process ends.

    Raises RunError where another process holds it.
    """
    lock = open(Path(directory, LOCK), "wb")  # noqa: SIM115  open as long as the run lasts
    try:
        _lock_file(lock)
    except BlockingIOError:
        lock.close()
        raise RunError(f"{directory}: in use by another process; wait for it, or give another --output") from None
    except OSError:  # a file system without locks
        notice(f"{directory}: this file system has no locks; do not start a second run there.")
    if not os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name)):  # moved aside in between
        lock.close()
        raise RunError(f"{directory}: another process has just begun a run there; give another --output")
    return lock


def _lock_file(file):
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def save_checkpoint(directory, progress, model, optimizer, loader):
    """Save everything that `restore` needs to go on from here, then forget all but the last checkpoints.

    Raises RunError, and saves nothing, where weights or velocities are not finite any more.
    """
    directory = Path(directory)
    _require_finite(progress, model, optimizer)
    name = f"last-{progress.epoch:04d}-{progress.step:08d}"
    files = save(directory / name, model, optimizer, about=_about(directory))
    state = {
        "progress": asdict(progress),
        "order": getattr(loader, "order", None),
        "random": _random_state(),
        "files": files,
    }
    write_json({"sha256": _digest(state), **state}, directory / f"{name}.json")
    _forget_old_checkpoints(directory)


def save_epoch(directory, progress, model, optimizer, loader):
    """Save after an epoch: the checkpoint, then what `restore` can make from it again."""
    save_checkpoint(directory, progress, model, optimizer, loader)
    _write_results(Path(directory), progress, model)


def _write_results(directory, progress, model):
    """The log; and the weights of the best epoch, if that has just ended."""
    if progress.batch == 0 and progress.history:
        if best_record(progress.history) is progress.history[-1]:
            save(directory / "best", model, about=_about(directory))
        write_table(progress.history, directory / LOG)


def _require_finite(progress, model, optimizer):
    states = [*model.state_dict().values(), *optimizer.state_dict().values()]
    if not all(paddle.isfinite(value).all().item() for value in states if isinstance(value, paddle.Tensor)):
        raise RunError(
            f"weights or velocities are not finite after step {progress.step}, learning rate {optimizer.get_lr()}\n"
            "Checkpoints from before this stay as they are; begin a new run with a smaller learning rate."
        )


def restore(directory, model, optimizer, loader):
    """Bring everything back to the last good checkpoint of a run and return its Progress, or None if there is none yet.

    A damaged checkpoint is named in a notice, renamed, and passed over for the one before. Raises InputError where
    none is left.
    """
    directory = Path(directory)
    _forget_old_checkpoints(directory)  # and with them what a killed process left half-written
    manifests = checkpoints(directory)
    for manifest in reversed(manifests):
        try:
            state = read_checkpoint(manifest)
        except (InputError, OSError) as error:
            notice(f"{error}\nGoing back to the checkpoint before.")
            manifest.rename(manifest.with_suffix(".damaged"))
            continue
        progress = _take_up(manifest, state, model, optimizer, loader)
        _write_results(directory, progress, model)  # which the process may not have come to
        return progress
    if manifests:
        raise InputError(f"{directory}: no good checkpoint is left; begin a new run")
    return None


def take_up_last(directory, model, optimizer, loader):
    """As `restore`, where another process has just done that: reads only."""
    manifests = checkpoints(directory)
    return _take_up(manifests[-1], read_checkpoint(manifests[-1]), model, optimizer, loader) if manifests else None


def _take_up(manifest, state, model, optimizer, loader):
    """Bring everything back to a checkpoint with this content, and return its Progress."""
    load(manifest.with_suffix(".pdparams"), model, optimizer)
    if state["order"]:
        loader.order = state["order"]
    _set_random_state(state["random"])
    return Progress(**state["progress"])


def read_checkpoint(manifest):
    """The content of a checkpoint's .json; raises InputError unless it and the files it names are as written."""
    try:
        state = json.loads(manifest.read_text(encoding="utf-8"))
        whole = state.pop("sha256") == _digest(state)
    except (ValueError, AttributeError, KeyError):
        whole = False
    if not whole:
        raise InputError(f"{manifest}: damaged: its content does not match its checksum")
    for name, sha256 in state["files"].items():
        verify(manifest.with_name(name), sha256)
    return state


def checkpoints(directory):
    """The .json of the checkpoints in a run's directory, oldest first."""
    return sorted(file for file in Path(directory).glob("last-*.json") if CHECKPOINT.fullmatch(file.name))


def _forget_old_checkpoints(directory):
    manifests = checkpoints(directory)
    for manifest in manifests[:-KEPT]:
        manifest.unlink()  # first, so that no manifest names files that are gone
    kept = {manifest.stem for manifest in manifests[-KEPT:]}
    for file in list(directory.iterdir()):
        if LEFT_OVER.fullmatch(file.name) or (CHECKPOINT.fullmatch(file.name) and file.stem not in kept):
            file.unlink()


def _random_state():
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


def describe(weights):
    """What is known about the weights in a `.pdparams` file, wherever it was copied to; what is not, is left out.

    "model": name of its recipe; "input": the images that it takes, as
    `palm_cls.data.images.INPUT_SPEC`; "classes": names of
    the labels; "demo": whether it was trained on the demo set. A file of before they told this themselves is described
    by the settings of the run that it lies in.
    """
    return read_about(weights) or _about(weights)


def _about(path):
    settings = read_settings(path)
    return {name: settings[name] for name in ABOUT if settings.get(name) is not None}


def _make_room(directory):
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: a file; --output takes a directory")
    if Path.cwd().is_relative_to(directory):
        raise InputError(f"{directory}: the current directory lies in it; give another --output")
    if read_settings(directory) or read_seeds(directory):
        _move_aside(directory)
    elif directory.is_dir() and not all(
        entry.name == LOCK or LEFT_OVER.fullmatch(entry.name) for entry in directory.iterdir()
    ):
        raise InputError(f"{directory}: not empty, and not the output of a run; give another --output")
    directory.mkdir(parents=True, exist_ok=True)


def _move_aside(directory):
    number = 1
    while (aside := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    seeds = read_seeds(directory).get("seeds", [])
    with contextlib.ExitStack() as stack:
        for place in (directory, *(seed_directory(directory, seed) for seed in seeds)):
            if place.is_dir():  # nobody may be at work in any of them
                lock = stack.enter_context(lock_run(place))
                if os.name == "nt":  # where no directory moves that holds an open file
                    lock.close()
        directory.rename(aside)
    notice(f"The earlier run{'s' if seeds else ''} in {directory} {'were' if seeds else 'was'} moved to {aside}.")
