from dataclasses import astuple

import numpy as np
import pytest
from helpers import recipes
from helpers.networks import conv, pool, set_weights

from palm_cls.core import device
from palm_cls.models.alexnet import AlexNet
from palm_cls.models.layers import Conv2D, classifier_layers, eval_mode
from palm_cls.models.lenet import LeNet
from palm_cls.models.summary import format_summary, layer_table, parameter_count

import paddle

# The original, layer by layer: output shape of 10 images, weight shape, bias shape.
LENET = """
conv1 [10, 6, 220, 220] [6, 3, 5, 5] [6]
pool1 [10, 6, 110, 110] None None
conv2 [10, 16, 106, 106] [16, 6, 5, 5] [16]
pool2 [10, 16, 53, 53] None None
conv3 [10, 120, 50, 50] [120, 16, 4, 4] [120]
fc1 [10, 64] [300000, 64] [64]
fc2 [10, 1] [64, 1] [1]
"""
ALEXNET = """
conv1 [10, 96, 56, 56] [96, 3, 11, 11] [96]
pool1 [10, 96, 28, 28] None None
conv2 [10, 256, 28, 28] [256, 96, 5, 5] [256]
pool2 [10, 256, 14, 14] None None
conv3 [10, 384, 14, 14] [384, 256, 3, 3] [384]
conv4 [10, 384, 14, 14] [384, 384, 3, 3] [384]
conv5 [10, 256, 14, 14] [256, 384, 3, 3] [256]
pool5 [10, 256, 7, 7] None None
fc1 [10, 4096] [12544, 4096] [4096]
drop1 [10, 4096] None None
fc2 [10, 4096] [4096, 4096] [4096]
drop2 [10, 4096] None None
fc3 [10, 1] [4096, 1] [1]
"""


@pytest.mark.parametrize(("network", "table", "count"), [(LeNet, LENET, 19_233_841), (AlexNet, ALEXNET, 71_916_929)])
def test_layers_and_parameters_are_the_originals(network, table, count):
    model = network()
    assert [" ".join(map(str, astuple(row))) for row in layer_table(model)] == table.strip().splitlines()
    assert parameter_count(model) == count
    assert format_summary(model).splitlines()[-1] == f"parameters: {count:,}"


def test_lenet_on_digits():
    model = LeNet(num_classes=10, in_channels=1, image_size=28)
    assert parameter_count(model) == 41_806
    assert [row.output_shape[1:] for row in layer_table(model)][:6] == [
        [6, 24, 24],
        [6, 12, 12],
        [16, 8, 8],
        [16, 4, 4],
        [120, 1, 1],
        [64],
    ]
    assert LeNet(num_classes=10, in_channels=3, image_size=28)(paddle.zeros([2, 3, 28, 28])).shape == [2, 10]


def test_a_frozen_layer_stays_frozen():
    model = paddle.nn.Sequential(paddle.nn.BatchNorm1D(3), paddle.nn.Linear(3, 1))
    model[0].eval()
    with eval_mode(model):
        assert not model.training
    assert [model.training, model[0].training, model[1].training] == [True, False, True]


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_table_leaves_the_network_and_the_random_numbers_alone(training):
    class Network(paddle.nn.Sequential):
        input_shape = (1, 8, 8)

    model = Network(paddle.nn.Conv2D(1, 2, 3), paddle.nn.BatchNorm2D(2), paddle.nn.Dropout(0.5))
    model.train() if training else model.eval()
    paddle.seed(0)
    expected = paddle.rand([1]).item()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    paddle.seed(0)
    layer_table(model)
    assert paddle.rand([1]).item() == expected
    assert all((before[name] == value.numpy()).all() for name, value in model.state_dict().items())
    assert all(layer.training is training for layer in model.sublayers(include_self=True))


def test_the_layer_table_is_of_single_layers_and_knows_those_without_bias():
    nn = paddle.nn

    class Network(nn.Sequential):
        input_shape = (1, 8, 8)

    inner = nn.Sequential(nn.Conv2D(1, 2, 3, bias_attr=False), nn.BatchNorm2D(2))
    rows = layer_table(Network(inner, nn.Flatten(), nn.Linear(72, 3)), batch_size=4)
    assert [astuple(row) for row in rows] == [
        ("0.0", [4, 2, 6, 6], [2, 1, 3, 3], None),
        ("0.1", [4, 2, 6, 6], [2], [2]),
        ("1", [4, 72], None, None),
        ("2", [4, 3], [72, 3], [3]),
    ]


