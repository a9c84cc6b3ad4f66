"""A run's scalars, as VisualDL reads them back; and what happens without VisualDL, or where it fails."""

import shutil
import sys

import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.processes import assert_refused, posix
from helpers.processes import train as train_tool
from helpers.runs import content, contents
from sklearn.metrics import roc_auc_score

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import LOG_COLUMNS, read_log
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import palm_valid_loader
from palm_cls.data.palm import detect_layout
from palm_cls.eval.evaluate import Predictions, predict_all
from palm_cls.training import visualdl as scalars
from palm_cls.training.experiment import resume_recipe, train, train_recipe
from palm_cls.training.multi_seed import resume_seeds, train_seeds
from palm_cls.training.visualdl import FILE, FOLDER, Scalars

NOT_INSTALLED = "visualdl is not installed: python -m pip install visualdl"
ABSENT = f'raise ModuleNotFoundError("No module named {FOLDER!r}", name={FOLDER!r})'
TAILS = (  # an empty number that says it is longer; a cut size; what a power failure may leave; noise
    b"\x40\0\0\0\0\0\0\0\n\0",
    b"\x40\0\0",
    bytes(64),
    b"\xff" * 64,
)
STEP = ("step/loss", "step/learning_rate")
EPOCH = tuple(f"epoch/{name}" for name in (*LOG_COLUMNS, "valid_auc"))


@pytest.fixture(scope="module")
def visualdl():
    """VisualDL, without which the test is skipped."""
    return pytest.importorskip("visualdl", reason="needs VisualDL: python -m pip install visualdl")


@pytest.fixture(scope="module")
def uninterrupted(visualdl, small_demo, tmp_path_factory):
    """Two epochs of 20 steps, with scalars: the directory of the run."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(directory, small_demo, visualdl=True)
    return directory


@pytest.fixture
def copy(uninterrupted, tmp_path):
    return shutil.copytree(uninterrupted, tmp_path / "copy")


def run(output, data, epochs=2, **options):
    return train_recipe("tiny", data=data, epochs=epochs, batch_size=1, output=output, report=False, **options)


def resume(output, **options):
    return resume_recipe(output, report=False, **options)


def read(directory):
    """{tag: [(number of the step or epoch, value)]} of a run, as VisualDL reads it."""
    from visualdl import LogReader

    reader = LogReader(file_path=str(directory / FOLDER / FILE))
    tags = reader.get_tags()["scalar"]
    return {tag: [(record.id, record.value) for record in reader.get_data("scalar", tag)] for tag in tags}


def without_scalars(directory):
    """What a run leaves behind besides its scalars, to the bit."""
    return {path.name: content(path) for path in directory.iterdir() if path.name not in (FOLDER, run_dir.LOCK)}


def float32(values):
    return [(number, float(np.float32(value))) for number, value in enumerate(values)]


# With VisualDL


def test_they_are_those_of_the_log_and_of_the_printed_lines(visualdl, small_demo, tmp_path, capsys):
    trained = run(tmp_path / "run", small_demo, visualdl=True, learning_rate=0.002)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("epoch: ")]
    printed = [(20 * int(line[1][:-1]) + int(line[3][:-1]), float(line[-1])) for line in lines]
    found = read(tmp_path / "run")
    assert sorted(found) == sorted(STEP + EPOCH)
    assert [number for number, _ in found["step/loss"]] == [0, 10, 20, 30]
    for (number, value), shown in zip(found["step/loss"], printed):
        assert (number, value) == (shown[0], pytest.approx(shown[1], rel=1e-6))
    assert found["step/learning_rate"] == [(number, float(np.float32(0.002))) for number in (0, 10, 20, 30)]
    for name in LOG_COLUMNS:
        assert found[f"epoch/{name}"] == float32(row[name] for row in read_log(tmp_path / "run")), name
    valid = predict_all(trained.model, palm_valid_loader(detect_layout(small_demo), cache=False))
    assert found["epoch/valid_auc"][1][1] == np.float32(roc_auc_score(valid.labels.ravel(), valid.logits.ravel()))


def test_the_run_has_the_same_bits_with_them_and_without(uninterrupted, small_demo, tmp_path):
    run(tmp_path / "plain", small_demo)
    assert contents(tmp_path / "plain") == without_scalars(uninterrupted)
    assert (uninterrupted / FOLDER).is_dir()


def test_a_run_that_was_killed_shows_no_step_twice(copy, uninterrupted):
    """Killed at the end of its second epoch, after the checkpoint of the first."""
    for file in copy.glob("last-0002-*"):
        file.unlink()
    resume(copy)
    assert read(copy) == read(uninterrupted)


@pytest.mark.parametrize("tail", TAILS)
def test_what_is_no_message_at_the_end_is_cut_off(uninterrupted, small_demo, tmp_path, tail):
    run(tmp_path / "run", small_demo, epochs=1, visualdl=True)
    with (tmp_path / "run" / FOLDER / FILE).open("ab") as file:
        file.write(tail)
    resume(tmp_path / "run", epochs=2)
    assert read(tmp_path / "run") == read(uninterrupted)


def test_what_the_checkpoint_knows_is_made_up_for(copy, uninterrupted):
    """Of a run that stopped before its last epoch, and whose file is empty now."""
    for file in copy.glob("last-0002-*"):
        file.unlink()
    (copy / FOLDER / FILE).write_bytes(b"")
    resume(copy)
    found, whole = read(copy), read(uninterrupted)
    for tag in EPOCH[:-1]:
        assert found[tag] == whole[tag]
    assert (found["epoch/valid_auc"], found["step/loss"]) == (whole["epoch/valid_auc"][1:], whole["step/loss"][2:])


@posix
def test_ctrl_c_and_going_on_without_saying_so_again(visualdl, uninterrupted, small_demo, tmp_path):
    command = ("--data", small_demo, "--epochs", 2, "--batch-size", 1, "--output", tmp_path / "run", "--visualdl")
    assert train_tool(*command, INTERRUPTED_STEP="15").returncode == 130
    assert [number for number, _ in read(tmp_path / "run")["step/loss"]] == [0, 10]
    done = train_tool("--resume", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "run") == read(uninterrupted)


def test_a_run_begun_without_them(uninterrupted, small_demo, tmp_path):
    """Its earlier epochs are in its checkpoint, but for their AUC."""
    run(tmp_path / "run", small_demo, epochs=1)
    resume(tmp_path / "run", epochs=2)
    assert not (tmp_path / "run" / FOLDER).exists()
    resume(tmp_path / "run", visualdl=True)  # though it is finished
    expected = read(uninterrupted)
    assert read(tmp_path / "run") == {tag: expected[tag] for tag in EPOCH[:-1]}


def test_a_run_goes_on_where_visualdl_is_not_installed_any_more(copy, uninterrupted, tmp_path, capsys, monkeypatch):
    before = (copy / FOLDER / FILE).read_bytes()
    with monkeypatch.context() as patch:
        take_visualdl_away(patch, tmp_path / "blocked")
        resume(copy, epochs=3)
    assert f"{copy}: without further scalars for VisualDL: {NOT_INSTALLED}\n" in capsys.readouterr().err
    assert (copy / FOLDER / FILE).read_bytes() == before
    resume(copy, epochs=4)
    found, earlier = read(copy), read(uninterrupted)
    assert [number for number, _ in found["epoch/valid_loss"]] == [0, 1, 2, 3]
    assert [number for number, _ in found["epoch/valid_auc"]] == [0, 1, 3]
    assert found["step/loss"][:4] == earlier["step/loss"]
    assert [number for number, _ in found["step/loss"]] == [0, 10, 20, 30, 60, 70]


def take_visualdl_away(monkeypatch, folder):
    """VisualDL is not installed, whether it is or not."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "visualdl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(module(folder, ABSENT))


