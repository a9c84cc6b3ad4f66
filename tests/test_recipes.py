"""What holds of every network of the family: layers, parameters, a training step, Grad-CAM."""

from dataclasses import replace

import numpy as np
import pytest

from palm_cls.core import device
from palm_cls.core.errors import InputError
from palm_cls.eval.gradcam import channel_weights, grad_cam
from palm_cls.eval.losses import training_loss
from palm_cls.models.summary import layer_table, parameter_count
from palm_cls.recipes import RECIPES, build_model, find_recipe

import paddle

# Of each layer the output shape of one image, and the shape of its weights; without those that change no shape.
LAYERS = {
    "lenet-fashion": """
        conv1 6x28x28 6x1x5x5
        pool1 6x14x14
        conv2 16x10x10 16x6x5x5
        pool2 16x5x5
        fc1 120 400x120
        fc2 84 120x84
        fc3 10 84x10
    """,
    "cnn-mnist": """
        conv1 16x28x28 16x1x3x3
        pool1 16x14x14
        conv2 32x14x14 32x16x3x3
        pool2 32x7x7
        fc1 128 1568x128
        fc2 10 128x10
    """,
    "alexnet-paper": """
        conv1 96x55x55 96x3x11x11
        pool1 96x27x27
        conv2 256x27x27 256x48x5x5
        pool2 256x13x13
        conv3 384x13x13 384x256x3x3
        conv4 384x13x13 384x192x3x3
        conv5 256x13x13 256x192x3x3
        pool5 256x6x6
        fc1 4096 9216x4096
        fc2 4096 4096x4096
        fc3 1 4096x1
    """,
    "alexnet-torchvision": """
        conv1 64x55x55 64x3x11x11
        pool1 64x27x27
        conv2 192x27x27 192x64x5x5
        pool2 192x13x13
        conv3 384x13x13 384x192x3x3
        conv4 256x13x13 256x384x3x3
        conv5 256x13x13 256x256x3x3
        pool5 256x6x6
        fc1 4096 9216x4096
        fc2 4096 4096x4096
        fc3 1 4096x1
    """,
    "alexnet-keras": """
        conv1 96x55x55 96x3x11x11
        pool1 96x27x27
        conv2 256x27x27 256x96x5x5
        pool2 256x13x13
        conv3 384x13x13 384x256x3x3
        conv4 384x13x13 384x384x3x3
        conv5 256x13x13 256x384x3x3
        pool5 256x6x6
        fc1 4096 9216x4096
        fc2 4096 4096x4096
        fc3 1 4096x1
    """,
}
# Where Grad-CAM looks: the layer, its channels and their side.
MAPS = {
    "lenet-fashion": ("conv2", 16, 10),
    "cnn-mnist": ("conv2", 32, 14),
    "alexnet-paper": ("conv5", 256, 13),
    "alexnet-torchvision": ("conv5", 256, 13),
    "alexnet-keras": ("conv5", 256, 13),
    "vgg16": ("features.29", 512, 14),
    "googlenet": ("_ince5b", 1024, 6),
    "resnet50": ("layer4", 2048, 7),
    "palm": ("block4", 192, 4),
}
PARAMETERS = {
    "lenet-fashion": 61_706,
    "cnn-mnist": 206_922,
    "alexnet-paper": 56_872_321,
    "alexnet-torchvision": 57_007_937,
    "alexnet-keras": 58_285_441,
    "vgg16": 134_264_641,
    "googlenet": 8_463_811,
    "resnet50": 23_510_081,
    "palm": 693_625,
}
COURSE = {"lenet", "lenet-relu", "alexnet", "lenet-mnist"}  # see test_models


SLOW = {"vgg16"}  # a step of it takes as long as all others


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PARAMETERS]
)
def network(request):
    """(name, network), the same for all tests: they leave it as it was."""
    device.set_seed(0)
    return request.param, build_model(request.param)


def classes_of(name):
    return 1 if RECIPES[name].dataset == "palm" else 10


