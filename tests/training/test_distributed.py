"""Several processes that train together, on the CPU: tests/helpers/team.py is what each of them does."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT, team
from helpers.runs import contents, small_reader
from helpers.training import network, reader

from palm_cls.checkpoints import run_dir
from palm_cls.core import console, device, environment
from palm_cls.core.errors import InputError
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.loader_factory import palm_loaders
from palm_cls.data.palm import find_dataset
from palm_cls.training import multi_seed
from palm_cls.training.experiment import train

import paddle

pytestmark = pytest.mark.skipif(not paddle.distributed.is_available(), reason="this paddle has one process only")


def launched(directory, script, *args, **options):
    """The launcher's Popen for two processes of a script; their output goes to directory/log."""
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command = [*launcher, "--log_dir", str(directory / "log"), str(PROJECT / script), *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as where nobody has said otherwise
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=directory, env=environment, **pipes, **options)


def finished(process):
    """The CompletedProcess of a Popen."""
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def log(directory, rank):
    """What a process has printed, without paddle's own warnings at the start."""
    lines = (directory / "log" / f"workerlog.{rank}").read_text().splitlines()
    return [line for line in lines if not re.search(r"Warning: |^  warnings\.warn", line)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The directory in which two processes have done `team.runs`."""
    directory = tmp_path_factory.mktemp("team")
    done = finished(launched(directory, "tests/helpers/team.py", "runs", directory))
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_fixed_steps_are_those_of_one_process(made):
    """The last batch of an epoch has one image: the second process has none, and its gradient must not count."""
    found, expected = json.loads((made / "results.json").read_text()), team.fixed_steps()
    assert len(found["losses"]) == 8
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-6)
    assert found["mean"] == pytest.approx(expected["mean"], rel=1e-6)
    for key in ("history", "three"):
        for record, other in zip(found[key], expected[key]):
            assert record == pytest.approx(other, rel=1e-6)
            assert record["valid_images"] == team.IMAGES


def test_a_run_that_goes_on_is_as_if_it_had_never_stopped(made):
    whole = contents(made / "whole")
    assert contents(made / "parted") == whole
    assert contents(made / "stopped") == whole


def test_a_signal_to_one_process_stops_all_after_the_same_step(made):
    assert f"last-0001-{team.STEP:08d}.json" in json.loads((made / "stopped.json").read_text())
    assert f"{made / 'stopped'}: 1 of 2 epochs done; resuming after step {team.STEP}." in log(made, 0)


def test_only_the_first_process_tells(made):
    assert log(made, 0)
    assert log(made, 1) == []


def test_another_number_of_processes_is_refused(made, tmp_path):
    shutil.copytree(made / "whole", tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="begun with 2 processes, not 1; a run goes on only as it began"):
        team.run(team.Network, output=tmp_path / "run", resume=True, epochs=3)
    assert contents(tmp_path / "run") == before
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    del settings["processes"]  # as before there could be several
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    team.run(team.Network, output=tmp_path / "run", resume=True, epochs=3)
    assert run_dir.read_settings(tmp_path / "run")["processes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("function", ["killed", "killed_in_backward"])
def test_a_process_that_is_killed_ends_the_other_with_a_message(function, tmp_path):
    done = finished(launched(tmp_path, "tests/helpers/team.py", function, tmp_path))
    assert done.returncode != 0
    told = log(tmp_path, 0)
    assert re.search("another of the 2 processes has ended, or does not answer", told[-2])
    assert told[-1].startswith(
        f"What it printed is in {tmp_path / 'log' / 'workerlog.*'}. Checkpoints stay as they are"
    )
    assert not [line for line in told if re.search("terminate called|Interrupted", line)]
    done = finished(launched(tmp_path, "tests/helpers/team.py", "resumed", tmp_path))
    assert done.returncode == 0, done.stdout
    assert "1 of 2 epochs done; resuming after step 4." in done.stdout


@pytest.mark.slow
def test_processes_that_differ_are_refused(tmp_path):
    done = finished(launched(tmp_path, "tests/helpers/team.py", "different", tmp_path))
    assert done.returncode != 0
    assert "the 2 processes do not have the same network, settings, seed; start all of them with" in done.stdout


@pytest.fixture(scope="module")
def trained(small_demo, tmp_path_factory):
    """The lesson's LeNet, trained by two processes that fill a cache together: (CompletedProcess, directory)."""
    directory = tmp_path_factory.mktemp("trained")
    shutil.copytree(small_demo, directory / "demo", ignore=shutil.ignore_patterns(".palm_cls-*"))
    options = ("--data", "demo", "--epochs", 2, "--seed", 3, "--output", "run")
    return finished(launched(directory, "tools/train.py", *options)), directory


@pytest.mark.slow
def test_the_tool(trained, tool):
    done, directory = trained
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("epoch: ") for line in lines) == 2
    assert sum(line.startswith("[validation] ") for line in lines) == 2
    assert sum(line.startswith("Running on cpu: ") and "2 processes with " in line for line in lines) == 1
    assert log(directory, 1) == []
    assert (directory / "run" / "report.html").is_file()
    alone = ("--data", directory / "demo", "--epochs", 2, "--seed", 3, "--no-cache", "--output", directory / "alone")
    assert tool("train", *alone).returncode == 0
    found, expected = (np.loadtxt(directory / run / "log.csv", delimiter=",", skiprows=1) for run in ("run", "alone"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert set(found[:, -1]) == {10}


@pytest.mark.slow
def test_what_one_process_alone_or_another_number_cannot_do(trained, tool):
    _, directory = trained
    done = tool("train", "--resume", directory / "run", "--epochs", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert "begun with 2 processes, not 1" in done.stderr
    done = finished(launched(directory, "tools/train.py", "--data", "demo", "--seeds", "0-1"))
    assert done.returncode != 0  # of whichever process the launcher tells
    assert "train.py: --seeds is for one process" in done.stdout
    assert not (directory / "output").exists()


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_all(small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    image = tmp_path / "demo" / "PALM-Training400" / "PALM-Training400" / "P0001.jpg"
    image.write_bytes(b"gone")
    done = finished(launched(tmp_path, "tools/train.py", "--data", tmp_path / "demo", "--epochs", 1))
    assert done.returncode != 0
    told = log(tmp_path, 0) + log(tmp_path, 1)
    assert sum(f"{image}: not an image that can be decoded" in line for line in told) == 1


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(small_demo, tmp_path):
    options = ("--data", small_demo, "--epochs", 500, "--output", "run")
    process = launched(tmp_path, "tools/train.py", *options, start_new_session=True)
    while not process.stdout.readline().startswith("[validation]"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)  # to which the launcher does what it does at Ctrl-C
    process.communicate(timeout=120)
    told = log(tmp_path, 0)
    assert told[-2].startswith("Resume with: python -m paddle.distributed.launch --nproc_per_node 2 ")
    assert told[-2].endswith("train.py --resume run")
    assert told[-1] == log(tmp_path, 1)[-1] == "train.py: interrupted"
    step = int(run_dir.list_checkpoints(tmp_path / "run")[-1].stem.rpartition("-")[2])
    done = finished(launched(tmp_path, "tools/train.py", "--resume", "run", "--epochs", -(-step // 2), "--no-report"))
    assert done.returncode == 0, done.stdout
    assert f"after step {step}." in done.stdout or "already finished" in done.stdout


@pytest.fixture
def second_of_three(monkeypatch):
    """This process passes for the second of three, of which two are on this machine."""
    for name, value in {
        "TRAINERS_NUM": "3",
        "TRAINER_ID": "1",
        "LOCAL_SIZE": "2",
        "CURRENT_ENDPOINT": "127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"PADDLE_{name}", value)


def test_every_image_is_read_by_one_process(small_demo):
    train_loader, _ = palm_loaders(find_dataset(small_demo), batch_size=8)
    arrays = ArrayLoader("", np.arange(20 * 4, dtype="uint8").reshape(20, 2, 2), np.arange(20).reshape(20, 1), 8, [])
    for loader in (train_loader, arrays):
        random.seed(0)
        whole = list(loader())
        for first in range(3):
            loader.shard = first, 3
            for (imgs, labels), (all_imgs, all_labels) in zip(loader.iter_from(0), whole):
                np.testing.assert_array_equal(imgs, all_imgs[first::3])
                np.testing.assert_array_equal(labels, all_labels[first::3])
        loader.shard = 6, 7  # of the last batch, which has four images, nothing is left: one that is not to count
        *_, (imgs, _) = loader.iter_from(0)
        np.testing.assert_array_equal(imgs, whole[-1][0][:1])
        assert loader.num_batches == len(whole) == 3


def test_the_cores_of_a_machine_are_divided(monkeypatch, second_of_three):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import _cli

    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "1")
    cores = environment.available_cores()
    for here in (cores, cores + 1):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", str(here))
        assert environment.available_cores() == 1
    for given, settled in (("1", None), ("3", "3")):  # 1 is what the launcher's own import of paddle sets
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        _cli.configure_runtime({})
        assert os.environ.get("OMP_NUM_THREADS") == settled
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _cli.configure_runtime({"threads": 1})
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_each_process_has_random_numbers_of_its_own(monkeypatch, second_of_three):
    def drawn(rank):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        device.seed_step(3, 7)
        return paddle.rand([4]).tolist()

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(rank)) for rank in range(3)}) == 3
    first = drawn(0)
    monkeypatch.delenv("PADDLE_TRAINERS_NUM")
    assert drawn(0) == first


def test_what_several_processes_cannot_do(second_of_three, tmp_path, capsys):
    console.log("heard")
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="choose the GPUs of several with the launcher's --devices"):
        device.choose_device("gpu:1")
    for several in (lambda: multi_seed.train_seeds("lenet", [0, 1]), lambda: multi_seed.resume_seeds(tmp_path)):
        with pytest.raises(InputError, match="--seeds is for one process"):
            several()
    with pytest.raises(InputError, match="readers as `data_loader` gives them"):
        train(network(), reader([4]), reader([4]))
    loader = small_reader("train")
    loader.batch_size = 2
    with pytest.raises(InputError, match="a batch of 2 cannot be divided among 3 processes"):
        train(network(), loader, small_reader("valid"))
