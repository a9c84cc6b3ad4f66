"""Ctrl-C, SIGTERM and a closed terminal, deferred until a step or a validation is finished and saved."""

import contextlib
import os
import signal
import stat
import threading

from palm_cls.core import environment
from palm_cls.core.console import log


class DeferredInterrupt:
    """A context that defers the first Ctrl-C, SIGTERM or SIGHUP (a closed terminal); a second Ctrl-C interrupts.

    `requested` is that signal, or None; `deliver` ends what was to be finished first. To processes that train together
    their launcher hands a Ctrl-C on as SIGTERM, several times at once, and ends who takes too long. An ignored signal
    stays ignored (after "&", under nohup). With `active` False all is as ever; so it is outside the main thread, where
    Python lets nobody handle signals.
    """

    def __init__(self, active=True):
        self.requested, self.signals, self.before = None, [], {}
        if active and threading.current_thread() is threading.main_thread():
            names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
            self.signals = [number for number in map(signal.Signals.__getitem__, names) if _is_heeded(number)]

    def __enter__(self):
        self.before = {number: signal.signal(number, self._note) for number in self.signals}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
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

    def is_due(self, team=None):
        """Whether to stop here: a signal was noted, if only by one of the `team` of `palm_cls.training.distributed`."""
        return team.any(bool(self.requested)) if team else bool(self.requested)

    def deliver(self):
        """End as the signal asks; of processes that train together, all with KeyboardInterrupt."""
        if self.requested in (None, signal.SIGINT) or environment.world_size() > 1:
            raise KeyboardInterrupt
        if callable(handler := self.before[self.requested]):
            handler(self.requested, None)
        raise SystemExit(128 + self.requested)


def _is_heeded(number):
    handler = signal.getsignal(number)
    if number == signal.SIGINT:
        return handler is signal.default_int_handler
    return handler not in (signal.SIG_IGN, None) or environment.world_size() > 1


def _leave_terminal():
    """Send what is printed from here on nowhere, unless to a file: writing to a closed terminal is an error.

    So it is to a pipe whose reader went with the terminal.
    """
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
