"""A run that is stopped at any moment goes on as if it never had been."""

import contextlib
import functools
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    PROJECT,
    tiny,  # noqa: F401  the recipe
)
from helpers.kills import in_a_fork, in_a_fresh_process, kill_at_every_touch_of_the_disk
from helpers.processes import posix
from helpers.runs import EPOCHS, STEPS, Network, SmallReader, content, contents, small_reader

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.state_file import verify
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.weights import load
from palm_cls.core import console
from palm_cls.core.errors import InputError, RunError
from palm_cls.recipes import RECIPES
from palm_cls.training.experiment import resume_recipe, train, train_recipe

import paddle

network = Network


def run(output, resume=False, epochs=EPOCHS, save_every=3, seed=0, **options):
    from palm_cls.core.device import set_seed

    set_seed(seed)
    model = network()
    loaders = small_reader("train"), small_reader("valid")
    return train(model, *loaders, epochs=epochs, output=output, save_every=save_every, resume=resume, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    console.log_once.cache_clear()
    with contextlib.redirect_stderr(io.StringIO()) as told:
        run(directory)
    assert "evaluated by its own layers" not in told.getvalue()
    return contents(directory)


def start_or_resume(output):
    run(output, resume=(output / run_dir.SETTINGS).is_file())


def kill_at_every_touch(output):
    return kill_at_every_touch_of_the_disk(lambda: start_or_resume(output), lambda: assert_nothing_half_written(output))


def kill_at_random_moments(output, kills):
    """Kill run after run at random moments; returns how many got through."""
    start = time.monotonic()
    in_a_fork(lambda: start_or_resume(output / "run0"))
    seconds = time.monotonic() - start  # that a whole run takes
    rng, finished = random.Random(0), 1
    while kills:
        directory = output / f"run{finished}"
        if in_a_fork(functools.partial(start_or_resume, directory), seconds=rng.uniform(0, seconds)) == "done":
            finished += 1
        else:
            kills -= 1
            assert_nothing_half_written(directory)
    in_a_fork(lambda: start_or_resume(output / f"run{finished}"))
    return finished + 1


@posix
def test_killed_at_every_touch_of_the_disk(tmp_path, uninterrupted):
    """Between any two writes, renames and deletions of a run, which then goes on and is killed at a later one."""
    kills = in_a_fresh_process("training/test_resume", f"kill_at_every_touch(Path({str(tmp_path / 'run')!r}))")
    assert kills >= 20
    assert contents(tmp_path / "run") == uninterrupted


@posix
@pytest.mark.slow
def test_killed_200_times_at_random_moments(tmp_path, uninterrupted):
    finished = in_a_fresh_process("training/test_resume", f"kill_at_random_moments(Path({str(tmp_path)!r}), kills=200)")
    for number in range(finished):
        assert contents(tmp_path / f"run{number}") == uninterrupted


def assert_nothing_half_written(directory):
    """What is there under its final name is whole, whatever else the kill left."""
    for file in directory.glob("*.json"):
        json.loads(file.read_text())
    for manifest in run_dir.list_checkpoints(directory)[-1:]:
        run_dir.read_checkpoint(manifest)
    if (directory / "best.pdparams").exists():
        verify(directory / "best.pdparams")


def test_more_epochs_extend_a_finished_run(tmp_path, uninterrupted, capsys):
    run(tmp_path / "run", epochs=1)
    run(tmp_path / "run", epochs=1, resume=True)
    assert "already finished (1 epoch); raise --epochs to continue" in capsys.readouterr().err
    run(tmp_path / "run", epochs=EPOCHS, resume=True)
    assert f"1 of {EPOCHS} epochs done; resuming after step {STEPS}" in capsys.readouterr().err
    assert contents(tmp_path / "run") == uninterrupted


def test_a_recipe_does_not_go_on_with_the_run_of_another(small_demo, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny2", RECIPES["tiny"])
    run = tmp_path / "run"
    train_recipe("tiny", data=small_demo, output=run, seed=1, epochs=1, report=False)
    before = contents(run)
    for name, changes, told in (
        ("tiny2", {"seed": 1}, "its model is tiny, not tiny2"),
        ("tiny", {"seed": 2}, "its seed is 1, not 2"),
        ("tiny", {"seed": 1, "batch_size": 4}, "its batch size is 10, not 4"),
    ):
        with pytest.raises(InputError, match=told):
            train_recipe(name, data=small_demo, output=run, epochs=2, resume=True, report=False, **changes)
    assert contents(run) == before


@pytest.fixture
def falling(small_demo, tmp_path, monkeypatch):
    """A run of three epochs of two steps, whose learning rate falls, in the directory "run"."""
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], lr_schedule="cosine", weight_decay=0.1, epochs=3))
    return train_recipe("tiny", data=small_demo, output=tmp_path / "run", save_every=5, report=False)