def batch(name, model):
    imgs = np.random.RandomState(1).uniform(-1, 1, (2, *model.input_shape)).astype("float32")
    labels = np.array([[0], [1]], "float32" if classes_of(name) == 1 else "int64")
    return paddle.to_tensor(imgs), paddle.to_tensor(labels)


def described(row):
    shapes = (row.output_shape[1:], row.weight_shape or [])
    return " ".join([row.name, *("x".join(map(str, shape)) for shape in shapes if shape)])


def test_layers_and_parameters(network):
    name, model = network
    rows = layer_table(model, batch_size=1)
    assert rows[-1].output_shape == [1, classes_of(name)]
    assert parameter_count(model) == PARAMETERS[name]
    if name in LAYERS:
        found = [described(row) for row in rows if not row.name.startswith(("norm", "drop", "pool6"))]
        assert found == [line.strip() for line in LAYERS[name].strip().splitlines()]
        shapes = [row.weight_shape for row in rows if row.weight_shape]
        assert sum(np.prod(shape) + shape[0 if len(shape) == 4 else 1] for shape in shapes) == PARAMETERS[name]


def test_weights_and_parameters_of_vgg16():
    with paddle.LazyGuard():  # shapes without memory
        model = build_model("vgg16")
    convolutions = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    fully_connected = [512 * 7 * 7, 4096, 4096, 1]
    expected = [[after, before, 3, 3] for before, after in zip(convolutions, convolutions[1:])]
    expected += [list(shape) for shape in zip(fully_connected, fully_connected[1:])]
    assert [list(value.shape) for name, value in model.named_parameters() if name.endswith("weight")] == expected
    assert parameter_count(model) == PARAMETERS["vgg16"]


def test_an_answer_is_one_tensor_of_logits(network):
    name, model = network
    model.eval()
    with paddle.no_grad():
        logits = model(batch(name, model)[0])
    assert logits.shape == [2, classes_of(name)]
    assert logits.dtype == paddle.float32


def test_one_step_changes_every_parameter_and_lowers_the_loss(network):
    name, model = network
    before = {key: value.numpy() for key, value in model.state_dict().items()}
    imgs, labels = batch(name, model)
    model.train()
    optimizer = paddle.optimizer.Momentum(1e-4, 0.9, parameters=model.parameters())

    def loss():
        device.seed_step(0, 0)  # the same dropout both times
        return training_loss(model(imgs), labels)[0]

    first = loss()
    first.backward()
    optimizer.step()
    optimizer.clear_grad()
    assert loss().item() < first.item()
    trained = {key: value.numpy() for key, value in model.named_parameters() if not value.stop_gradient}
    assert [key for key, value in trained.items() if (value == before[key]).all()] == []
    model.set_state_dict(before)


def test_grad_cam_looks_at_the_last_maps(network):
    name, model = network
    layer, channels, side = MAPS[name]
    img = batch(name, model)[0][0].numpy()
    features, found = channel_weights(model, img)
    assert features.shape == (channels, side, side)
    assert features.min() >= 0  # behind the activation function
    assert found.any()
    np.testing.assert_array_equal(features, channel_weights(model, img, layer)[0])
    assert grad_cam(model, img).shape == (side, side)


def test_every_recipe_is_tested():
    assert set(RECIPES) - {"tiny"} == COURSE | set(PARAMETERS)


@pytest.mark.parametrize("name", [name for name in PARAMETERS if RECIPES[name].dataset == "palm" != name])
def test_the_fundus_networks_are_trained_as_the_lesson_trains(name):
    lesson = RECIPES["alexnet"]
    assert replace(RECIPES[name], network=lesson.network, model_kwargs=lesson.model_kwargs) == lesson


def test_an_unknown_augmentation_is_refused_by_listing_the_others():
    with pytest.raises(InputError, match="augmentation 'flip' is none of lesson, paper, strong"):
        find_recipe("lenet", augmentation="flip")


def test_an_unknown_recipe_is_refused_by_listing_the_others():
    with pytest.raises(InputError, match="model 'vgg' is none of lenet, .*vgg16"):
        build_model("vgg")
