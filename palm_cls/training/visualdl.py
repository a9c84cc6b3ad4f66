"""A run's curves for VisualDL, AI Studio's viewer: `visualdl --logdir output` shows those of all runs side by side.

    visualdl/vdlrecords.log   in the run's directory: messages, each behind its size in 8 bytes, little-endian

A message is one number with its tag and its place on the x axis:

    step/loss, step/learning_rate   of the steps whose loss is printed, at the step's number in the run
    epoch/train_loss, ...           as log.csv has them, at the epoch's number; and epoch/valid_auc, exact, of a network
                                    with one logit, where the validation images are of both classes

VisualDL makes the messages, the file is kept here: VisualDL's own LogWriter writes from a thread, which prints what
goes wrong between the lesson's lines and leaves half a message, behind which none can be read; and it takes nothing
back where a run that was killed does steps again. Imports neither paddle nor OpenCV, and VisualDL only when asked.
"""

import contextlib
import io
import math
import os
import time
from pathlib import Path

from palm_cls.checkpoints.run_files import LOG_COLUMNS
from palm_cls.core.console import log
from palm_cls.core.errors import InputError, missing_package_error, shorten
from palm_cls.core.files import append_or_rollback
from palm_cls.eval import metrics

FOLDER = "visualdl"  # in the run's directory; where it is, the run goes on with its scalars
FILE = "vdlrecords.log"  # of all files with this first word in their names VisualDL reads one, the last by name
SIZE = 8  # bytes that tell the size of a message


def scalars_wanted(asked, directories=()):
    """Whether scalars are to be written: as `asked` (bool); asked None, where a run in `directories` has written some.

    Raises InputError where they are asked for and VisualDL cannot be imported. A run that only goes on is not stopped
    by that: a notice says that it does without.
    """
    begun = [directory for directory in directories if Path(directory, FOLDER).is_dir()]
    if not (begun if asked is None else asked):
        return False
    try:
        visualdl_messages()
    except InputError as error:
        if asked:
            raise InputError(f"{error}, or leave --visualdl out") from error
        log(f"{begun[0]}: without further scalars for VisualDL: {error}")
        return False
    return True


def visualdl_messages():
    """VisualDL's functions `scalar` and `meta_data`, which make messages, and the messages' class `Record`.

    Raises InputError where VisualDL is not installed or cannot be imported.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from visualdl.component.base_component import meta_data, scalar
            from visualdl.proto.record_pb2 import Record
    except Exception as error:  # also a protobuf too old for it, a home directory that it cannot write to, ...
        raise missing_package_error("visualdl", error, "python -m pip install visualdl") from error
    return scalar, meta_data, Record


class Scalars:
    """Writes the scalars of a run; what goes wrong with that is told once and ends the scalars, not the run.

    To be closed at the end.
    """

    def __init__(self, output, progress):
        """output: directory of the run; progress: its Progress, and with it what is to be kept of an earlier part.

        Epochs that are finished and not in the file are written now, without their AUC.
        """
        self.path, self.file = Path(output, FOLDER, FILE), None
        with self._harmless():
            self._scalar, meta_data, self._record = visualdl_messages()
            self.path.parent.mkdir(exist_ok=True)
            epochs = self._open(progress)
            if not self.file.tell():
                self._append([meta_data(walltime=_now())])  # with which VisualDL begins every file
        for record in progress.history if self.file else []:
            if record["epoch"] not in epochs:
                self.epoch(record)

    def step(self, progress, loss, learning_rate):
        """Write what the step that `progress` is at has for its loss and learning rate."""
        self._add("step", progress.step, {"loss": loss, "learning_rate": learning_rate})

    def epoch(self, record, predictions=None):
        """Write an epoch's dict of the history; predictions: of its validation, which the AUC is of."""
        with self._harmless():
            auc = _auc(predictions)
            values = {**{name: record[name] for name in LOG_COLUMNS}, **({} if auc is None else {"valid_auc": auc})}
            self._add("epoch", record["epoch"], values)

    def close(self):
        """Close the file; what comes afterwards is not written."""
        if self.file:
            self.file.close()
            self.file = None

    def _open(self, progress):
        """Open the file behind what `progress` leaves of it; returns the epochs in that part, a set of int."""
        content = self.path.read_bytes() if self.path.exists() else b""
        again = {"step": progress.step, "epoch": progress.epoch}  # the first numbers that come once more
        kept, epochs = 0, set()
        for end, value in _messages(content, self._record):
            kind = value.tag.partition("/")[0]
            if value.id >= again.get(kind, math.inf):
                break
            kept = end
            if kind == "epoch":
                epochs.add(value.id)
        if content:
            os.truncate(self.path, kept)
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115  open as long as the run lasts
        return epochs

    def _add(self, kind, number, values):
        with self._harmless():
            if self.file:
                now = _now()
                self._append([self._scalar(f"{kind}/{name}", value, number, now) for name, value in values.items()])

    def _append(self, messages):
        contents = [message.SerializeToString() for message in messages]
        append_or_rollback(self.file, b"".join(len(content).to_bytes(SIZE, "little") + content for content in contents))

    @contextlib.contextmanager
    def _harmless(self):
        try:
            yield
        except Exception as error:
            why = getattr(error, "strerror", None) or shorten(error)
            log(f"{self.path}: {why}: the run goes on, without further scalars for VisualDL.")
            self.close()


def _messages(content, record):
    """The end and the value of each message in a file's content, up to one that is cut off or damaged."""
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
    """The exact AUC of Predictions, or None where they have none."""
    if predictions is None or predictions.logits.shape[1] > 1:
        return None
    return metrics.auc(predictions.labels, predictions.logits)


def _now():
    """The time as VisualDL keeps it, in milliseconds."""
    return round(time.time() * 1000)
