"""Runs that are killed, in forks of a process that has not computed anything with paddle yet."""

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from helpers import PROJECT, TESTS


def in_a_fork(function, fatal_call=0, seconds=None):
    """Call a function in a fork of this process; how it ended: "done" or "killed".

    It kills itself at the n-th call that touches the disk, or is killed after so many seconds. This process must not
    have computed anything with paddle before: its threads do not survive a fork.
    """
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _die_at(fatal_call)
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"status {status}"
    return "killed" if status else "done"


def _die_at(number):
    calls = iter(range(number - 1, -1, -1))

    def deadly(function):
        def call(*args, **kwargs):
            if next(calls, None) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "mkdir")):
        setattr(owner, name, deadly(getattr(owner, name)))


def kill_at_every_touch_of_the_disk(function, check=lambda: None):
    """Let a run die at its first touch of the disk, the resumed one at its second, ... until one gets through.

    Returns how often it was killed; `check` is called each time.
    """
    kills = 0
    while in_a_fork(function, fatal_call=kills + 1) == "killed":
        kills += 1
        check()
    return kills


def in_a_fresh_process(module, expression):
    """The value of an expression of a test module ("training/test_resume"), from a process of its own."""
    folder, name = module.split("/")
    code = f"import {name}; from pathlib import Path; print(repr({name}.{expression}))"
    path = os.pathsep.join([str(PROJECT), str(TESTS), str(TESTS / folder)])
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout.splitlines()[-1])


def fill_disk_at_checkpoint(patch, number):
    """Let the checkpoint of this number, from 0, find the disk full; `patch` is a monkeypatch."""
    from palm_cls.checkpoints import run_dir

    save, calls = run_dir.save_checkpoint, iter(range(100))

    def full(*args):
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        save(*args)

    patch.setattr(run_dir, "save_checkpoint", full)
