"""Training on photographs with classes of their own: a folder for each, or tables."""

import json
import shutil

import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.checkpoints import weights
from helpers.folders import encoded, write_folders
from helpers.runs import contents

from palm_cls.checkpoints.run_files import read_log, read_settings
from palm_cls.checkpoints.weights import load, save
from palm_cls.core import console
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import make_loaders, make_valid_loader
from palm_cls.data.options import DataOptions
from palm_cls.eval.assess import assess
from palm_cls.eval.losses import cross_entropy, training_loss
from palm_cls.recipes import RECIPES, build_model, find_recipe
from palm_cls.training.experiment import resume_recipe, train, train_recipe
from palm_cls.training.multi_seed import train_seeds
from palm_cls.training.options import balanced_weights

import paddle

CLASSES = ["中度", "正常", "轻度"]  # sorted by their names


def write_levels(root, counts, seed=0):
    """Write images of one gray level for each class, with noise: {class: number of images}."""
    rng, level_of = np.random.default_rng(seed), {name: 90 * level for level, name in enumerate(counts)}

    def level(name, _):
        return encoded(np.clip(level_of[name] + rng.integers(0, 60, (24, 24, 3)), 0, 255).astype("uint8"), ".png")

    write_folders(root, counts, level, ".png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three classes, of which one is rare, each in train/ and val/."""
    root = tmp_path_factory.mktemp("classes") / "data"
    write_levels(root / "train", dict(zip(CLASSES, (12, 4, 8))))
    write_levels(root / "val", dict(zip(CLASSES, (3, 2, 2))), seed=1)
    return root


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "run"
    options = {"data": folders, "learning_rate": 0.05, "class_weights": "balanced", "cache": False, "report": False}
    return train_recipe("tiny", output, epochs=6, **options)


def test_a_folder_for_each_class_is_learned(trained, folders):
    settings = read_settings(trained.output)
    assert settings["classes"] == CLASSES
    assert settings["class_weights"] == "balanced"
    assert settings["loss_weights"] == pytest.approx([24 / 36, 24 / 12, 24 / 24])
    log = read_log(trained.output)
    assert log[-1]["valid_loss"] < log[0]["valid_loss"]
    assert log[-1]["valid_accuracy"] > 3 / 7  # of which the largest class has three
    result = assess(trained.output)
    assert result.metrics["accuracy"]["value"] == pytest.approx(
        max(record["valid_accuracy"] for record in log), abs=1e-9
    )
    assert [row["name"] for row in result.metrics["classes"]] == CLASSES
    assert (result.classes, result.metrics["images"]) == (tuple(CLASSES), 7)


def test_a_stopped_run_goes_on_bit_for_bit(trained, folders, tmp_path):
    options = {"data": folders, "learning_rate": 0.05, "class_weights": "balanced", "cache": False, "report": False}
    train_recipe("tiny", tmp_path / "run", epochs=2, **options)
    resume_recipe(tmp_path / "run", epochs=6, cache=False, report=False)
    assert contents(tmp_path / "run") == contents(trained.output)
    for change in ({"classes": CLASSES[::-1]}, {"class_weights": None}, {"valid_fraction": 0.5}, {"new_head": True}):
        with pytest.raises(InputError, match="a run goes on only as it began"):
            resume_recipe(tmp_path / "run", **change)


def test_several_seeds(folders, tmp_path):
    train_seeds("tiny", [0, 1], tmp_path / "runs", data=folders, cache=False, report=False)
    assert json.loads((tmp_path / "runs" / "seeds.json").read_text())["classes"] == CLASSES
    assert all(read_settings(tmp_path / "runs" / f"seed-{seed}")["classes"] == CLASSES for seed in (0, 1))


def test_a_new_head_takes_weights_of_other_classes(trained, small_demo, tmp_path):
    """From three classes to the lesson's two."""
    options = {"data": small_demo, "weights": trained.output, "cache": False, "report": False}
    with pytest.raises(InputError, match="Only the last layer differs.*--new-head"):
        train_recipe("tiny", tmp_path / "refused", **options)
    result = train_recipe("tiny", tmp_path / "run", learning_rate=1e-30, new_head=True, **options)
    before, after = build_model("tiny", num_classes=3), weights(result.model)
    load(trained.output, before)
    first = weights(before)
    assert all((after[name] == first[name]).all() for name in after if not name.startswith("layers.5"))
    assert after["layers.5.weight"].shape == (8, 1)
    assert read_settings(result.output)["new_head"] is True


def test_test_images_and_other_tables_are_evaluated(trained, folders, tmp_path):
    shutil.copytree(folders, tmp_path / "data")
    with pytest.raises(InputError, match="no test images; expected a folder test or testing"):
        assess(trained.output, data=tmp_path / "data", split="test", cache=False)
    shutil.copytree(folders / "train", tmp_path / "data" / "test")
    result = assess(trained.output, data=tmp_path / "data", split="test", cache=False, ordered=True)
    assert result.metrics["images"] == 24
    assert -1 <= result.metrics["kappa"]["value"] <= 1
    table = tmp_path / "table.csv"
    table.write_text("imgName,Label\nval/正常/0.png,正常\nval/轻度/0.png,2\nval/中度/1.png,0\n", encoding="utf-8")
    result = assess(trained.output, data=folders, valid_csv=table, cache=False)
    assert result.predictions.labels.ravel().tolist() == [1, 2, 0]


def test_images_that_have_moved_are_the_same_and_others_are_taken_whole(tmp_path, capsys):
    """Never those that were trained on, by another division."""
    write_levels(tmp_path / "data", dict.fromkeys(CLASSES, 10))
    options = {"valid_fraction": 0.4, "data": tmp_path / "data", "cache": False, "report": False}
    trained = train_recipe("tiny", tmp_path / "run", **options)
    (tmp_path / "data").rename(tmp_path / "new")
    moved = assess(trained.output, data=tmp_path / "new", cache=False)
    assert (moved.metrics["images"], moved.other_dataset) == (12, "")
    resume_recipe(trained.output, epochs=2, data=tmp_path / "new", cache=False, report=False)
    write_levels(tmp_path / "other", dict.fromkeys(CLASSES, 5), seed=1)
    capsys.readouterr()
    others = assess(trained.output, data=tmp_path / "other", cache=False)
    assert (others.metrics["images"], others.other_dataset) == (15, "other")
    assert "its run has other validation images" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == CLASSES  # nothing is written there


def test_a_table_with_its_directory_moves_and_divides(tmp_path):
    """A table with a column Split is the division, and follows its images."""
    write_levels(tmp_path / "data", dict.fromkeys(CLASSES, 4))
    rows = [f"{name}/{k}.png,{name},{'valid' if k == 3 else 'training'}" for name in CLASSES for k in range(4)]
    (tmp_path / "data" / "all.csv").write_text("\n".join(["imgName,Label,Split", *rows]), encoding="utf-8")
    options = {"cache": False, "report": False}
    trained = train_recipe(
        "tiny", tmp_path / "run", data=tmp_path / "data", train_csv=tmp_path / "data" / "all.csv", **options
    )
    assert [read_settings(trained.output)[f"{kind}_images"] for kind in ("train", "valid")] == [9, 3]
    with pytest.raises(InputError, match="no test split"):
        assess(trained.output, split="test", cache=False)
    (tmp_path / "data").rename(tmp_path / "new")
    resume_recipe(trained.output, epochs=2, data=tmp_path / "new", **options)
    result = assess(trained.output, data=tmp_path / "new", valid_csv=tmp_path / "new" / "all.csv", cache=False)
    assert result.metrics["images"] == 3


def test_weights_for_other_classes_are_not_taken_silently(trained, folders, small_demo, tmp_path):
    options = {"data": folders, "cache": False, "report": False}
    with pytest.raises(InputError, match="for the classes 中度, 正常, 轻度, not 正常, 轻度, 中度; with --new-head"):
        train_recipe("tiny", tmp_path / "run", classes=["正常", "轻度", "中度"], weights=trained.output, **options)
    with pytest.raises(
        InputError, match="with --new-head"
    ):  # before an earlier run is moved aside, or anything written
        train_seeds("tiny", [0], tmp_path / "runs", classes=CLASSES[::-1], weights=trained.output, **options)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match="--new-head leaves out the last layer of --weights, and there are none"):
        train_recipe("tiny", tmp_path / "run", new_head=True, **options)
    with pytest.raises(InputError, match="leave --positive out"):
        resume_recipe(trained.output, positive="正常")
    two = build_model("tiny")
    save(tmp_path / "two", two, metadata={"model": "tiny", "classes": ["glaucoma", "normal"]})
    with pytest.raises(InputError, match="for the classes glaucoma, normal, and the images of .* are of "):
        assess(tmp_path / "two", data=small_demo, cache=False)
    with pytest.raises(InputError, match="the names of its images give the classes no pathological"):
        train_recipe("tiny", tmp_path / "run", data=small_demo, classes=["P", "N"], cache=False)


