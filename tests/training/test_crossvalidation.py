"""Cross-validation: who is trained on what, and that it is never lost."""

import json
import os
import shutil
import sys

import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.kills import fill_disk_at_checkpoint, in_a_fresh_process, kill_at_every_touch_of_the_disk
from helpers.processes import assert_refused, posix
from helpers.runs import contents
from sklearn.model_selection import StratifiedGroupKFold  # noqa: F401  before a fork, in which it would take seconds

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import CROSSVALIDATION, read_log
from palm_cls.checkpoints.weights import save
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import find_dataset
from palm_cls.eval.predictions_file import read_fold_table
from palm_cls.recipes import build_model, find_recipe
from palm_cls.training import crossvalidation
from palm_cls.training.crossvalidation import crossvalidate, resume_crossvalidation
from palm_cls.training.experiment import train_recipe

FILES = ("folds.csv", "predictions.csv", "results.json")


def run(output, data, **options):
    return crossvalidate("tiny", output, data=data, **{"folds": 2, "groups": False, "epochs": 2, **options})


def start_or_resume(output, data):
    if (output / CROSSVALIDATION).is_file():
        resume_crossvalidation(output)
    else:
        run(output, data, save_every=2, batch_size=4)


def results(output):
    """What a cross-validation leaves behind, to the bit, but for the page, which holds the time."""
    folds = {path.relative_to(output).as_posix(): contents(path) for path in sorted(output.glob("seed-*/fold-*"))}
    return {**folds, **{name: (output / name).read_bytes() for name in FILES}}


@pytest.fixture(scope="module")
def finished(small_demo, tmp_path_factory):
    """(Directory of a cross-validation with two seeds, its result)."""
    output = tmp_path_factory.mktemp("folds") / "run"
    return output, run(output, small_demo, seeds=[0, 1])


def test_every_image_is_predicted_once_without_having_been_trained_on(small_demo, tmp_path, monkeypatch):
    trained = []

    def spy(model, train_loader, held_out, *args, **kwargs):
        trained.append((set(train_loader.order), set(held_out.order)))
        assert (train_loader.shuffle, held_out.shuffle, held_out.augmentation) == (True, False, None)
        return train(model, train_loader, held_out, *args, **kwargs)

    train = crossvalidation.train
    monkeypatch.setattr(crossvalidation, "train", spy)
    result = run(tmp_path / "run", small_demo, folds=4, epochs=1, augmentation="lesson")
    everything = set(result.names)
    assert len(everything) == 20
    assert [rest | held_out for rest, held_out in trained] == [everything] * 4
    assert not any(rest & held_out for rest, held_out in trained)
    assert sorted(name for _, held_out in trained for name in held_out) == result.names
    table = read_fold_table(tmp_path / "run", 4)
    assert len(table) == 20
    assert all(row["imgName"] in trained[row["fold"]][1] for row in table)


def test_a_fold_is_predicted_by_the_last_epoch_of_its_run(finished, small_demo, tmp_path):
    """The last line of its log is the validation of the very network that predicts; no weights stay behind."""
    output, result = finished
    for number, seed in enumerate((0, 1)):
        for fold in range(2):
            directory = output / f"seed-{seed}" / f"fold-{fold}"
            chosen = result.folds == fold
            accuracy = ((result.logits[1][number][chosen] > 0) == result.labels[chosen]).mean()
            assert read_log(directory)[-1]["valid_accuracy"] == accuracy
            assert sorted(path.suffix for path in directory.iterdir() if path.suffix) == [".csv", ".csv", ".json"]


def test_seeds_differ_and_eight_views_are_not_one(finished):
    logits = finished[1].logits
    assert logits[1].shape == logits[8].shape == (2, 20)
    assert (logits[1][0] != logits[1][1]).all()
    assert (logits[1] != logits[8]).all()


@pytest.mark.slow
def test_more_seeds_extend_it_and_change_nothing(finished, small_demo, tmp_path):
    run(tmp_path / "run", small_demo, seeds=[0])
    resume_crossvalidation(tmp_path / "run", seeds=[0, 1])
    assert results(tmp_path / "run") == results(finished[0])


def kill_at_every_touch(output, data):
    return kill_at_every_touch_of_the_disk(lambda: start_or_resume(output, data))