def test_a_run_whose_learning_rate_falls_goes_on_with_it(falling, tmp_path, capsys):
    rates = [record["learning_rate"] for record in falling.history]
    assert rates == pytest.approx([0.001 * (1 + math.cos(math.pi * step / 6)) / 2 for step in (1, 3, 5)])
    finished = contents(falling.output)
    for suffix in (".json", ".pdparams", ".pdopt"):
        (falling.output / f"last-0003-{6:08d}").with_suffix(suffix).unlink()
    (falling.output / "log.csv").unlink()
    capsys.readouterr()
    resume_recipe(falling.output, report=False)
    assert "2 of 3 epochs done; resuming after step 5" in capsys.readouterr().err
    again = contents(falling.output)
    assert (again["log.csv"], again["best.pdparams"]) == (finished["log.csv"], finished["best.pdparams"])
    for suffix in ("json", "pdparams", "pdopt"):
        assert again[f"last-0003-{6:08d}.{suffix}"] == finished[f"last-0003-{6:08d}.{suffix}"]


def test_the_end_to_which_a_learning_rate_falls_stays_where_it_is(falling, capsys):
    with pytest.raises(InputError, match="its number of epochs is 3, not 5"):
        resume_recipe(falling.output, epochs=5)
    capsys.readouterr()
    resume_recipe(falling.output, report=False)
    assert "already finished (3 epochs).\n" in capsys.readouterr().err


