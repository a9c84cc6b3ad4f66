"""Runs that differ in their seed only: each as if made alone, in one directory that can be gone on with."""

import json
import shutil

import pytest
from helpers import (
    PROJECT,
    tiny,  # noqa: F401  the recipe
)
from helpers.processes import assert_refused, posix, train
from helpers.runs import contents

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import read_log, read_seeds
from palm_cls.core.errors import InputError, RunError
from palm_cls.training.experiment import train_recipe
from palm_cls.training.multi_seed import resume_seeds, train_seeds


@pytest.fixture(scope="module")
def several(small_demo, tmp_path_factory):
    """Runs of an epoch with the seeds 0 and 2: (CompletedProcess, directory)."""
    cwd = tmp_path_factory.mktemp("several")
    done = train("--data", small_demo, "--seeds", "0,2", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "output" / "tiny"


@pytest.fixture
def copy(several, tmp_path):
    return shutil.copytree(several[1], tmp_path / "copy")


def test_each_run_is_as_if_made_alone(several, small_demo, tmp_path):
    train_recipe("tiny", data=small_demo, seed=2, output=tmp_path / "alone", report=False)
    alone, second = contents(tmp_path / "alone"), contents(several[1] / "seed-2")
    assert list(alone) == list(second)
    assert alone == second


def test_it_closes_with_mean_deviation_and_range(several):
    done, directory = several
    first, second = (read_log(directory / f"seed-{seed}")[0]["valid_accuracy"] for seed in (0, 2))
    mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
    numbers = f"mean {mean:.4f}, standard deviation {deviation:.4f}, range {min(first, second):.4f} to "
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("seed ")] == [
        f"seed {seed} ({number} of 2), in {directory.relative_to(directory.parents[1]) / f'seed-{seed}'}:"
        for number, seed in ((1, 0), (2, 2))
    ]
    end = lines[lines.index(next(line for line in lines if line.startswith("seeds 0, 2: "))) :]
    assert "accuracy on 10 validation images (demo set: drawn images" in end[0]
    assert end[1].startswith(f"    last epoch: {numbers}")
    assert end[2].startswith(f"    best epoch (optimistic: chosen on these very images): {numbers}")
    assert end[4].endswith("compare.py output/tiny")
    assert done.stderr.count("drawn by this program") == 1


def test_what_was_run_there_before_is_moved_aside(tmp_path):
    output = tmp_path / "out"
    run_dir.create_run_dir(output, {"number": 1}).close()
    run_dir.create_seeds_dir(output, {"seeds": [0, 1]}).close()
    run_dir.create_run_dir(output / "seed-1", {}).close()
    run_dir.create_seeds_dir(output, {"seeds": [2]}).close()
    run_dir.create_run_dir(output, {"number": 2}).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-1", "out-2", "out-3"]
    assert read_seeds(tmp_path / "out-2")["seeds"] == [0, 1]
    assert (tmp_path / "out-2" / "seed-1" / "settings.json").is_file()
    assert json.loads((output / "settings.json").read_text())["number"] == 2
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "seeds.json").write_text('{"seeds": ["poppy"]}')
    with pytest.raises(InputError, match="not the list of seeds of several runs"):
        run_dir.create_seeds_dir(tmp_path / "own", {"seeds": [2]})


