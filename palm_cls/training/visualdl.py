"""Scalars of a run for VisualDL, AI Studio's viewer: `visualdl --logdir output` shows all runs side by side.

    visualdl/vdlrecords.log   in the run's directory: messages, each after its size in 8 bytes, little-endian

A message is a value with its tag and its position on the x axis:

    step/loss, step/learning_rate   of the steps whose loss is printed; x: the number of the step in the run
    epoch/train_loss, ...           as in log.csv; x: the number of the epoch. epoch/valid_auc is exact; of three
                                    classes or more it is the mean of those of each class against all others. It exists
                                    if there are validation images of every class

VisualDL makes the messages; this module writes the file. VisualDL's own LogWriter writes from a thread that prints its
errors between the lesson's lines and leaves half a message, after which none can be read. It also removes nothing when
a run that was killed repeats steps. VisualDL is imported only if scalars are written.
"""

import contextlib
import io
import math
import os
import time
from pathlib import Path

from palm_cls.checkpoints.run_files import LOG_COLUMNS
from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.errors import InputError, missing_package_error, shorten
from palm_cls.core.files import append_or_rollback
from palm_cls.eval.auc import auc
from palm_cls.eval.multiclass_metrics import class_probabilities
from palm_cls.training.callbacks import Callback

FOLDER = "visualdl"  # in the run's directory; if it is there, a resumed run writes scalars, too
FILE = "vdlrecords.log"  # of all files with this first word in their names VisualDL reads one, the last by name
SIZE = 8  # bytes of a message's size


def scalars_wanted(asked, directories=()):
    """Decide whether to write scalars.

    Args:
        asked: True or False; None to write them if one of the runs in `directories` did.
        directories: Directories of runs that are resumed.

    Returns:
        Whether to write them. A resumed run that cannot import VisualDL goes without, after a notice.

    Raises:
        InputError: Scalars are asked for, and VisualDL cannot be imported.
    """
    with_scalars = [directory for directory in directories if Path(directory, FOLDER).is_dir()]
    if not (with_scalars if asked is None else asked):
        return False
    try:
        visualdl_messages()
    except InputError as error:
        if asked:
            raise InputError(f"{error}, or leave --visualdl out") from error
        log(f"{with_scalars[0]}: without further scalars for VisualDL: {error}")
        return False
    return True


def visualdl_messages():
    """Return VisualDL's functions `scalar` and `meta_data`, which make messages, and their class `Record`.

    Raises:
        InputError: VisualDL is not installed or cannot be imported.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from visualdl.component.base_component import meta_data, scalar
            from visualdl.proto.record_pb2 import Record
    except Exception as error:  # also a protobuf too old for it, a home directory that it cannot write to, ...
        raise missing_package_error("visualdl", error, "python -m pip install visualdl") from error
    return scalar, meta_data, Record


class VisualDL(Callback):
    """Write the scalars of a run to its directory, in the first of several processes.

    Args:
        output: Directory of the run.
    """

    scalars = None

    def __init__(self, output):
        self.output = output

    def on_train_begin(self, trainer):
        if environment.rank() == 0:
            self.scalars = Scalars(self.output, trainer.state)

    def on_loss(self, trainer):
        if self.scalars and trainer.state.batch % trainer.config.log_every == 0:
            self.scalars.step(trainer.state, trainer.result.value, trainer.optimizer.get_lr())

    def on_epoch_end(self, trainer):  # before the checkpoint, from which a killed run would not reach this AUC again
        if self.scalars:
            self.scalars.epoch(trainer.state.history[-1], trainer.predictions)

    def close(self):
        if self.scalars:
            self.scalars.close()


class Scalars:
    """The file of a run's scalars; an error in writing it ends the scalars with one notice, not the run.

    What the file has after `state` is removed; finished epochs that it lacks are written at once, without their AUC.

    Args:
        output: Directory of the run.
        state: The TrainState from which the run starts or resumes.
    """

    def __init__(self, output, state):
        self.path, self.file = Path(output, FOLDER, FILE), None
        with self._log_errors():
            self._scalar, meta_data, self._record = visualdl_messages()
            self.path.parent.mkdir(exist_ok=True)
            epochs = self._open(state)
            if not self.file.tell():
                self._append([meta_data(walltime=_now())])  # VisualDL begins every file with it
        for record in state.history if self.file else []:
            if record["epoch"] not in epochs:
                self.epoch(record)

    def step(self, state, loss, learning_rate):
        """Write the loss and learning rate of the step that `state` is at."""
        self._add("step", state.step, {"loss": loss, "learning_rate": learning_rate})

    def epoch(self, record, predictions=None):
        """Write an epoch's dict of the history, and the AUC of the Predictions of its validation."""
        with self._log_errors():
            auc = _auc(predictions)
            values = {**{name: record[name] for name in LOG_COLUMNS}, **({} if auc is None else {"valid_auc": auc})}
            self._add("epoch", record["epoch"], values)

    def close(self):
        """Close the file; later scalars are not written."""
        if self.file:
            self.file.close()
            self.file = None

    def _open(self, state):
        """Open the file after the last message before `state`; return the epochs in it, a set of int."""
        content = self.path.read_bytes() if self.path.exists() else b""
        next_numbers = {"step": state.step, "epoch": state.epoch}
        kept, epochs = 0, set()
        for end, value in _messages(content, self._record):
            kind = value.tag.partition("/")[0]
            if value.id >= next_numbers.get(kind, math.inf):
                break
            kept = end
            if kind == "epoch":
                epochs.add(value.id)
        if content:
            os.truncate(self.path, kept)
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115  open as long as the run lasts
        return epochs

    def _add(self, kind, number, values):
        with self._log_errors():
            if self.file:
                now = _now()
                self._append([self._scalar(f"{kind}/{name}", value, number, now) for name, value in values.items()])

    def _append(self, messages):
        contents = [message.SerializeToString() for message in messages]
        append_or_rollback(self.file, b"".join(len(content).to_bytes(SIZE, "little") + content for content in contents))

    @contextlib.contextmanager
    def _log_errors(self):
        try:
            yield
        except Exception as error:
            why = getattr(error, "strerror", None) or shorten(error)
            log(f"{self.path}: {why}: the run goes on, without further scalars for VisualDL.")
            self.close()


def _messages(content, record):
    """Yield the end and the value of each message in a file's content, up to a damaged one."""
    from google.protobuf.message import DecodeError

    end = 0
    while end + SIZE <= len(content):
        start = end + SIZE
        end = start + int.from_bytes(content[end:start], "little")
        try:
            (value,) = record.FromString(content[start:end]).values
        except (DecodeError, ValueError):
            return
        if end <= len(content):
            yield end, value


def _auc(predictions):
    """Return the exact AUC of Predictions, the mean over three classes or more; None if a class is missing."""
    if predictions is None:
        return None
    labels, logits = predictions.labels, predictions.logits
    if logits.shape[1] == 1:
        return auc(labels, logits)
    aucs = [auc(labels == number, column) for number, column in enumerate(class_probabilities(logits).T)]
    return None if None in aucs else sum(aucs) / len(aucs)


def _now():
    """Return the time in milliseconds, as VisualDL stores it."""
    return round(time.time() * 1000)