def test_the_same_images_in_both_tables_are_told(folders, tmp_path, capsys):
    names = [f"train/{name}/{index}.png" for name in CLASSES for index in range(4)]
    for table, part in (("train", names), ("valid", names[::2])):
        rows = [f"{name},{name.split('/')[1]},{name[-5]}" for name in part]
        (tmp_path / f"{table}.csv").write_text("\n".join(["imgName,Label,Group", *rows]), encoding="utf-8")
    tables = {f"{table}_csv": tmp_path / f"{table}.csv" for table in ("train", "valid")}
    console.log_once.cache_clear()
    make_loaders(find_recipe("tiny"), DataOptions(folders, **tables), cache=False)
    told = capsys.readouterr().err
    assert "6 images are in training and validation" in told
    assert "2 groups are in training and validation" in told


def test_numbers_for_names_are_said(folders, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("imgName,Label\ntrain/正常/0.png,1\ntrain/轻度/0.png,2\ntrain/中度/0.png,0\n")
    options = DataOptions(folders, valid_csv=tmp_path / "t.csv", classes=CLASSES)
    console.log_once.cache_clear()
    make_valid_loader(find_recipe("tiny", num_classes=3), options, cache=False)
    assert "numbers stand for the classes in their order: 0 中度, 1 正常, 2 轻度." in capsys.readouterr().err


def test_two_classes_have_one_logit_and_a_positive_one(tmp_path):
    write_levels(tmp_path / "data", {"glaucoma": 10, "normal": 10})
    options = {"positive": "glaucoma", "data": tmp_path / "data", "cache": False, "report": False}
    result = train_recipe("tiny", tmp_path / "run", learning_rate=0.05, **options)
    assert read_settings(result.output)["classes"] == ["normal", "glaucoma"]
    _, valid_loader, _ = make_loaders(find_recipe("tiny"), DataOptions(tmp_path / "data", positive="glaucoma"), False)
    ((imgs, labels),) = valid_loader()
    assert (imgs.shape, labels.dtype, labels.sum()) == ((4, 3, 224, 224), "float32", 2)
    evaluated = assess(result.output, cache=False)
    assert (evaluated.metrics["positive"], evaluated.classes) == (2, ("normal", "glaucoma"))
    assert "sensitivity" in evaluated.metrics
    resume_recipe(result.output, epochs=2, cache=False, report=False)
    assert len(read_log(result.output)) == 2


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.dataset == "palm"])
def test_every_recipe_on_photographs_takes_any_number_of_classes(name):
    with paddle.LazyGuard():
        logits = {classes: build_model(name, num_classes=classes).parameters()[-1].shape[-1] for classes in (2, 3, 7)}
    assert logits == {2: 1, 3: 3, 7: 7}
    assert find_recipe(name, num_classes=7).num_logits == 7