@posix
@pytest.mark.slow
def test_killed_at_every_touch_of_the_disk(small_demo, tmp_path):
    start_or_resume(tmp_path / "whole", small_demo)
    paths = f"Path({str(tmp_path / 'run')!r}), Path({str(small_demo)!r})"
    assert in_a_fresh_process("training/test_crossvalidation", f"kill_at_every_touch({paths})") >= 10
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_full_disk_in_the_second_fold(small_demo, tmp_path, monkeypatch):
    start_or_resume(tmp_path / "whole", small_demo)
    with monkeypatch.context() as patch:
        fill_disk_at_checkpoint(patch, 9)
        with pytest.raises(OSError, match="No space left"):
            start_or_resume(tmp_path / "run", small_demo)
    assert (tmp_path / "run" / "seed-0" / "fold-0" / "held_out.csv").is_file()
    assert list((tmp_path / "run" / "seed-0" / "fold-1").glob("last-*"))
    start_or_resume(tmp_path / "run", small_demo)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.slow
def test_an_earlier_one_is_moved_aside(finished, small_demo, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    run(tmp_path / "run", small_demo, epochs=1)
    assert results(tmp_path / "run-1") == results(finished[0])


def test_it_goes_on_only_as_it_began(finished, small_demo, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    with pytest.raises(InputError, match="begun with seed 0, too; --seeds can only add"):
        resume_crossvalidation(tmp_path / "run", seeds=[1, 2])
    shutil.copytree(small_demo, tmp_path / "demo")
    next((tmp_path / "demo").glob("PALM-Training400/*/N*.jpg")).unlink()
    with pytest.raises(InputError, match="begun with other images or labels than "):
        resume_crossvalidation(tmp_path / "run", data=tmp_path / "demo")
    with pytest.raises(InputError, match="no cross-validation there to resume"):
        resume_crossvalidation(tmp_path)
    (tmp_path / "run" / CROSSVALIDATION).write_text('{"folds": 2}')
    with pytest.raises(InputError, match="crossvalidation.json: not the settings of a cross-validation"):
        resume_crossvalidation(tmp_path / "run")


def changed_copy(finished, output, **changes):
    """Copy a cross-validation with other settings."""
    shutil.copytree(finished[0], output)
    content = json.loads((output / CROSSVALIDATION).read_text())
    (output / CROSSVALIDATION).write_text(json.dumps({**content, **changes}))


@pytest.mark.slow
def test_images_that_moved_are_found_by_data(finished, small_demo, tmp_path):
    changed_copy(finished, tmp_path / "run", data=str(tmp_path / "gone"))
    with pytest.raises(InputError, match="its images were in .*gone, which is gone; say where they are with --data"):
        resume_crossvalidation(tmp_path / "run")
    resume_crossvalidation(tmp_path / "run", data=small_demo)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (finished[0] / "predictions.csv").read_bytes()


def test_what_stays_together_is_told_and_kept(small_demo, tmp_path, capsys):
    names = sorted(os.listdir(find_dataset(small_demo).train_images))
    names = [name for name in names if name.endswith(".jpg")]
    table = tmp_path / "own.csv"
    rows = [f"{name},{'P' in name:d},{number % 3}{name[0] == 'P'}" for number, name in enumerate(names)]
    table.write_text("\n".join(["imgName,Label,Group", *rows, ""]))
    result = run(tmp_path / "run", small_demo, groups=True, train_csv=table, epochs=1, batch_size=10)
    told = "What stays together in a fold: by the column Group; 6 groups (not with --no-groups)."
    assert told in capsys.readouterr().err
    folds_of = {group: set(result.folds[result.groups == group].tolist()) for group in set(result.groups.tolist())}
    assert [len(folds) for folds in folds_of.values()] == [1] * 6


def test_recipes_on_digits_are_refused():
    with pytest.raises(InputError, match="is for digits; a cross-validation takes a recipe on photographs"):
        crossvalidate("lenet-mnist")


def test_weights_that_are_not_there(small_demo, tmp_path):
    with pytest.raises(InputError, match="no weights there"):
        run(tmp_path / "run", small_demo, weights=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_weights_that_have_seen_the_images_are_refused(small_demo, tmp_path, capsys):
    trained = train_recipe("tiny", tmp_path / "seen", data=small_demo, report=False).output
    for weights in (trained, trained / "best", trained / "best.pdparams"):
        with pytest.raises(InputError, match="trained on these very images, so that it has seen every fold"):
            run(tmp_path / "run", small_demo, weights=weights)
    shutil.copy(trained / "best.pdparams", tmp_path / "other.pdparams")
    run(tmp_path / "run", small_demo, weights=tmp_path / "other.pdparams", epochs=1)
    note = "if that was trained on any of these images, "
    assert f"{note}the results are too good" in capsys.readouterr().err
    assert note in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_weights_in_the_directory_that_is_moved_aside(finished, small_demo, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    save(tmp_path / "run" / "own", build_model("tiny"))
    with pytest.raises(InputError, match="would be moved aside with .*run, and missing then; give another --output"):
        run(tmp_path / "run", small_demo, weights=tmp_path / "run" / "own.pdparams")
    assert (tmp_path / "run" / "own.pdparams").is_file()


def test_it_needs_no_validation_images(small_demo, tmp_path):
    shutil.copytree(find_dataset(small_demo).train_images, tmp_path / "data" / "Training" / "Images")
    names = [path.name for path in (tmp_path / "data" / "Training" / "Images").glob("*.jpg")]
    rows = "".join(f"{name},{name[0] == 'P':d}\n" for name in names)
    (tmp_path / "data" / "Training" / "labels.csv").write_text("imgName,Label\n" + rows)
    assert len(run(tmp_path / "run", tmp_path / "data", epochs=1).names) == 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_of_any_bytes(small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    images = find_dataset(tmp_path / "demo").train_images
    for name in ("N0001", "P0001"):
        os.rename(images / f"{name}.jpg", os.path.join(os.fsencode(images), name.encode() + b"\xff.jpg"))
    result = run(tmp_path / "run", tmp_path / "demo", epochs=1)
    assert [name for name in result.names if "\udcff" in name] == ["N0001\udcff.jpg", "P0001\udcff.jpg"]


def test_a_table_of_other_images_is_refused(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    table = tmp_path / "run" / "folds.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="folds.csv: its images are not those of .*; start a new one"):
        resume_crossvalidation(tmp_path / "run")


@pytest.mark.slow
def test_another_machine_is_told(finished, tmp_path, capsys):
    changed_copy(finished, tmp_path / "run", threads=77, versions={**run_dir.versions(), "paddle": "2.0"})
    resume_crossvalidation(tmp_path / "run")
    told = capsys.readouterr().err
    assert "begun with paddle 2.0, now " in told
    assert "threads 77, now " in told
    assert json.loads((tmp_path / "run" / CROSSVALIDATION).read_text())["versions"]["paddle"] == "2.0"


def test_a_line_a_fold(finished, small_demo, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    resume_crossvalidation(tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"seed {seed}, fold {fold} of 2" for seed in (0, 1) for fold in (1, 2)
    ]
    assert all(" 10 images, accuracy 0." in line and ", AUC " in line and ", log loss " in line for line in lines)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--model NAME is required"),
        (["--model", "lenet-mnist"], "invalid choice: 'lenet-mnist'"),
        (["--model", "lenet", "--folds", "1"], "'1' is not a whole number from 2"),
        (
            ["--resume", "nowhere", "--epochs", "3"],
            "--epochs: a cross-validation goes on only as it began; leave it out",
        ),
        (["--resume", "nowhere", "--no-groups"], "--no-groups: a cross-validation goes on only as it began"),
        (["--resume", "nowhere"], "nowhere: no cross-validation there to resume"),
        (["--model", "lenet", "--pretrained", "--weights", "x"], "not allowed with argument --pretrained"),
        (["--model", "lenet", "--folds", "30"], "30 folds need as many groups of images of each class"),
    ],
)
def test_the_tool_refuses_in_a_line(tool_here, small_demo, args, message):
    data = [] if "--resume" in args or not args else ["--data", small_demo]
    assert_refused(tool_here("crossvalidate", *args, *data), message)


@pytest.mark.slow
def test_the_tool(tool, small_demo, tmp_path):
    options = ("--model", "palm", "--epochs", 2, "--folds", 2, "--no-groups", "--data", small_demo, "--threads", 1)
    done = tool("crossvalidate", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = os.path.join("output", "palm-folds")
    assert done.stdout.splitlines()[-1] == f"Its report, for a browser: {os.path.join(output, 'report.html')}"
    again = tool("crossvalidate", "--resume", output, "--threads", 1, cwd=tmp_path)
    strip = [line.rpartition(" (")[0] for line in done.stdout.splitlines()[:2]]
    assert [line.rpartition(" (")[0] for line in again.stdout.splitlines()[:2]] == strip
    assert again.stdout.splitlines()[2:] == done.stdout.splitlines()[2:]
    compared = tool("compare", output, cwd=tmp_path)
    assert compared.stdout.splitlines() == done.stdout.splitlines()[2:-1]


def test_the_runs_of_palm_are_of_its_size(small_demo):
    loader, _, _ = make_loaders(find_recipe("palm"), DataOptions(small_demo), cache=False)
    assert next(loader())[0].shape[1:] == build_model("palm").input_shape == (3, 112, 112)
