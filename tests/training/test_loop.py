import json

import numpy as np
import pandas as pd
import pytest
from helpers.checkpoints import assert_same, weights
from helpers.training import network, reader

from palm_cls.checkpoints.run_dir import read_settings
from palm_cls.checkpoints.weights import load
from palm_cls.core.errors import InputError
from palm_cls.eval.evaluate import compute_metrics, evaluate, evaluation
from palm_cls.eval.losses import cross_entropy, training_loss
from palm_cls.training.experiment import train

import paddle


@pytest.mark.parametrize("classes", [1, 3])
def test_it_learns_and_tells_so_in_the_lessons_lines(capsys, classes):
    train_loader, valid_loader = reader([10] * 12, classes), reader([10, 7], classes, seed=1)
    history = train(network(classes), train_loader, valid_loader, epochs=8, learning_rate=0.002)
    assert history[-1]["valid_accuracy"] >= 0.9
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert [record["epoch"] for record in history] == list(range(8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "start training ... "
    assert [line.rpartition(" ")[0] for line in lines[1:4:2]] == [
        "epoch: 0, batch_id: 0, loss is:",
        "[validation] accuracy/loss:",
    ]
    assert lines[2].startswith("epoch: 0, batch_id: 10, loss is: ")
    assert lines[3] == f"[validation] accuracy/loss: {history[0]['valid_accuracy']}/{history[0]['valid_loss']}"
    assert len(lines) == 1 + 8 * 3


def test_means_weigh_every_sample_the_same():
    """The original averaged batches, which is another number when the last batch is smaller."""
    model, loader = network(), reader([10, 10, 3])
    model.eval()
    imgs, labels = (np.concatenate(parts) for parts in zip(*loader()))
    logits = model(paddle.to_tensor(imgs)).numpy()
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    result = evaluate(model, loader)
    assert result["images"] == 23
    assert result["loss"] == pytest.approx(-np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p)), rel=1e-5)
    assert result["accuracy"] == np.mean((p > 0.5) == labels)
    # the epoch's own means, with weights that do not move
    (record,) = train(model, loader, loader, epochs=1, learning_rate=1e-30)
    assert record["train_loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert record["train_accuracy"] == pytest.approx(result["accuracy"])


def test_the_same_seed_gives_the_same_bits():
    def run(seed):
        model = network(seed=seed)
        return train(model, reader([8] * 5), reader([8]), epochs=2), weights(model)

    first, again, other = run(1), run(1), run(2)
    assert first[0] == again[0]
    assert_same(first[1], again[1])
    assert first[0] != other[0]


def test_a_second_training_of_one_network_moves_its_weights():
    """In the original it moved none."""
    model = network()
    train(model, reader([8] * 3), reader([8]), epochs=1)
    before = weights(model)
    train(model, reader([8] * 3), reader([8]), epochs=1)
    assert all((before[name] != value).any() for name, value in weights(model).items())


def test_a_schedule_is_told_the_step_of_the_run():
    steps = []
    schedule = paddle.optimizer.lr.LambdaDecay(0.1, lambda step: steps.append(step) or 0.5**step)
    history = train(network(), reader([4] * 3), reader([4]), epochs=2, learning_rate=schedule)
    assert steps[-6:] == [0, 1, 2, 3, 4, 5]
    assert [record["learning_rate"] for record in history] == [0.1 * 0.5**2, 0.1 * 0.5**5]


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_weight_decay_is_added_to_the_gradient(momentum):
    loader, model = reader([4]), network()
    before = weights(model)
    train(model, loader, loader, epochs=1, momentum=momentum, learning_rate=0.1)
    plain = weights(model)
    decayed = network()
    train(decayed, loader, loader, epochs=1, momentum=momentum, learning_rate=0.1, weight_decay=0.5)
    for name, value in weights(decayed).items():
        np.testing.assert_allclose(value, plain[name] - 0.1 * 0.5 * before[name], rtol=1e-5, atol=1e-6)


def test_evaluation_puts_the_mode_back_and_needs_no_gradients():
    for training in (True, False):
        model = network()
        model.train() if training else model.eval()
        evaluate(model, reader([4]))
        assert model.training is training
        assert model.conv1.weight.grad is None


def test_a_run_keeps_settings_log_last_and_best(tmp_path):
    accuracies = iter([0.5, 0.75, 0.75, 0.25])
    model = network()
    valid_batches = list(reader([4])())

    def valid_loader():  # labels that make the accuracy what the list above says
        imgs = valid_batches[0][0]
        model.eval()
        predicted = (model(paddle.to_tensor(imgs)).numpy() > 0).astype("float32")
        model.train()
        hits = round(4 * next(accuracies))
        labels = np.concatenate([predicted[:hits], 1 - predicted[hits:]])
        kept.append(weights(model))
        return iter([(imgs, labels)])

    kept = []
    history = train(model, reader([8] * 3), valid_loader, epochs=4, output=tmp_path / "run", settings={"model": "m"})
    checkpoints = [
        f"last-{step}.{kind}" for step in ("0003-00000009", "0004-00000012") for kind in ("json", "pdopt", "pdparams")
    ]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "best.pdparams",
        *checkpoints,
        "log.csv",
        "settings.json",
    ]
    for name, epoch in (("best", 1), ("last-0004-00000012", 3)):  # the first of equally good epochs
        other = network(seed=9)
        load(tmp_path / "run" / name, other)
        assert_same(weights(other), kept[epoch])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "log.csv"), pd.DataFrame(history))
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings == read_settings(tmp_path / "run") == read_settings(tmp_path / "run" / "best.pdparams")
    assert (settings["model"], settings["epochs"], settings["learning_rate"], settings["momentum"]) == (
        "m",
        4,
        0.001,
        0.9,
    )
    assert settings["versions"]["paddle"] == paddle.__version__


