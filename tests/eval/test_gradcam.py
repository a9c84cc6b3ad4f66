import numpy as np
import pytest

from palm_cls.core.errors import InputError
from palm_cls.eval.gradcam import OPACITY, channel_weights, grad_cam, overlay
from palm_cls.models.layers import Conv2D
from palm_cls.recipes import build_model

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

SIDE = 6
BLUE_PATCH, RED_PATCH = (slice(0, 2), slice(1, 3)), (slice(3, 6), slice(4, 6))


class Colours(nn.Layer):
    """Counts blue pixels for class 1, red ones against it; what is neither lies below the threshold of the ReLU."""

    def __init__(self, num_classes=1):
        super().__init__()
        self.conv = Conv2D(3, 2, kernel_size=1)
        self.fc = nn.Linear(2 * SIDE * SIDE, num_classes)
        self.conv.weight.set_value(np.array([[1, 0, 0], [0, 0, 1]], "float32").reshape(2, 3, 1, 1))
        self.conv.bias.set_value(np.array([-0.5, -0.5], "float32"))
        count = np.repeat([1, -1], SIDE * SIDE).astype("float32").reshape(-1, 1)
        self.fc.weight.set_value(count if num_classes == 1 else np.hstack([-count, count, 0 * count]))

    def forward(self, x):
        return self.fc(paddle.flatten(F.relu(self.conv(x)), 1))


def coloured():
    """A small blue patch and a larger red one: class 0 is predicted."""
    img = np.zeros((3, SIDE, SIDE), "float32")
    img[0][BLUE_PATCH] = 1
    img[2][RED_PATCH] = 1
    return img


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("label", "patch"), [(1, BLUE_PATCH), (0, RED_PATCH), (None, RED_PATCH)])
def test_the_map_is_1_where_the_network_looks_and_0_elsewhere(classes, label, patch):
    expected = np.zeros((SIDE, SIDE), "float32")
    expected[patch] = 1
    for layer in (None, "conv"):
        heat = grad_cam(Colours(classes), coloured(), layer, label)
        assert heat.dtype == "float32"
        np.testing.assert_array_equal(heat, expected)


def test_where_nothing_speaks_for_the_label_the_map_is_0():
    img = coloured()
    img[0] = 0
    assert not grad_cam(Colours(), img, label=1).any()


class Bent(nn.Layer):
    """A network whose answer is far from linear in its feature maps."""

    def __init__(self):
        super().__init__()
        self.conv1 = Conv2D(2, 3, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2D(3)
        self.conv2 = Conv2D(3, 4, kernel_size=3)
        self.pool = nn.MaxPool2D(2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 3 * 2, 5)

    def maps(self, x):
        return F.sigmoid(self.conv2(F.relu(self.norm(self.conv1(x)))))

    def head(self, maps):
        return self.fc(self.drop(paddle.flatten(self.pool(maps), 1))).tanh().square().sum(axis=1, keepdim=True)

    def forward(self, x):
        return self.head(self.maps(x))


def bent():
    paddle.seed(0)
    return Bent(), np.random.RandomState(0).randn(2, 8, 7)


@pytest.mark.parametrize("label", [0, 1])
def test_the_weights_of_channels_are_what_finite_differences_give(label):
    model, img = bent()
    model.to(dtype="float64")
    features, found = channel_weights(model, img, label=label)
    model.eval()
    maps = model.maps(paddle.to_tensor(img).unsqueeze(0))
    np.testing.assert_array_equal(features, maps[0].numpy())

    step, expected = 1e-6, []
    for channel in np.eye(4):
        move = paddle.to_tensor(step * channel.reshape(1, 4, 1, 1))
        slope = (model.head(maps + move) - model.head(maps - move)).item() / (2 * step)
        expected.append((slope if label else -slope) / maps[0, 0].numpy().size)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
    assert np.abs(found).min() > 1e-4


def test_the_network_stays_as_it_was():
    model, img = bent()
    img = img.astype("float32")
    model.train()
    model.norm.eval()  # as one freezes it
    model.conv1.weight.stop_gradient = True
    model(paddle.to_tensor(img).unsqueeze(0)).sum().backward()

    def state():
        return (
            {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
            [layer.training for layer in model.sublayers(include_self=True)],
            [parameter.stop_gradient for parameter in model.parameters()],
            [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        )

    before = state()
    with paddle.no_grad():
        heat = grad_cam(model, img)
    for layer in ("fc", "nonsense"):
        with pytest.raises(InputError):
            grad_cam(model, img, layer)
    assert heat.max() == 1
    assert state() == before
    assert not any(x._forward_post_hooks or x._forward_pre_hooks for x in model.sublayers())
    np.testing.assert_array_equal(grad_cam(model, img), heat)  # without dropout


def test_any_layer_of_maps_can_be_asked():
    model, img = bent()
    shapes = {name: grad_cam(model, img.astype("float32"), name).shape for name in ("conv1", "norm", "conv2", "pool")}
    assert shapes == {"conv1": (8, 7), "norm": (8, 7), "conv2": (6, 5), "pool": (3, 2)}
    np.testing.assert_array_equal(
        grad_cam(model, img.astype("float32"), model.conv2), grad_cam(model, img.astype("float32"))
    )


def test_a_network_may_name_the_layer():
    model, img = bent()
    img = img.astype("float32")
    expected = grad_cam(model, img, "conv1")
    assert expected.shape != grad_cam(model, img).shape
    model.cam_layer = "conv1"
    np.testing.assert_array_equal(grad_cam(model, img), expected)


@pytest.mark.parametrize(
    ("layer", "message"),
    [("fc", "this layer gives no feature maps"), ("conv9", "no layer 'conv9'; it has conv1, norm, conv2")],
)
def test_other_layers_are_refused(layer, message):
    model, img = bent()
    with pytest.raises(InputError, match=message):
        grad_cam(model, img.astype("float32"), layer)


def test_a_network_without_a_convolution_is_refused():
    with pytest.raises(InputError, match="Grad-CAM needs a convolution, and this network has none"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), np.zeros((3, 2, 2), "float32"))


def test_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="label 2 is none"):
        grad_cam(Colours(), coloured(), label=2)


@pytest.mark.parametrize(("name", "side"), [("lenet", 50), ("alexnet", 14)])
def test_the_networks_of_the_lesson(name, side):
    paddle.seed(0)
    model = build_model(name)
    img = np.random.RandomState(0).uniform(-1, 1, (3, 224, 224)).astype("float32")
    maps = [grad_cam(model, img, label=label) for label in (0, 1)]
    for heat in maps:
        assert heat.shape == (side, side)
        assert heat.min() >= 0
    assert max(heat.max() for heat in maps) == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_overlay_is_the_photograph_where_the_map_is_0_and_coloured_where_it_is_1():
    photo = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype("uint8")
    before = photo.copy()
    np.testing.assert_array_equal(overlay(photo, np.zeros((14, 14), "float32")), photo)
    heat = np.zeros((3, 4), "float32")
    heat[:, 3] = 1
    blended = overlay(photo, heat)
    assert (blended.shape, blended.dtype) == ((90, 120, 3), "uint8")
    np.testing.assert_array_equal(blended[:, :75], photo[:, :75])
    dark_red = np.array([3, 4, 122])  # BGR, the end of the scale of colours
    np.testing.assert_allclose(blended[:, 105:], (1 - OPACITY) * photo[:, 105:] + OPACITY * dark_red, atol=1)
    np.testing.assert_array_equal(photo, before)
