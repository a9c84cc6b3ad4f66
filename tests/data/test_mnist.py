"""MNIST and Fashion-MNIST: idx files (made here), the reader of what is in them, and the recipes on them."""

import csv
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TESTS
from helpers.files import FILES, drawn, idx, write_set
from helpers.hostile import read_or_refused
from helpers.processes import HEAVY, assert_lines, imported
from helpers.runs import contents
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls import recipes
from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.train_state import TrainState
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.console import DISCLAIMER
from palm_cls.core.device import set_seed
from palm_cls.core.errors import InputError, RunError
from palm_cls.data import mnist
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.mnist import MnistDataset, download_file, find_mnist, read_idx_images, read_idx_labels
from palm_cls.data.options import DataOptions
from palm_cls.deploy.predict import load_model
from palm_cls.eval.assess import assess
from palm_cls.eval.compare import compare_predictions, find_runs
from palm_cls.eval.report import report_run
from palm_cls.models.lenet import LeNet
from palm_cls.recipes import RECIPES, build_model, format_recipes, loss_name, optimizer_name
from palm_cls.training.experiment import resume_recipe, train_recipe
from palm_cls.training.multi_seed import resume_seeds, train_seeds

import paddle

FLUID = TESTS / "golden" / "lenet10.pdparams"  # the course's LeNet with ten classes, of PaddlePaddle 1.6.1
QUIET = {"device": "cpu", "report": False}
GARMENTS = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")  # noqa: SIM905


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Files of 40 training and 30 test images."""
    return write_set(tmp_path_factory.mktemp("idx") / "small")


# idx files


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_what_was_written_is_read(number, seed, gzipped):
    rng = np.random.RandomState(seed)
    pixels, labels = rng.randint(0, 256, (number, 28, 28)).astype("uint8"), rng.randint(0, 10, number).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        for read, values in ((read_idx_images, pixels), (read_idx_labels, labels)):
            path = Path(folder, "file")
            path.write_bytes(gzip.compress(idx(values)) if gzipped else idx(values))
            found = read(path)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, values)


@settings(max_examples=100, deadline=None)
@given(st.booleans(), st.booleans(), st.data())
def test_what_is_cut_off_or_goes_on_is_refused(images, gzipped, data):
    pixels, labels = drawn(3)
    content = idx(pixels if images else labels)
    content = gzip.compress(content) if gzipped else content
    cut = data.draw(st.integers(-len(content), 20).filter(bool))
    # Zeros after its end are no damage to a gzipped file: tapes have them.
    content = content[:cut] if cut < 0 else content + data.draw(st.binary(min_size=cut, max_size=cut).filter(any))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        assert read_or_refused(read_idx_images if images else read_idx_labels, path) is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_to_a_gzipped_file_never_goes_unseen(data):
    _, labels = drawn(50)
    content = bytearray(gzip.compress(idx(labels)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        found = read_or_refused(read_idx_labels, path)
    if found is not None:  # a byte of the header, such as the time
        np.testing.assert_array_equal(found, labels)


def header(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


@pytest.mark.parametrize(
    ("read", "content", "told"),
    [
        (read_idx_images, b"", r"not an idx file of images: it does not begin with the number 2051"),
        (read_idx_images, idx(drawn(2)[1]), "not an idx file of images"),
        (read_idx_labels, idx(drawn(2)[0]), "not an idx file of labels: it does not begin with the number 2049"),
        (read_idx_images, b"<html>404 not found</html>", "not an idx file of images"),
        (read_idx_images, header(2051, 2), "truncated: it ends within its header"),
        (read_idx_images, idx(np.zeros((2, 28, 27))), "images of 28 x 27 pixels; expected 28 x 28"),
        (read_idx_images, header(2051, 0, 28, 28), "its header gives 0 images; expected 1 to 500000"),
        (read_idx_images, header(2051, 2**32 - 1, 28, 28), "its header gives 4294967295 images"),
        (read_idx_images, idx(drawn(2)[0])[:-1], "truncated: 2 images are 1568 bytes, the file has 1567"),
        (read_idx_labels, idx(drawn(2)[1]) + b"!", "longer than the 2 labels of its header"),
        (read_idx_labels, idx(np.array([3, 10, 2])), "label 10 of image 1; expected 0 to 9"),
        (read_idx_labels, gzip.compress(idx(drawn(2)[1]))[:-1], r"damaged \(Compressed file ended"),
        (read_idx_labels, gzip.compress(idx(drawn(2)[1])) + b"!", r"damaged \(Not a gzipped file"),
        (read_idx_labels, gzip.compress(idx(drawn(2)[1])) * 2, "longer than the 2 labels"),
        (read_idx_images, gzip.compress(header(2051, 1, 28, 28) + bytes(10**8)), "longer than the 1 images"),
    ],
)
def test_each_fault_is_told_with_the_files_name(tmp_path, read, content, told):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=f"file: {told}") as error:
        read(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="gone: no such file"):
        read_idx_images(tmp_path / "gone")


def test_images_and_labels_belong_together(tmp_path):
    write_set(tmp_path)
    shutil.copy(tmp_path / f"{FILES[3]}.gz", tmp_path / f"{FILES[1]}.gz")
    with pytest.raises(InputError, match=r"labels-idx1-ubyte\.gz: 30 labels, but train-images.* has 40 images"):
        MnistDataset("mnist", tmp_path).read("train")


# Where they are


def test_where_the_files_are_looked_for(nowhere, small, tmp_path, monkeypatch):
    monkeypatch.setenv("PALM_DATA", str(small))  # is for the fundus images
    for kind, title in (("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST")):
        with pytest.raises(InputError, match=rf"{kind}: train-images.* \(4 of the four files of {title}.*\n.*--downl"):
            find_mnist(kind)
    write_set(nowhere / "data" / "mnist", suffix="")
    (nowhere / "data" / "mnist" / FILES[1]).rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"mnist: train-labels-idx1-ubyte is missing, with.*\(1 of the four"):
        find_mnist("mnist")
    (tmp_path / "kept").rename(nowhere / "data" / "mnist" / FILES[1])
    assert find_mnist("mnist").root == nowhere / "data" / "mnist"
    assert find_mnist("mnist", small).root == small
    with pytest.raises(InputError, match=r"gone: train-images-idx3-ubyte is missing, with and without"):
        find_mnist("mnist", tmp_path / "gone")
    for here, there in zip(find_mnist("mnist").read("test"), find_mnist("mnist", small).read("test")):
        np.testing.assert_array_equal(here, there)


@pytest.fixture
def source(small, monkeypatch):
    """The small files as what paddle.vision.datasets.MNIST would fetch."""
    for part, what, name in zip(("TRAIN", "TRAIN", "TEST", "TEST"), ("IMAGE", "LABEL") * 2, FILES):
        file = small / f"{name}.gz"
        monkeypatch.setattr(paddle.vision.datasets.MNIST, f"{part}_{what}_URL", file.as_uri())
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        monkeypatch.setattr(paddle.vision.datasets.MNIST, f"{part}_{what}_MD5", md5)
    return small


def test_what_is_missing_is_fetched_and_no_more(source, tmp_path, capsys):
    found = find_mnist("mnist", tmp_path / "new", download=True)
    assert contents(tmp_path / "new") == contents(source)
    assert len(found.read("train")[0]) == 40
    assert capsys.readouterr().err.count("Fetching file://") == 4
    (tmp_path / "new" / f"{FILES[2]}.gz").unlink()
    find_mnist("mnist", tmp_path / "new", download=True)
    assert re.findall("Fetching .*/(.*) ", capsys.readouterr().err) == [f"{FILES[2]}.gz"]


def test_what_cannot_be_fetched(source, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    for url, told in (
        ("http://127.0.0.1:9/file", r"could not be fetched \(.*refused.*\)\nTry again where there is a network, or "),
        ((tmp_path / "gone").as_uri(), r"could not be fetched \(.*No such file"),
        ((source / f"{FILES[1]}.gz").as_uri(), r"has another checksum than file\.gz; not kept"),
    ):
        with pytest.raises(RunError, match=told):
            download_file(url, "0" * 32, tmp_path / "new" / "file.gz")
    assert not list(tmp_path.rglob("*"))


def test_paddle_still_tells_where_the_files_are():
    for kind in mnist.VARIANTS.values():
        source = getattr(paddle.vision.datasets, kind.source)
        for which, name in zip(("TRAIN_IMAGE", "TRAIN_LABEL", "TEST_IMAGE", "TEST_LABEL"), FILES):
            assert getattr(source, f"{which}_URL").endswith(f"/{name}.gz")
            assert re.fullmatch("[0-9a-f]{32}", getattr(source, f"{which}_MD5"))


# The reader


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_batches_are_the_plain_formula(pixel_range):
    pixels, labels = drawn(23)
    reader = ArrayLoader(Path(), pixels, labels.astype("int64").reshape(-1, 1), 10, list("0123456789"))
    reader.pixel_range = pixel_range
    plain = pixels.astype("float32") / 255.0
    plain = (plain * 2.0 - 1.0 if pixel_range[0] else plain).reshape(-1, 1, 28, 28)
    for _ in range(2):  # in the order of the file, each time
        batches = list(reader())
        assert [len(imgs) for imgs, _ in batches] == [10, 10, 3]
        imgs, found = (np.concatenate(parts) for parts in zip(*batches))
        assert (imgs.dtype, found.dtype, found.shape) == ("float32", "int64", (23, 1))
        np.testing.assert_array_equal(imgs, plain)
        np.testing.assert_array_equal(found.ravel(), labels)
    assert (reader.num_samples, reader.num_batches, reader.names(2)) == (23, 3, ["00020", "00021", "00022"])
    np.testing.assert_array_equal(reader.load_input("00017"), plain[17])
    np.testing.assert_array_equal(reader.load_image("00017"), np.stack([pixels[17]] * 3, axis=2))


def test_it_shuffles_as_the_other_reader_and_goes_on_anywhere():
    pixels, labels = drawn(23)

    def reader():
        return ArrayLoader(Path(), pixels, labels.astype("int64").reshape(-1, 1), 5, list("0123456789"), shuffle=True)

    first, numbers = reader(), list(range(23))
    random.seed(4)
    for _ in range(2):
        batches = list(first())
    random.seed(4)
    for _ in range(2):  # each epoch on top of the last
        random.shuffle(numbers)
    assert first.order == [f"{number:05d}" for number in numbers]
    assert first.labels == labels[numbers].tolist()
    np.testing.assert_array_equal(batches[1][1].ravel(), labels[numbers[5:10]])
    second = reader()
    second.order = first.order
    for there, here in zip(batches[3:], second.iter_from(3)):
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_array_equal(here[1], there[1])
    assert len(list(second.iter_from(3))) == 2
    for names in (first.order[1:], [*first.order[1:], "00099"], [*first.order, "00001"]):
        with pytest.raises(InputError, match="other images"):
            second.order = names


def test_what_the_readers_tell(small, small_demo):
    train, valid, found = make_loaders(RECIPES["lenet-fashion"], DataOptions(small))
    expected = {"input": {"size": 28, "channels": "grey", "range": [0.0, 1.0]}, "classes": GARMENTS, "demo": False}
    assert train.metadata == valid.metadata == expected
    assert (train.shuffle, valid.shuffle, train.num_samples, valid.num_samples) == (True, False, 40, 30)
    assert (found.disclaimer, found.is_demo, found.root) == ("", False, small)
    train, valid, found = make_loaders(RECIPES["lenet-mnist"], DataOptions(small))
    assert train.metadata["input"]["range"] == [-1.0, 1.0]
    assert train.metadata["classes"] == list("0123456789")
    assert (train.shuffle, train.batch_size) == (False, 10)
    assert len({train.fingerprint, valid.fingerprint}) == 2
    images, labels = found.read("train")
    other = ArrayLoader(small, images, (labels + 1) % 10, 10, train.classes)
    assert other.fingerprint != train.fingerprint

    recipe = replace(RECIPES["lenet"], shuffle=False, pixel_range=(0.0, 1.0))  # of the fundus images, too
    lesson, _, _ = make_loaders(RECIPES["lenet"], DataOptions(small_demo), cache=False)
    train, valid, _ = make_loaders(recipe, DataOptions(small_demo), cache=False)
    assert train.metadata["input"] == valid.metadata["input"] == {**lesson.metadata["input"], "range": [0.0, 1.0]}
    lesson.shuffle = False
    for (imgs, labels), (plain, expected) in zip(train(), lesson()):
        np.testing.assert_allclose(imgs, plain / 2 + 0.5, atol=1e-6)
        np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(train.load_input(train.order[-1]), imgs[-1])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("lenet-mnist", {"train_csv": "a.csv"}, "--train-csv is for photographs, not for mnist"),
        ("lenet-fashion", {"skip_bad": True}, "--skip-bad is for photographs, not for fashion-mnist"),
        ("lenet", {}, "--download fetches MNIST and Fashion-MNIST; data/README.md says"),
    ],
)
def test_options_that_are_not_for_these_images(small, name, options, told):
    with pytest.raises(InputError, match=told):
        make_loaders(RECIPES[name], DataOptions(small, **options), download=name == "lenet")


# The recipes


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_table_derives_is_what_happens(name):
    recipe = RECIPES[name]
    with paddle.LazyGuard():
        *_, bias = build_model(name).parameters()
    assert loss_name(recipe) == {1: "sigmoid cross-entropy", 10: "softmax cross-entropy"}[bias.shape[0]]
    assert optimizer_name(recipe) == ("SGD" if name == "lenet-fashion" else "Momentum")


def test_the_table_of_recipes():
    lines = format_recipes().splitlines()
    assert max(map(len, lines)) <= 120
    for table in (lines[: lines.index("")], lines[lines.index("") + 1 :]):
        assert [line.split()[0] for line in table] == ["model", *RECIPES]
        starts = [match.start() for match in re.finditer(r"(?<=  )\S", table[0])]
        assert all(line[start - 1] == " " != line[start] for line in table for start in starts)
    cells = [[cell for cell in re.split("  +", line) if cell] for line in lines if line.startswith("lenet-fashion ")]
    assert cells[0][1:] == ["LeNetFashion()", "fashion-mnist", "0..1", "softmax cross-entropy"]
    assert cells[1][1:] == ["SGD", "0.9", "-", "-", "256", "10", "shuffled", "every 100", "none"]
    assert not HEAVY & imported("train", "--list")  # which prints it


def test_only_what_makes_sense_of_a_recipe_can_be_changed():
    assert recipes.find_recipe("lenet-mnist", shuffle=True, epochs=1).shuffle
    with pytest.raises(TypeError, match="epochs, .* can be overridden, not network"):
        recipes.find_recipe("lenet", network="models.AlexNet")


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    ("name", "changes", "optimizer"),
    [
        ("lenet-fashion", {"batch_size": 10}, "SGD"),
        ("lenet-mnist", {"shuffle": True}, "Momentum"),
        ("cnn-mnist", {"batch_size": 10, "momentum": 0.0}, "SGD"),  # with dropout
    ],
)
def test_going_on_in_the_middle_of_an_epoch_changes_no_bit(small, tmp_path, monkeypatch, name, changes, optimizer):
    seen, end_step = [], TrainState.end_step
    options = {"data": small, "epochs": 2, **QUIET, **changes}

    def stop(progress, *args):
        end_step(progress, *args)
        if progress.step == 7:  # of 8, after the checkpoint at 6
            raise Interrupted

    for kind in ("Momentum", "SGD"):
        original = getattr(paddle.optimizer, kind)
        monkeypatch.setattr(original, "__init__", noting(seen, kind, original.__init__))
    train_recipe(name, output=tmp_path / "whole", save_every=2, **options)
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "end_step", stop)
        with pytest.raises(Interrupted):
            train_recipe(name, output=tmp_path / "left", save_every=2, **options)
    resume_recipe(tmp_path / "left", **QUIET)
    assert contents(tmp_path / "left") == contents(tmp_path / "whole")
    assert seen == [optimizer] * 3


def noting(seen, kind, init):
    def noted(self, *args, **kwargs):
        seen.append(kind)
        init(self, *args, **kwargs)

    return noted


def test_a_run_goes_on_as_it_began(small, tmp_path):
    train_recipe("lenet-fashion", data=small, epochs=1, output=tmp_path / "run", batch_size=20, **QUIET)
    with pytest.raises(InputError, match="its shuffle is on, not off"):
        resume_recipe(tmp_path / "run", shuffle=False)
    with pytest.raises(InputError, match="its momentum is 0, not 0.9"):
        resume_recipe(tmp_path / "run", momentum=0.9)
    settings_file = tmp_path / "run" / "settings.json"
    before = json.loads(settings_file.read_text())
    assert before.pop("shuffle")
    settings_file.write_text(json.dumps(before))  # as runs were written when there was no choice
    assert len(resume_recipe(tmp_path / "run", epochs=2, **QUIET).history) == 2
    other = write_set(tmp_path / "other", train=39)
    with pytest.raises(InputError, match="its run began with other training images or labels"):
        resume_recipe(tmp_path / "run", epochs=3, data=other)


def test_seeds(small, tmp_path):
    output = tmp_path / "seeds"
    options = {"data": small, "epochs": 1, "shuffle": True, **QUIET}
    trained = train_seeds("lenet-mnist", [1, 2], output=output, **options)
    assert [len(history) for history in trained.histories.values()] == [1, 1]
    alone = train_recipe("lenet-mnist", output=tmp_path / "alone", seed=1, **options)
    assert trained.histories[1] == alone.history
    assert len(resume_seeds(output, epochs=2, **QUIET).histories[2]) == 2


@pytest.fixture(scope="module")
def trained(tool, small, tmp_path_factory):
    """An epoch of lenet-mnist by the tool: (CompletedProcess, directory of the run)."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = tool("train", "--model", "lenet-mnist", "--data", small, "--epochs", 1, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "output" / "lenet-mnist"


