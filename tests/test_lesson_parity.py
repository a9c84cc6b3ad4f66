"""The lesson against the original's numbers, of PaddlePaddle 1.6.1 (tests/golden, from tests/helpers/recipes.py)."""

import hashlib
import random

import cv2
import numpy as np
import pytest
from helpers import recipes
from helpers.networks import set_weights

from palm_cls.data.images import read_image, transform_img
from palm_cls.data.loaders import data_loader, valid_data_loader
from palm_cls.eval.evaluate import compute_metrics, predicted_classes
from palm_cls.eval.losses import cross_entropy
from palm_cls.models.lenet import LeNet
from palm_cls.training.experiment import train

import paddle
import paddle.nn.functional as F


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def sample(tensor):
    return tensor.numpy().ravel()[recipes.sample_index(tensor.size)]


def test_first_step_of_lenet(golden):
    expected = golden("lenet1")
    model = set_weights(LeNet(num_classes=1), "lenet1")
    close(model(paddle.to_tensor(recipes.palm_batch(recipes.valid_seed(0))[0])).numpy(), expected["init_logits_eval"])

    imgs, labels = map(paddle.to_tensor, recipes.palm_batch(recipes.train_seed(0)))
    optimizer = paddle.optimizer.Momentum(0.001, 0.9, parameters=model.parameters())
    cross_entropy(model(imgs), labels).backward()
    for name, parameter in model.named_parameters():
        close(sample(parameter.grad), expected[f"grad0.sample.{name}"])
    optimizer.step()
    for name, parameter in model.named_parameters():
        close(sample(parameter), expected[f"step1.sample.{name}"])


@pytest.mark.slow
def test_twenty_steps_of_lenet_through_train(golden, tmp_path, capsys):
    """Two epochs of ten steps: losses, logits, validation, weights and velocities."""
    expected = golden("lenet1")
    steps = iter(range(recipes.STEPS))

    def train_loader():
        return (recipes.palm_batch(recipes.train_seed(next(steps))) for _ in range(recipes.PER_EPOCH))

    def valid_loader():
        return (recipes.palm_batch(recipes.valid_seed(i)) for i in range(4))

    model = set_weights(LeNet(num_classes=1), "lenet1")
    logits = []
    model.register_forward_post_hook(lambda layer, _, output: logits.append(output.numpy()) if layer.training else None)
    history = train(model, train_loader, valid_loader, epochs=2, log_every=1, output=tmp_path / "run")

    printed = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines() if "loss is:" in line]
    close(printed, expected["loss"])
    close(np.stack(logits), expected["logits"])
    close([record["valid_loss"] for record in history], expected["valid_loss"])
    close([record["valid_accuracy"] for record in history], expected["valid_acc"])
    velocities = paddle.load(str(tmp_path / "run" / "last-0002-00000020.pdopt"))
    for name, parameter in model.named_parameters():
        close(sample(parameter), expected[f"final.sample.{name}"])
        close(sample(velocities[f"{name}.velocity"]), expected[f"final.velocity.sample.{name}"])


def test_momentum_trajectory(golden):
    expected = golden("metrics")
    parameter = paddle.create_parameter([4, 3], "float32")
    parameter.set_value(expected["mom.p0"])
    optimizer = paddle.optimizer.Momentum(0.001, 0.9, parameters=[parameter])
    for grad, after in zip(expected["mom.grad"], expected["mom.traj"]):
        (parameter * paddle.to_tensor(grad)).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        close(parameter.numpy(), after)


@pytest.mark.parametrize("kind", ["bin", "cls"])
def test_loss_and_accuracy_formulas(golden, kind):
    """One class (probabilities of exactly 0.5 included) and ten classes (ties included)."""
    expected = golden("metrics")
    logits, labels = expected[f"{kind}.logits"], expected[f"{kind}.labels"]
    for batch, label, loss, accuracy in zip(logits, labels, expected[f"{kind}.loss"], expected[f"{kind}.acc"]):
        close(cross_entropy(paddle.to_tensor(batch), paddle.to_tensor(label), "none").numpy(), loss)
        assert (predicted_classes(paddle.to_tensor(batch)) == label.ravel()).mean() == pytest.approx(accuracy.item())
    together = compute_metrics(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1, 1))
    assert together["images"] == 60
    assert together["loss"] == pytest.approx(expected[f"{kind}.mean_loss"].item(), rel=1e-5)
    assert together["accuracy"] == pytest.approx(expected[f"{kind}.mean_acc"].item())


def test_sigmoid_is_exactly_half_only_where_the_original_says(golden):
    expected = golden("metrics")
    for logits, pred in zip(expected["bin.logits"], expected["bin.pred"]):
        found = F.sigmoid(paddle.to_tensor(logits)).numpy()
        close(found, pred[:, 1:])
        np.testing.assert_array_equal(found == 0.5, pred[:, 1:] == 0.5)


@pytest.mark.parametrize("label", ["0", "1", "0.3"])
def test_sigmoid_cross_entropy_over_the_range_of_logits(golden, label):
    expected = golden("semantics")
    x = paddle.to_tensor(expected["sce_x"].reshape(-1, 1), stop_gradient=False)
    loss = cross_entropy(x, paddle.full(x.shape, float(label)), "none")
    close(loss.numpy(), expected[f"sce_loss_{label}"])
    loss.sum().backward()
    close(x.grad.numpy(), expected[f"sce_grad_{label}"])


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """The 25 JPEGs of the readers' golden, and the table of their labels."""
    root = tmp_path_factory.mktemp("reader")
    recipes.write_jpegs(str(root / "images"))
    recipes.write_csv(str(root / "labels.csv"))
    return root


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_every_stage_of_the_reader_byte_for_byte(golden, jpegs):
    expected = golden("reader")
    for i, name in enumerate(expected["names"]):
        path = jpegs / "images" / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected["jpeg_sha256"][i]
        img = read_image(path)
        assert digest(img) == expected["decoded_sha256"][i]
        assert digest(cv2.resize(img, (224, 224))) == expected["resized_sha256"][i]
        transformed = transform_img(img)
        assert (transformed.dtype, transformed.shape) == (np.float32, (3, 224, 224))
        assert digest(transformed) == expected["transform_sha256"][i]


def assert_batches(batches, expected, name):
    batches = list(batches)
    assert [[*imgs.shape, *labels.shape] for imgs, labels in batches] == expected[f"{name}.shapes"].tolist()
    assert {(imgs.dtype, labels.dtype) for imgs, labels in batches} == {(np.dtype("float32"), np.dtype("float32"))}
    assert np.concatenate([labels for _, labels in batches]).ravel().tolist() == expected[f"{name}.labels"].tolist()
    assert [digest(imgs) for imgs, _ in batches] == expected[f"{name}.sha256"].tolist()


def test_readers_batch_for_batch(golden, jpegs):
    expected = golden("reader")
    images, table = jpegs / "images", jpegs / "labels.csv"
    assert_batches(data_loader(images, mode="valid")(), expected, "data_loader_valid")
    assert_batches(valid_data_loader(images, table)(), expected, "valid_data_loader")
    assert_batches(valid_data_loader(images, table, batch_size=25)(), expected, "valid_data_loader_b25")


def test_both_shuffled_epochs(golden, jpegs):
    expected = golden("reader")
    reader = data_loader(str(jpegs / "images"))
    random.seed(0)
    assert_batches(reader(), expected, "data_loader_train_epoch0")
    assert_batches(reader(), expected, "data_loader_train_epoch1")