def test_nothing_is_moved_while_somebody_is_at_work_in_it(tmp_path):
    run_dir.create_seeds_dir(tmp_path / "out", {"seeds": [0, 1]}).close()
    with (
        run_dir.create_run_dir(tmp_path / "out" / "seed-1", {}),
        pytest.raises(RunError, match="seed-1: in use by another"),
    ):
        run_dir.create_seeds_dir(tmp_path / "out", {"seeds": [2]})
    with run_dir.lock_run(tmp_path / "out"), pytest.raises(RunError, match="out: in use by another"):
        run_dir.create_run_dir(tmp_path / "out", {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@posix
@pytest.mark.slow
def test_ctrl_c_in_the_second_run_and_going_on(several, small_demo, tmp_path):
    output = tmp_path / "out"
    done = train("--data", small_demo, "--output", output, "--seeds", "0-2", INTERRUPTED_STEP="3")  # 2 an epoch
    assert done.returncode == 130
    assert done.stderr.splitlines()[-2].endswith(f"train.py --resume {output}")
    assert done.stderr.splitlines()[-1] == "train.py: interrupted"
    assert contents(output / "seed-0") == contents(several[1] / "seed-0")
    assert run_dir.list_checkpoints(output / "seed-1")
    assert not (output / "seed-1" / "log.csv").exists()
    assert not (output / "seed-2").exists()

    done = train("--resume", output)
    assert done.returncode == 0, done.stderr
    assert "seeds 0, 1, 2: accuracy on 10" in done.stdout
    assert contents(output / "seed-0") == contents(several[1] / "seed-0")
    assert contents(output / "seed-2") == contents(several[1] / "seed-2")
    assert len(read_log(output / "seed-1")) == 1


def test_more_epochs_and_more_seeds(copy, several, capsys):
    trained = resume_seeds(copy, seeds=[0, 2, 1], epochs=2, report=False)
    assert list(trained.histories) == [0, 2, 1]
    assert [len(read_log(copy / f"seed-{seed}")) for seed in trained.histories] == [2, 2, 2]
    assert read_log(copy / "seed-2")[0] == read_log(several[1] / "seed-2")[0]
    assert capsys.readouterr().err.count("1 of 2 epochs done") == 2
    written = read_seeds(copy)
    assert (written["seeds"], written["epochs"]) == ([0, 2, 1], 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "alexnet"}, "its model is tiny, not alexnet"),
        ({"learning_rate": 0.01}, "its learning rate is 0.001, not 0.01"),
        ({"batch_size": 5}, "its batch size is 10, not 5"),
        ({"seed": 2}, "several seeds, not with seed 2; leave --seed out"),
        ({"seeds": [0, 1]}, "begun with seed 2, too; --seeds can only add"),
        ({"seeds": [0, 2, 2]}, "expected one or more, each once"),
        ({"epochs": 0}, "have 1 epochs; --epochs can only be more"),
    ],
)
def test_what_a_directory_of_seeds_does_not_go_on_with(several, changes, told):
    before = (several[1] / "seeds.json").read_bytes()
    with pytest.raises(InputError, match=told):
        resume_seeds(several[1], **changes)
    assert (several[1] / "seeds.json").read_bytes() == before


def test_what_cannot_be_gone_on_with(copy, tmp_path, small_demo):
    with pytest.raises(InputError, match="no runs with several seeds there to resume"):
        resume_seeds(copy / "seed-0")
    with pytest.raises(TypeError, match="takes no epoch"):
        resume_seeds(copy, epoch=3)
    with run_dir.lock_run(copy), pytest.raises(RunError, match="in use by another process"):
        resume_seeds(copy)
    shutil.copytree(small_demo, tmp_path / "other")
    next((tmp_path / "other").glob("PALM-Training400/*/P*.jpg")).unlink()
    with pytest.raises(InputError, match="its run began with other training images"):
        resume_seeds(copy, data=tmp_path / "other", seeds=[0, 2, 3])
    assert not (copy / "seed-3").exists()


@pytest.mark.slow
def test_what_is_refused_moves_nothing(several, copy, small_demo, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for options, told in (
        ({"data": tmp_path / "nowhere"}, "nowhere: no such directory"),
        ({"train_csv": tmp_path / "no.csv"}, "no.csv: no such file"),
        ({"weights": tmp_path / "nothing"}, "nothing: no weights there"),
        ({"weights": copy / "seed-0"}, "would be moved aside with .*, and missing then"),
        ({"name": "alexnet", "weights": several[1] / "seed-0"}, "weights of another network"),
        ({"device": "tpu"}, "device 'tpu' is none of"),
        ({"seeds": []}, "expected one or more, each once"),
        ({"seeds": [1, 1]}, "expected one or more, each once"),
    ):
        with pytest.raises(InputError, match=told):
            train_seeds(**{"name": "tiny", "seeds": [0], "data": small_demo, "output": copy, **options})
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "'' is not a whole number"),
        ("3-1", "'3-1' is not a range of 1 to 1000 seeds, from low to high"),
        ("0-4294967295", "is not a range of 1 to 1000"),
        ("0-2,1", "'0-2,1' has a seed twice"),
        ("1,,2", "'' is not a whole number"),
        ("-1", "--seeds"),
        ("4294967296", "is not a whole number from 0 to 4294967295"),
    ],
)
def test_lists_of_seeds_that_are_none(tool_here, value, told):
    assert_refused(tool_here("train", "--seeds", value), told)


def test_lists_of_seeds(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import _cli

    for text, expected in (("0-4", [0, 1, 2, 3, 4]), ("0,3,7", [0, 3, 7]), ("2", [2]), ("7,0-2", [7, 0, 1, 2])):
        assert _cli.seeds(text) == expected


@pytest.mark.slow
def test_one_seed_or_several(tool_here, several):
    assert_refused(tool_here("train", "--seed", 1, "--seeds", "1-2"), "not allowed with argument --seed")
    done = train("--resume", several[1] / "seed-0", "--seeds", "0-2")
    assert done.returncode == 2
    assert "no runs with several seeds there to resume" in done.stderr