def test_the_lesson_on_mnist(trained):
    done, run = trained
    number = r"[0-9.e-]+"
    expected = [
        r"start training \.\.\. ",
        rf"epoch: 0, batch_id: 0, loss is: {number}",  # the next would come with batch 1000
        rf"\[validation\] accuracy/loss: {number}/{number}",
        rf"last epoch 0: accuracy {number}; best epoch 0: accuracy {number}; on 30 validation images",
        r"The run lies in output.lenet-mnist\. Evaluate its best epoch:",
        r"    python .*evaluate\.py --weights output.lenet-mnist",
    ]
    assert_lines(done.stdout, expected)
    assert [line for line in done.stderr.splitlines() if not line.startswith("Running on ")] == []
    about = read_metadata(run / "best.pdparams")
    assert (about["model"], about["input"]) == ("lenet-mnist", {"size": 28, "channels": "grey", "range": [-1.0, 1.0]})
    assert json.loads((run / "settings.json").read_text())["shuffle"] is False


@pytest.mark.slow
def test_evaluating_it(trained, tool, small):
    _, run = trained
    done = tool("evaluate", "--weights", run)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2] == f"lenet-mnist, {run / 'best.pdparams'}: 30 of 30 images"
    assert re.fullmatch(r"accuracy +0\.\d{4}  \(0\.\d{4} to 0\.\d{4}\)", lines[5])
    table, confusion = lines.index("classes"), lines.index("confusion")
    assert lines[table + 1].split() == ["class", "sensitivity", "specificity", "precision", "auc", "f1", "support"]
    assert confusion - table == 12
    assert sum(int(cell) for line in lines[confusion + 1 : confusion + 11] for cell in line.split()) == 30
    assert lines[-1].startswith("written: ")  # and nothing of medicine
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["imgName"] for row in rows] == [f"{number:05d}" for number in range(30)]
    assert [int(row["Label"]) for row in rows] == drawn(30, seed=1)[1].tolist()