def test_a_run_that_has_no_checkpoint_yet_begins_again(tmp_path, uninterrupted):
    run_dir.create_run_dir(tmp_path / "run", {}).close()
    run(tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == uninterrupted


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """A run that has gone so far: its directory."""
    directory = tmp_path_factory.mktemp("two_epochs") / "run"
    run(directory, epochs=2)
    return directory


@pytest.mark.parametrize("kind", ["json", "pdparams", "pdopt"])
@pytest.mark.parametrize("damage", ["flip", pytest.param("cut", marks=pytest.mark.slow), "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, uninterrupted, two_epochs, capsys, kind, damage
):
    shutil.copytree(two_epochs, tmp_path / "run")
    file = run_dir.list_checkpoints(tmp_path / "run")[-1].with_suffix(f".{kind}")
    if damage == "gone" and kind == "json":
        pytest.skip("that is no checkpoint at all")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if damage == "flip" else content[:-1])
    if damage == "gone":
        file.unlink()
    run(tmp_path / "run", resume=True)
    told = capsys.readouterr().err
    assert f"{file}: " in told
    assert "Going back to the checkpoint before." in told
    left = contents(tmp_path / "run")
    assert left.pop(f"last-0002-{2 * STEPS:08d}.damaged")
    assert left == uninterrupted


def test_damaged_weights_are_recognised_by_load(tmp_path):
    run(tmp_path / "run", epochs=1)
    content = bytearray((tmp_path / "run" / "best.pdparams").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run" / "best.pdparams").write_bytes(content)
    with pytest.raises(InputError, match=r"best\.pdparams: damaged: its content does not match its checksum"):
        load(tmp_path / "run", network())


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, uninterrupted, monkeypatch):
    calls = iter(range(100))

    def filling_up(descriptor, fsync=os.fsync):
        if next(calls) == 11:
            raise OSError(28, "No space left on device")
        return fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling_up)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "run")
    assert_nothing_half_written(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*.tmp"))
    run(tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == uninterrupted


def test_two_runs_in_one_directory(tmp_path):
    with run_dir.create_run_dir(tmp_path / "run", {}):
        for resume in (False, True):
            with pytest.raises(RunError, match="in use by another process"):
                run(tmp_path / "run", resume=resume)
    run(tmp_path / "run", epochs=1)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    class Spoiled(SmallReader):
        def load(self, samples):
            imgs, labels = super().load(samples)
            return imgs * np.float32("nan" if self.order.index(samples[0][0].name) == 8 else 1), labels

    loader = small_reader("train")
    loader.__class__ = Spoiled
    told = r"the loss is nan in epoch 0, batch_id 2 \(step 2\), learning rate 0\.001; images: P\d+\.jpg, P\d+\.jpg"
    with pytest.raises(RunError, match=told):
        train(network(), loader, small_reader("valid"), epochs=1, output=tmp_path / "run", save_every=1)
    (*_, last) = run_dir.list_checkpoints(tmp_path / "run")
    assert run_dir.read_checkpoint(last)["progress"]["step"] == 2
    assert all(np.isfinite(value).all() for value in arrays(last.with_suffix(".pdparams")))


def arrays(path):
    return [value for value in read_state(path).values() if isinstance(value, np.ndarray)]


SIGNALS = {"SIGINT": KeyboardInterrupt, "SIGTERM": SystemExit, "SIGHUP": SystemExit}


@pytest.mark.parametrize(
    "name",
    ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SIGNALS)[1:] if hasattr(signal, name))],
)
def test_a_signal_finishes_the_step_and_saves(name, tmp_path, uninterrupted):
    number = getattr(signal, name)

    class Interrupting(SmallReader):
        def load(self, samples):
            if len(samples) < 4 and not (tmp_path / "interrupted").exists():  # the last batch of an epoch
                (tmp_path / "interrupted").touch()
                os.kill(os.getpid(), number)
                time.sleep(0.1)
            return super().load(samples)

    from palm_cls.core.device import set_seed

    set_seed(0)
    model = network()
    loader = small_reader("train")
    loader.__class__ = Interrupting
    before = signal.getsignal(number)
    with pytest.raises(SIGNALS[name]) as raised:
        train(model, loader, small_reader("valid"), epochs=EPOCHS, output=tmp_path / "run", save_every=3)
    if name != "SIGINT":
        assert raised.value.code == 128 + number
    assert run_dir.read_checkpoint(run_dir.list_checkpoints(tmp_path / "run")[-1])["progress"]["step"] == STEPS
    assert signal.getsignal(number) is before
    run(tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == uninterrupted


@pytest.fixture(scope="module")
def started(tool, small_demo, tmp_path_factory):
    """A run of the tool over one epoch: its directory."""
    output = tmp_path_factory.mktemp("started") / "run"
    done = tool("train", "--data", small_demo, "--epochs", 1, "--seed", 3, "--output", output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def begun(small_demo, tmp_path_factory):
    """A run of a recipe that trains in no time, over one epoch: its directory."""
    return train_recipe("tiny", tmp_path_factory.mktemp("begun") / "run", data=small_demo, seed=3, report=False).output


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--batch-size", "5"], "its batch size is 10, not 5"),
        (["--seed", "4"], "its seed is 3, not 4"),
        (["--model", "alexnet"], "its model is tiny, not alexnet"),
        (["--momentum", "0.5"], "its momentum is 0.9, not 0.5"),
        (["--train-csv", "own.csv"], "its train csv is none, not "),
        (["--output", "elsewhere"], "--resume DIR or --output DIR, not both"),
    ],
)
def test_a_changed_setting_is_refused_by_name(tool_here, begun, args, told):
    done = tool_here("train", "--resume", begun, *args)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_other_images_are_refused(tool, started, small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    next((tmp_path / "demo").glob("PALM-Training400/*/P*.jpg")).unlink()
    done = tool("train", "--resume", started, "--epochs", 2, "--data", tmp_path / "demo")
    assert done.returncode == 2
    assert "its run began with other training images or labels" in done.stderr
    shutil.copytree(small_demo, tmp_path / "other")
    table = tmp_path / "other" / "PALM-Validation-GT" / "labels.csv"
    table.write_text("imgName,Label\nV0001.jpg,1\n")
    done = tool("train", "--resume", started, "--epochs", 2, "--data", tmp_path / "other")
    assert "its run began with other validation images or labels" in done.stderr
    assert "no run there to resume" in tool("train", "--resume", tmp_path / "nowhere").stderr


@pytest.mark.slow
def test_the_tool_resumes_extends_and_honours_another_learning_rate(tool, started, small_demo, tmp_path):
    shutil.copytree(started, tmp_path / "output" / "lenet")
    finished = tool("train", "--resume", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "already finished (1 epoch)" in finished.stderr

    extended = tool("train", "--resume", "--epochs", 2, "--lr", 0.01, cwd=tmp_path)
    assert "the learning rate was 0.001, and is 0.01 from here on" in extended.stderr
    rows = (tmp_path / "output" / "lenet" / "log.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["learning_rate", "0.001", "0.01"]

    whole = tmp_path / "whole"
    shutil.copytree(started, tmp_path / "again")
    tool("train", "--resume", tmp_path / "again", "--epochs", 2)
    tool("train", "--data", small_demo, "--epochs", 2, "--seed", 3, "--output", whole)
    for name in ("log.csv", "best.pdparams", "last-0002-00000004.pdparams", "last-0002-00000004.pdopt"):
        assert (tmp_path / "again" / name).read_bytes() == (whole / name).read_bytes()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(RunError, match="not finite|the loss is"):
        run(tmp_path / "run", learning_rate=1e38, save_every=1)
    model = network()
    model.lenet.fc2.bias.set_value(np.array([np.inf], "float32"))
    optimizer = paddle.optimizer.Momentum(parameters=model.parameters())
    with pytest.raises(RunError, match="weights or velocities are not finite after step 0"):
        run_dir.save_checkpoint(tmp_path / "run", run_dir.TrainState(seed=0), model, optimizer, small_reader("train"))
    for manifest in run_dir.list_checkpoints(tmp_path / "run"):
        assert all(np.isfinite(value).all() for value in arrays(manifest.with_suffix(".pdparams")))
        assert all(np.isfinite(value).all() for value in arrays(manifest.with_suffix(".pdopt")))


def test_no_good_checkpoint_left(tmp_path):
    run(tmp_path / "run", epochs=1)
    for manifest in run_dir.list_checkpoints(tmp_path / "run"):
        manifest.write_text("{}")
    with pytest.raises(InputError, match="no good checkpoint is left; begin a new run"):
        run(tmp_path / "run", resume=True)


def test_files_of_the_users_own_in_a_run_are_left_alone(tmp_path):
    run(tmp_path / "run", epochs=1)
    for name in ("last-will.pdf", "last-epoch0.pdparams", ".notes.tmp", "last-epoch0.json"):
        (tmp_path / "run" / name).write_text("mine")
    run(tmp_path / "run", resume=True)
    for name in ("last-will.pdf", "last-epoch0.pdparams", ".notes.tmp", "last-epoch0.json"):
        assert (tmp_path / "run" / name).read_text() == "mine"


def test_a_best_epoch_that_was_not_written_any_more_is_made_up_for(tmp_path):
    history = run(tmp_path / "run", epochs=1)
    before = content(tmp_path / "run" / "best.pdparams")
    (tmp_path / "run" / "best.pdparams").unlink()
    (tmp_path / "run" / "log.csv").unlink()
    assert run(tmp_path / "run", epochs=1, resume=True) == history
    assert content(tmp_path / "run" / "best.pdparams") == before
    assert (tmp_path / "run" / "log.csv").is_file()


def test_a_finished_run_does_not_start(tmp_path, capsys):
    history = run(tmp_path / "run", epochs=1)
    assert capsys.readouterr().out.startswith("start training ... \n")
    assert run(tmp_path / "run", epochs=1, resume=True) == history
    told = capsys.readouterr()
    assert told.out == ""
    assert "already finished (1 epoch); raise --epochs to continue." in told.err


def test_the_images_of_a_run_that_are_gone_are_not_called_an_option(tmp_path):
    with pytest.raises(InputError, match=f"run: its images were in {tmp_path / 'gone'}, which is gone; say where they"):
        run_dir.resolve_data_dir(tmp_path / "run", {"data": str(tmp_path / "gone")})
    assert run_dir.resolve_data_dir(tmp_path / "run", {"data": str(tmp_path / "gone")}, "given") == "given"
    assert run_dir.resolve_data_dir(tmp_path / "run", {}) is None


def test_what_cannot_be_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for resume in (lambda: run(tmp_path / "run", resume=True), lambda: train_recipe("lenet", resume=True)):
        with pytest.raises(InputError, match="no run there to resume"):
            resume()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: a file, not a directory; expected that of a run"):
        run(tmp_path / "file", resume=True)
    run(tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match="not a run of a recipe"):
        resume_recipe(tmp_path / "run")
    model, loader = network(), small_reader("train", images=12)
    with pytest.raises(InputError, match="other images than those whose order"):
        train(model, loader, small_reader("valid"), epochs=2, output=tmp_path / "run", resume=True)


@pytest.mark.slow
def test_what_is_not_as_it_was_is_told(tool, started, tmp_path):
    shutil.copytree(started, tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    settings = json.loads(file.read_text())
    settings["versions"]["paddle"] = "2.0"
    file.write_text(json.dumps(settings))
    assert "begun with paddle 2.0, now " in tool("train", "--resume", tmp_path / "run").stderr
    file.write_text(json.dumps({**settings, "data": str(tmp_path / "moved")}))
    done = tool("train", "--resume", tmp_path / "run")
    assert done.returncode == 2
    assert "which is gone; say where they are with --data" in done.stderr


def stopped_by(number, data, output):
    """Train by the tool, and send it a signal after its first step: (exit status, standard error)."""
    command = [sys.executable, PROJECT / "tools" / "train.py", "--data", data, "--output", output]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().startswith("epoch: 0"):
        pass
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.slow
@posix
def test_a_terminated_run_says_how_to_go_on(small_demo, tmp_path):
    status, errors = stopped_by(signal.SIGTERM, small_demo, tmp_path / "run")
    assert status == 128 + signal.SIGTERM
    assert errors.splitlines()[-1].endswith(f"train.py --resume {tmp_path / 'run'}")
    assert run_dir.list_checkpoints(tmp_path / "run")


@pytest.mark.slow
@posix
@pytest.mark.parametrize("piped", [False, True])
def test_a_terminal_that_is_closed_loses_nothing(piped, small_demo, tmp_path):
    """Its end closes while lines and the progress bar are written to it; to a pipe, while nobody reads it any more."""
    import pty

    terminal, end = pty.openpty()
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options = ("--data", small_demo, "--output", tmp_path / "run", "--epochs", "500", "--no-report")
    command = [sys.executable, PROJECT / "tools" / "train.py", *map(str, options)]
    streams = pipe if piped else {"stdout": end, "stderr": end}
    process = subprocess.Popen(command, **streams, stdin=end, start_new_session=True, preexec_fn=control_terminal)
    os.close(end)
    shown = b""
    while b"[validation]" not in shown:
        shown += os.read(process.stdout.fileno() if piped else terminal, 4096)
    if piped:
        process.stdout.close()
    before = last_step(tmp_path / "run")
    os.close(terminal)  # the kernel sends SIGHUP
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert last_step(tmp_path / "run") > before


def control_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def last_step(directory):
    return int(run_dir.list_checkpoints(directory)[-1].stem.rpartition("-")[2])


@pytest.mark.slow
@posix
def test_nohup_is_respected(small_demo, tmp_path):
    code = "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); subprocess.run(sys.argv[1:])"
    command = [sys.executable, PROJECT / "tools" / "train.py", "--data", small_demo, "--epochs", "2", "--no-report"]
    output = ["--output", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, *output], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while not process.stdout.readline().startswith("epoch: 0"):
        pass
    os.killpg(process.pid, signal.SIGHUP)
    told, _ = process.communicate(timeout=60)
    assert "last epoch 1: accuracy" in told


@pytest.mark.slow
@posix
def test_ctrl_c_says_how_to_go_on(small_demo, tmp_path):
    status, errors = stopped_by(signal.SIGINT, small_demo, tmp_path / "run")
    assert status == 130
    assert re_tail(errors) == [f"train.py --resume {tmp_path / 'run'}", "train.py: interrupted"]
    assert run_dir.list_checkpoints(tmp_path / "run")


def re_tail(errors):
    first, second = errors.splitlines()[-2:]
    return [first[first.index("train.py") :], second]