def test_each_seed_has_its_own_and_they_are_shown_side_by_side(visualdl, small_demo, tmp_path):
    output = tmp_path / "output" / "tiny"
    train_seeds("tiny", [0, 2], data=small_demo, epochs=1, output=output, report=False, visualdl=True)
    resume_seeds(output, seeds=[0, 2, 1], report=False)
    for seed in (0, 1, 2):
        record = read_log(output / f"seed-{seed}")[0]
        assert read(output / f"seed-{seed}")["epoch/train_loss"] == float32([record["train_loss"]])
    shown = visualdl.LogReader(logdir=str(tmp_path / "output")).runs()
    assert sorted(shown) == [str(output / f"seed-{seed}" / FOLDER) for seed in (0, 1, 2)]


def test_a_network_or_images_that_have_no_auc(visualdl, tmp_path):
    record = {"epoch": 0, **dict.fromkeys(LOG_COLUMNS, 0.5)}
    rng = np.random.RandomState(0)
    for name, labels, logits in (
        ("two of three classes", rng.randint(0, 2, (9, 1)), rng.randn(9, 3)),
        ("one class", np.ones((9, 1)), rng.randn(9, 1)),
    ):
        (tmp_path / name).mkdir()
        writer = Scalars(tmp_path / name, run_dir.TrainState(seed=0))
        writer.epoch(record, Predictions(None, labels, logits))
        writer.close()
        assert sorted(read(tmp_path / name)) == sorted(EPOCH[:-1])