def test_evaluating_garments(small, tmp_path, capsys):
    set_seed(0)
    save(tmp_path / "a", build_model("lenet-fashion"), metadata={"model": "lenet-fashion"})
    found = assess(tmp_path / "a", data=small, device="cpu")
    assert [row["name"] for row in found.metrics["classes"]] == GARMENTS
    with pytest.raises(InputError, match="a threshold separates two classes; this network has 10"):
        assess(tmp_path / "a", data=small, threshold=0.3)
    with pytest.raises(InputError, match="weights of another network"):
        assess(tmp_path / "a", "lenet-mnist", data=small, device="cpu")


def test_weights_of_paddle_1_6(small, tmp_path):
    train_recipe("lenet-mnist", data=small, epochs=1, weights=FLUID, output=tmp_path / "run", **QUIET)
    start = json.loads((tmp_path / "run" / "settings.json").read_text())["weights"]
    assert start == str(FLUID)
    found = assess(FLUID, "lenet-mnist", data=small, device="cpu")
    model = LeNet(num_classes=10, in_channels=1, image_size=28)
    load(FLUID, model)
    model.eval()
    imgs = drawn(30, seed=1)[0].reshape(-1, 1, 28, 28) / np.float32(255) * 2 - 1
    np.testing.assert_allclose(found.predictions.logits, model(paddle.to_tensor(imgs)).numpy(), atol=1e-5)