def test_the_head_is_the_last_fully_connected_layer_or_what_the_network_tells():
    model = LeNet()
    assert classifier_layers(model) == ("fc2",)
    model.classifier_layers = ("fc1", "fc2")
    assert classifier_layers(model) == ("fc1", "fc2")
    assert classifier_layers(paddle.nn.Conv2D(1, 1, 1)) == ()


@pytest.mark.parametrize("arguments", [{"activation": "tanh"}, {"image_size": 27}])
def test_lenet_refuses_what_it_cannot_be(arguments):
    with pytest.raises(ValueError, match="is none of|too small"):
        LeNet(**arguments)


def test_initial_weights_follow_the_originals_distributions():
    paddle.seed(0)
    model = AlexNet()
    for name, parameter in model.named_parameters():
        value = parameter.numpy()
        if name.endswith("bias"):
            assert not value.any()
        elif value.ndim == 4:  # normal, variance 2 / fan-in
            assert value.std() == pytest.approx(np.sqrt(2 / value[0].size), rel=0.02)
            assert abs(value).max() > 3 * value.std()
        elif value.size > 10_000:  # Xavier uniform
            limit = np.sqrt(6 / sum(value.shape))
            assert value.max() == pytest.approx(limit, rel=1e-3)
            assert abs(value).mean() == pytest.approx(limit / 2, rel=0.01)


def test_alexnet_dropout_is_that_of_paddle_1_6():
    model = AlexNet()
    x = paddle.rand([4, 4096]) + 0.5
    for drop in (model.drop1, model.drop2):
        drop.train()
        kept = drop(x).numpy() / x.numpy()
        assert set(np.unique(kept)) == {0.0, 1.0}
        assert kept.mean() == pytest.approx(0.5, abs=0.03)
        drop.eval()
        np.testing.assert_array_equal(drop(x).numpy(), x.numpy() * np.float32(0.5))


def test_alexnet_computes_what_the_course_defines():
    """Against the definition in plain NumPy, in float64, where no rounding flips a ReLU."""
    p = {name: value.astype("float64") for name, value in recipes.init_state("alexnet1")}
    x = recipes.palm_batch(1000, n=2)[0].astype("float64")

    model = set_weights(AlexNet().to(dtype="float64"), "alexnet1", "float64")
    model.eval()
    logits = model(paddle.to_tensor(x)).numpy()

    def layer(x, i, **geometry):
        return np.maximum(conv(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], **geometry), 0)

    x = pool(layer(x, 1, stride=4, padding=5))
    x = pool(layer(x, 2, padding=2))
    x = layer(layer(x, 3, padding=1), 4, padding=1)
    x = pool(layer(x, 5, padding=1)).reshape(2, -1)
    for i in (1, 2):
        x = 0.5 * np.maximum(x @ p[f"fc{i}.weight"] + p[f"fc{i}.bias"], 0)
    np.testing.assert_allclose(logits, x @ p["fc3.weight"] + p["fc3.bias"], rtol=1e-10)


def test_relu_lenet_is_the_same_network_with_another_activation():
    x = paddle.rand([2, 3, 28, 28])
    sigmoid, relu = LeNet(image_size=28), LeNet(image_size=28, activation="relu")
    relu.set_state_dict(sigmoid.state_dict())
    assert not np.allclose(sigmoid(x).numpy(), relu(x).numpy())
    relu.activation = sigmoid.activation
    np.testing.assert_array_equal(sigmoid(x).numpy(), relu(x).numpy())


@pytest.mark.parametrize("groups", [1, 2])
def test_our_convolution_is_paddles_to_the_bit(groups):
    device.set_seed(0)
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": groups}
    ours, theirs = Conv2D(6, 8, **geometry), paddle.nn.Conv2D(6, 8, **geometry)
    ours.bias.set_value(paddle.randn([8]))
    theirs.set_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        x = paddle.to_tensor(np.random.RandomState(0).randn(4, 6, 9, 9).astype("float32"), stop_gradient=False)
        features = layer(x)
        (features**2).sum().backward()
        results.append([features, x.grad, layer.weight.grad, layer.bias.grad])
    for mine, paddles in zip(*results):
        np.testing.assert_array_equal(mine.numpy(), paddles.numpy())
