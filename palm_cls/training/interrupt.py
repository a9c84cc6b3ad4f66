"""Deferred interrupts: Ctrl-C, SIGTERM and a closed terminal wait until a step is finished and saved."""

import contextlib
import os
import signal
import stat
import threading

from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.training.callbacks import Callback


class Interrupt(Callback):
    """Defer the first Ctrl-C, SIGTERM or SIGHUP (a closed terminal) to the end of the step; a second Ctrl-C interrupts.

    An ignored signal stays ignored (after "&", under nohup). Outside the main thread, where Python handles no signals,
    nothing is deferred. Paddle's launcher passes a Ctrl-C on to its processes as SIGTERM, several times at once, and
    kills those that take too long.

    Args:
        group: The ProcessGroup that trains together: a signal to one of its processes stops all. None for one process.

    Attributes:
        requested: The signal that came, or None.
    """

    def __init__(self, group=None):
        self.group, self.requested, self.previous = group, None, {}

    def on_train_begin(self, trainer):
        if threading.current_thread() is not threading.main_thread():
            return
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        for number in filter(_is_handled, map(signal.Signals.__getitem__, names)):
            self.previous[number] = signal.signal(number, self._note)

    def on_step_end(self, trainer):
        trainer.should_stop = self.is_due()

    def on_epoch_end(self, trainer):
        trainer.should_stop = self.is_due()

    def close(self):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = number
            more = "; once more stops at once" if number == signal.SIGINT and environment.world_size() == 1 else ""
            log(f"Interrupted: finishing the step or the validation, and saving{more}.")

    def is_due(self):
        """Return whether to stop: a signal has come, to this process or another of the group."""
        return self.group.any_rank(bool(self.requested)) if self.group else bool(self.requested)

    def deliver(self):
        """End the process as the signal asks; in a group, raise KeyboardInterrupt in every process."""
        if self.requested in (None, signal.SIGINT) or environment.world_size() > 1:
            raise KeyboardInterrupt
        if callable(handler := self.previous[self.requested]):
            handler(self.requested, None)
        raise SystemExit(128 + self.requested)


def _is_handled(number):
    handler = signal.getsignal(number)
    if number == signal.SIGINT:
        return handler is signal.default_int_handler
    return handler not in (signal.SIG_IGN, None) or environment.world_size() > 1


def _leave_terminal():
    """Discard further output unless it goes to a file: writing to a closed terminal or its pipes is an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
