import numpy as np
import pytest
from helpers.networks import conv, pool

from palm_cls.core import device
from palm_cls.models.mnist_nets import CNNMnist, LeNetFashion

import paddle


def halved(x):
    """Means of 2 x 2 pixels."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def parameters_of(model):
    state = {name: value.numpy().astype("float64") for name, value in model.named_parameters()}
    return lambda layer: (state[f"{layer}.weight"], state[f"{layer}.bias"])


def answers(model, imgs):
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(imgs)).numpy()


IMGS = np.random.RandomState(0).uniform(-1, 1, (3, 1, 28, 28)).astype("float32")


def test_lenet_computes_what_the_book_defines():
    model = LeNetFashion()
    p = parameters_of(model)
    x = halved(sigmoid(conv(IMGS, *p("conv1"), padding=2)))
    x = halved(sigmoid(conv(x, *p("conv2")))).reshape(3, -1)
    for layer in ("fc1", "fc2"):
        weight, bias = p(layer)
        x = sigmoid(x @ weight + bias)
    weight, bias = p("fc3")
    np.testing.assert_allclose(answers(model, IMGS), x @ weight + bias, rtol=1e-4, atol=1e-6)


def test_lenet_starts_xavier_uniform_with_biases_of_zero():
    device.set_seed(0)
    for name, parameter in LeNetFashion().named_parameters():
        value = parameter.numpy()
        if name.endswith("bias"):
            assert not value.any()
        else:
            fans = sum(value.shape) if value.ndim == 2 else sum(value.shape[:2]) * 5 * 5
            limit = np.sqrt(6 / fans)
            assert abs(value).max() <= limit
            assert abs(value).max() == pytest.approx(limit, rel=0.05)
            assert abs(value).mean() == pytest.approx(limit / 2, rel=0.1)


def test_the_digit_network_computes_what_is_said():
    model = CNNMnist()
    p = parameters_of(model)
    x = pool(np.maximum(conv(IMGS, *p("conv1"), padding=1), 0))
    x = pool(np.maximum(conv(x, *p("conv2"), padding=1), 0)).reshape(3, -1)
    weight, bias = p("fc1")
    x = np.maximum(x @ weight + bias, 0)
    weight, bias = p("fc2")
    np.testing.assert_allclose(answers(model, IMGS), x @ weight + bias, rtol=1e-4, atol=1e-5)


def test_its_dropout_scales_up_in_training():
    drop = CNNMnist().drop
    x = paddle.ones([100, 128])
    drop.train()
    assert set(np.unique(drop(x).numpy())) == {0.0, 2.0}
    drop.eval()
    np.testing.assert_array_equal(drop(x).numpy(), x.numpy())