def test_an_earlier_run_is_moved_aside_and_nothing_else_is(tmp_path, capsys):
    for _ in range(3):
        train(network(), reader([4]), reader([4]), epochs=1, output=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-1", "run-2"]
    assert all((path / "best.pdparams").is_file() for path in tmp_path.iterdir())
    assert f"moved to {tmp_path / 'run-2'}" in capsys.readouterr().err


def test_nothing_but_an_earlier_run_is_moved_aside(tmp_path, monkeypatch):
    for name in ("home", "editor", "run/inside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    (tmp_path / "editor" / "settings.json").write_text("{}")  # somebody else's
    (tmp_path / "run" / "settings.json").write_text('{"versions": {}}')
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path / "run" / "inside")
    for name, told in {
        "home": "not empty, and not the output of a run",
        "editor": "not the settings of a run",
        "file": "a file",
        "run": "the current directory lies in it",
        "run/inside/..": "the current directory lies in it",
    }.items():
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=told):
            train(network(), reader([4]), reader([4]), epochs=1, output=tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before


def test_the_lessons_evaluation(tmp_path, capsys):
    model = network()
    history = train(model, reader([8] * 3), reader([8, 3], seed=1), epochs=1, output=tmp_path / "run")
    capsys.readouterr()
    result = evaluation(network(seed=5), tmp_path / "run", reader([8, 3], seed=1), remark="(remark)")
    assert (result["loss"], result["accuracy"]) == (history[0]["valid_loss"], history[0]["valid_accuracy"])
    assert capsys.readouterr().out.splitlines() == [
        "start evaluation .......",
        f"loss={result['loss']}, acc={result['accuracy']} (remark)",
    ]


def test_the_loss_is_right_far_out_and_at_zero():
    logits = paddle.to_tensor([[0.0], [0.0], [200.0], [-200.0], [200.0]], stop_gradient=False)
    labels = paddle.to_tensor([[0.0], [1.0], [1.0], [0.0], [0.0]])
    loss = cross_entropy(logits, labels, "none")
    np.testing.assert_allclose(loss.numpy().ravel(), [np.log(2), np.log(2), 0, 0, 200], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_allclose(logits.grad.numpy().ravel(), [0.5, -0.5, 0, 0, 1], atol=1e-7)


def test_metrics_of_one_image():
    assert (
        compute_metrics(np.zeros((1, 1), "float32"), np.zeros((1, 1), "float32"))["accuracy"] == 1.0
    )  # exactly 0.5: class 0


@pytest.mark.parametrize("classes", [1, 3])
def test_auxiliary_heads_count_three_tenths_each(classes):
    rng = np.random.RandomState(0)
    outputs = tuple(paddle.to_tensor(rng.randn(4, classes).astype("float32")) for _ in range(3))
    labels = paddle.to_tensor(rng.randint(0, 2, (4, 1)).astype("float32" if classes == 1 else "int64"))
    losses = [cross_entropy(output, labels).item() for output in outputs]
    for given, expected in ((outputs[0], losses[0]), (outputs, losses[0] + 0.3 * (losses[1] + losses[2]))):
        loss, logits = training_loss(given, labels)
        assert logits is outputs[0]
        assert loss.item() == pytest.approx(expected, rel=1e-6)