@pytest.mark.slow
def test_its_report(small, tmp_path):
    run = tmp_path / "run"
    written = train_recipe("lenet-fashion", data=small, epochs=1, output=run, batch_size=20, device="cpu").report
    page = " ".join(written.read_text(encoding="utf-8").split())
    figures = sorted(file.stem for file in (run / "figures").iterdir())
    assert figures == ["accuracy", "calibration", "confusion", "loss"]
    assert all(f"{number:05d}: {name}" in page for number, name in ((0, "Sandal"), (1, "T-shirt/top"), (2, "Dress")))
    assert page.count("The same with the heat map of the answer") == 8
    assert DISCLAIMER not in page
    before = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in before["measures"]["classes"]] == GARMENTS
    assert (before["caveat"], before["data"]) == ("", str(small))
    written.unlink()
    assert report_run(run, device="cpu") == written
    assert json.loads((run / "evaluation.json").read_text()) == before
    with pytest.raises(InputError, match="a threshold separates two classes"):
        report_run(run, threshold=0.3)


def test_fundus_photographs_are_not_fed_to_it(trained):
    for weights, name in ((trained[1], None), (FLUID, "lenet-mnist")):
        with pytest.raises(InputError, match="lenet-mnist takes grey images of 28 x 28 pixels, and this "):
            load_model(weights, name)


