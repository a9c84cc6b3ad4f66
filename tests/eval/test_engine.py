import numpy as np
import pytest
from helpers.networks import spread_out

from palm_cls.core import console, device
from palm_cls.eval import engine
from palm_cls.eval.engine import MIN_IMAGES, predict, predictor, to_inference_engine
from palm_cls.eval.evaluate import evaluate
from palm_cls.models.alexnet import AlexNet
from palm_cls.models.lenet import LeNet
from palm_cls.recipes import RECIPES, build_model

import paddle

needs_engine = pytest.mark.skipif(not engine._has_engine(), reason="the engine is for x86 processors without a GPU")


@pytest.fixture(autouse=True)
def nothing_told_yet():
    console.log_once.cache_clear()
    device.set_seed(0)


def random_images(number, shape=(3, 224, 224)):
    return np.random.RandomState(1).uniform(-1, 1, (number, *shape)).astype("float32")


SLOW = set(RECIPES) - {"lenet", "lenet-mnist"}  # to convert


@needs_engine
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RECIPES])
def test_converted_networks_give_the_same_logits(name):
    model = build_model(name)
    model.eval()
    with paddle.no_grad():
        bias = model.parameters()[-1]
        bias.set_value(paddle.full_like(bias, 0.5))
        if name.startswith("alexnet-"):
            spread_out(model)
    imgs = random_images(5, model.input_shape)
    fast, expected = to_inference_engine(model, imgs), predict(model, imgs)
    tolerance = 5e-5 * max(1, np.abs(expected).max())
    for part in (slice(5), slice(1), slice(None, None, -1)):  # another size of batch; memory that is not contiguous
        np.testing.assert_allclose(fast(imgs[part]), expected[part], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(fast(imgs), fast(imgs))
    assert expected.std() > (0 if name == "lenet" else 20 * tolerance)


@needs_engine
def test_few_images_are_not_worth_a_conversion(monkeypatch):
    conversions = []
    monkeypatch.setattr(engine, "to_inference_engine", lambda model, imgs: conversions.append(len(imgs)))
    model = LeNet(num_classes=10, in_channels=1, image_size=28)
    imgs = random_images(4, (1, 28, 28))
    for images in (MIN_IMAGES - 1, MIN_IMAGES):
        with predictor(model, images) as logits_of:
            logits_of(imgs)
            logits_of(imgs)
    assert conversions == [4]


class Wide(paddle.nn.Layer):
    """A small network whose gradients depend, in their last bits, on the number of threads that compute them."""

    def __init__(self):
        super().__init__()
        self.layers = paddle.nn.Sequential(
            paddle.nn.Flatten(), paddle.nn.Linear(784, 64), paddle.nn.ReLU(), paddle.nn.Linear(64, 1)
        )

    def forward(self, x):
        return self.layers(x)


def weights_after_training(network, imgs, evaluate, steps=3):
    """The parameters after some steps, as bytes; before each of them, `evaluate` is called with the network."""
    device.set_seed(3)
    model = network()
    optimizer = paddle.optimizer.Momentum(0.001, 0.9, parameters=model.parameters())
    for step in range(steps):
        evaluate(model)
        assert model.training
        device.seed_step(3, step)
        (model(paddle.to_tensor(imgs)) ** 2).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
    return [parameter.numpy().tobytes() for parameter in model.parameters()]


@needs_engine
@pytest.mark.parametrize(
    ("network", "shape"), [(Wide, (1, 28, 28)), pytest.param(AlexNet, (3, 224, 224), marks=pytest.mark.slow)]
)
def test_training_after_an_evaluation_gives_the_same_bits_and_has_the_same_threads(network, shape, math_threads):
    imgs = random_images(4, shape)
    weights_after_training(network, imgs, lambda model: None, steps=1)  # which loads the libraries
    threads = math_threads()

    def evaluate(model):
        with predictor(model, MIN_IMAGES) as logits_of:
            logits_of(imgs)
        assert math_threads() == threads

    assert max(threads.values()) == device.num_threads()  # MKL takes no more than there are cores
    assert weights_after_training(network, imgs, evaluate) == weights_after_training(network, imgs, lambda model: None)


@needs_engine
def test_an_evaluation_that_fails_leaves_the_threads_as_they_were(math_threads):
    model = Wide()
    with predictor(model, MIN_IMAGES) as logits_of:
        logits_of(random_images(2, (1, 28, 28)))
        threads = math_threads()
        with pytest.raises(Exception, match="shape|dims|width|size"):
            logits_of(random_images(2, (1, 9, 9)))
    assert math_threads() == threads


class Moody(paddle.nn.Layer):
    """A network that asks NumPy, which no conversion sees, and so gives other logits once converted."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails
        self.fc = paddle.nn.Linear(4, 1)

    def forward(self, x):
        if self.fails and not paddle.in_dynamic_mode():
            raise RuntimeError("not\nthis one")
        return self.fc(paddle.flatten(x, 1)) + float(paddle.in_dynamic_mode())


@needs_engine
@pytest.mark.parametrize(("fails", "reason"), [(True, "could not be converted ("), (False, "it gives other logits")])
def test_a_network_that_does_not_convert_is_evaluated_all_the_same(fails, reason, capfd):
    model = Moody(fails)
    imgs = random_images(3, (1, 2, 2))
    with predictor(model, MIN_IMAGES) as logits_of:
        found = logits_of(imgs)
    np.testing.assert_array_equal(found, predict(model, imgs))
    message = capfd.readouterr().err
    assert reason in message
    assert message.count("\n") == 1


def test_evaluation_is_the_same_with_and_without_the_engine(monkeypatch):
    imgs, labels = random_images(MIN_IMAGES, (1, 28, 28)), np.arange(MIN_IMAGES).reshape(-1, 1) % 10
    model = LeNet(num_classes=10, in_channels=1, image_size=28, activation="relu")

    def loader():
        for start in range(0, MIN_IMAGES, 32):
            yield imgs[start : start + 32], labels[start : start + 32]

    plain = evaluate(model, loader)
    loader.num_samples = MIN_IMAGES
    fast = evaluate(model, loader)
    assert fast["images"] == plain["images"] == MIN_IMAGES
    assert fast["accuracy"] == plain["accuracy"]
    assert fast["loss"] == pytest.approx(plain["loss"], abs=5e-5)
    assert model.training
    monkeypatch.setenv("PALM_STOCK", "1")
    assert evaluate(model, loader) == plain