@pytest.mark.parametrize("failing_call", [1, 2, 5])
def test_a_full_disk_costs_the_scalars_only(
    visualdl, uninterrupted, small_demo, tmp_path, monkeypatch, capsys, failing_call
):
    calls = iter(range(1, 100))

    def filling_up(file, content, append=scalars.append_or_rollback):
        if next(calls) >= failing_call:
            raise OSError(28, "No space left on device")
        append(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(scalars, "append_or_rollback", filling_up)
        run(tmp_path / "run", small_demo, visualdl=True)
    file = tmp_path / "run" / FOLDER / FILE
    told = f"{file}: No space left on device: the run goes on, without further scalars for VisualDL.\n"
    assert capsys.readouterr().err.count(told) == 1
    assert without_scalars(tmp_path / "run") == without_scalars(uninterrupted)
    resume(tmp_path / "run")  # with room again, what the checkpoint knows comes after it
    found = read(tmp_path / "run")
    assert {tag: found[tag] for tag in EPOCH[:-1]} == {tag: read(uninterrupted)[tag] for tag in EPOCH[:-1]}


def test_what_is_in_the_way_costs_the_scalars_only(visualdl, small_demo, tmp_path, capsys):
    run(tmp_path / "run", small_demo, epochs=1)
    (tmp_path / "run" / FOLDER).write_text("mine")
    resume(tmp_path / "run", epochs=2, visualdl=True)
    assert "the run goes on, without further scalars for VisualDL" in capsys.readouterr().err
    assert len(read_log(tmp_path / "run")) == 2
    assert (tmp_path / "run" / FOLDER).read_text() == "mine"


def test_visualdl_says_nothing_on_the_screen(visualdl, small_demo, tmp_path):
    command = ("--data", small_demo, "--epochs", 1, "--output", "run")
    told = [train_tool(*command, *options, cwd=tmp_path / name) for name, options in folders(tmp_path)]
    assert told[0].returncode == 0, told[0].stderr
    assert (told[0].stdout, told[0].stderr) == (told[1].stdout, told[1].stderr)


def folders(tmp_path):
    for name, options in (("with", ["--visualdl"]), ("without", [])):
        (tmp_path / name).mkdir()
        yield name, options


# Without VisualDL


@pytest.mark.parametrize(
    "options", [[], *(pytest.param(options, marks=pytest.mark.slow) for options in (["--seeds", "0-1"], ["--resume"]))]
)
def test_the_tool_says_so_before_it_does_anything(small_demo, tmp_path, options):
    run(tmp_path / "output" / "tiny", small_demo, epochs=1)
    blocked = module(tmp_path / "blocked", ABSENT)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = train_tool("--data", small_demo, "--visualdl", *options, cwd=tmp_path, PYTHONPATH=blocked)
    assert_refused(done, f"train.py: {NOT_INSTALLED}, or leave --visualdl out\n")
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def module(folder, text):
    """A folder for PYTHONPATH with a module of VisualDL's name."""
    folder.mkdir()
    (folder / "visualdl.py").write_text(text)
    return str(folder)


@pytest.mark.slow
def test_one_that_cannot_be_imported_is_told_with_its_reason(small_demo, tmp_path):
    broken = module(tmp_path / "broken", 'print("noise")\nraise TypeError("Descriptors cannot\\nbe created directly.")')
    done = train_tool("--data", small_demo, "--visualdl", cwd=tmp_path, PYTHONPATH=broken)
    told = "train.py: visualdl cannot be imported (Descriptors cannot be created directly.): python -m pip install"
    assert_refused(done, told)
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_it_is_imported_only_when_asked_for(small_demo, tmp_path):
    noisy = module(tmp_path / "noisy", "import os; os._exit(7)")
    done = train_tool("--data", small_demo, cwd=tmp_path, PYTHONPATH=noisy)
    assert done.returncode == 0, done.stderr
    assert train_tool("--data", small_demo, "--visualdl", cwd=tmp_path, PYTHONPATH=noisy).returncode == 7


def test_so_do_the_calls_of_the_package(small_demo, tmp_path, monkeypatch):
    take_visualdl_away(monkeypatch, tmp_path / "blocked")
    output = tmp_path / "run"
    for call in (
        lambda: train(tiny.Tiny(), *2 * [palm_valid_loader(detect_layout(small_demo))], output=output, visualdl=True),
        lambda: train_recipe("tiny", data=small_demo, output=output, visualdl=True),
        lambda: train_seeds("tiny", [0, 1], data=small_demo, output=output, visualdl=True),
    ):
        with pytest.raises(InputError, match=f"^{NOT_INSTALLED}, or leave --visualdl out$"):
            call()
    assert not output.exists()


def test_scalars_need_a_directory_to_go_to(small_demo):
    with pytest.raises(InputError, match="go into the directory of the run"):
        train(tiny.Tiny(), *2 * [palm_valid_loader(detect_layout(small_demo))], visualdl=True)