def test_weights_multiply_the_losses_of_their_class():
    rng = np.random.default_rng(0)
    for classes, dtype in ((1, "float32"), (3, "int64")):
        logits = paddle.to_tensor(rng.normal(size=(5, classes)).astype("float32"))
        labels = paddle.to_tensor(np.array([[0], [1], [1], [0], [max(1, classes - 1)]], dtype))
        factors = np.array([0.5, 2.0, 3.0])[: max(2, classes)]
        losses = cross_entropy(logits, labels, reduction="none").numpy().ravel()
        expected = (factors[labels.numpy().ravel().astype(int)] * losses).mean()
        found, _ = training_loss(logits, labels, factors.tolist())
        assert found.item() == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).integers(0, 4, 50)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert balanced_weights(labels.tolist(), 4) == pytest.approx(expected.tolist())


def test_a_network_for_other_classes_is_refused(folders, small_demo):
    """Never trained silently with labels 0, 1 and 2 for a sigmoid."""
    three = make_loaders(find_recipe("tiny"), DataOptions(folders), cache=False)
    two = make_loaders(find_recipe("tiny"), DataOptions(small_demo), cache=False)
    for loaders, classes, message in ((three, 2, "a network with 1 logit;"), (two, 3, "a network with 3 logits;")):
        with pytest.raises(InputError, match=message):
            train(build_model("tiny", num_classes=classes), *loaders[:2], epochs=1)