def test_without_files_nothing_is_begun(tmp_path):
    for start in (train_recipe, lambda name, **options: train_seeds(name, [0], **options)):
        with pytest.raises(InputError, match="train-images-idx3-ubyte is missing, with and without"):
            start("lenet-mnist", data=tmp_path, output=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_two_runs_with_ten_classes_on_the_same_images(tmp_path):
    header = "epoch,learning_rate,train_loss,train_accuracy,valid_loss,valid_accuracy,valid_images"
    rows = {"first": ["00000,7,0.9,7", "00001,2,0.8,2"], "second": ["00000,7,0.9,7", "00001,2,0.8,3"]}
    for name, accuracy in (("first", 1.0), ("second", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text('{"model": "lenet-mnist", "versions": {}}')
        (tmp_path / name / "log.csv").write_text(f"{header}\n0,0.1,1,0.5,1,{accuracy},2\n")
        table = ["imgName,Label,probability,predicted", *rows[name]]
        (tmp_path / name / "predictions.csv").write_text("\n".join(table))
    lines = compare_predictions(*find_runs([tmp_path / "first", tmp_path / "second"])[0]).splitlines()
    assert len(lines) == 2  # no AUC
    first, second = tmp_path / "first", tmp_path / "second"
    assert lines[1] == f"    McNemar's test: only {first} is right on 1, only {second} on 0: p = 1"
    with (tmp_path / "second" / "predictions.csv").open("a") as file:
        file.write("\n00002,2,0.8\n")
    with pytest.raises(InputError, match="line 4: expected the columns imgName, Label, predicted"):
        compare_predictions(*find_runs([tmp_path / "first", tmp_path / "second"])[0])


# On the real files


def real(name):
    directory = Path(os.environ.get("PALM_TEST_DATA", "")) / name
    if "PALM_TEST_DATA" not in os.environ or not directory.is_dir():
        pytest.skip(f"needs the real files: set PALM_TEST_DATA to a directory that holds {name}/")
    return directory


def accuracies(name, directory, output, **changes):
    trained = train_recipe(name, data=directory, output=output, **QUIET, **changes)
    return [record["valid_accuracy"] for record in trained.history]


@pytest.mark.slow
def test_lenet_learns_mnist(tmp_path):
    """Two epochs: sigmoid needs most of the first to leave the plateau. Five give the lesson's "over 92%"."""
    first, second = accuracies("lenet-mnist", real("mnist"), tmp_path / "run", epochs=2)
    assert first < 0.6 <= second <= 0.9


@pytest.mark.slow
def test_lenet_learns_garments_as_in_the_reference(tmp_path):
    """Single epochs swing by 0.1 at this learning rate; the best so far does not."""
    reference = [0.168, 0.599, 0.665, 0.723, 0.753, 0.754]  # test accuracies of the first six epochs
    found = accuracies("lenet-fashion", real("fashion-mnist"), tmp_path / "run", epochs=len(reference))
    assert max(found) == pytest.approx(max(reference), abs=0.05)
    assert found[0] < 0.4
