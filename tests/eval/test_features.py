"""Filters and feature maps: the arrays, their figure, and tools/show_images.py --features."""

import shutil

import cv2
import numpy as np
import pytest
from helpers.processes import assert_refused

from palm_cls.checkpoints.weights import save
from palm_cls.core.errors import InputError
from palm_cls.core.figures import ignore_missing_glyphs, import_pyplot
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.palm import find_dataset
from palm_cls.data.samples import lesson_examples
from palm_cls.eval.features import correlation, feature_layers, first_filters, layer_features
from palm_cls.eval.features_figure import feature_figure
from palm_cls.models.alexnet_variants import AlexNetKeras, AlexNetPaper, LocalResponseNorm
from palm_cls.models.layers import Conv2D
from palm_cls.models.lenet import LeNet
from palm_cls.models.palmnet import PalmNet
from palm_cls.recipes import build_model

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


@pytest.fixture(autouse=True)
def closed_figures():
    """Close pyplot's figures, of which it warns above twenty."""
    yield
    import_pyplot().close("all")


def two_images(size):
    return np.random.RandomState(0).uniform(-1, 1, (2, 3, size, size)).astype("float32")


def eyes(dataset, size):
    return np.stack([transform_img(read_image(path), size) for path in lesson_examples(dataset)])


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_maps_are_those_that_the_next_layer_receives(activation):
    paddle.seed(0)
    model, imgs = LeNet(image_size=36, activation=activation), two_images(36)
    conv1, conv2, conv3 = layer_features(model, imgs, max_maps=20)
    assert [layer.name for layer in (conv1, conv2, conv3)] == ["conv1", "conv2", "conv3"]
    assert [layer.shape for layer in (conv1, conv2, conv3)] == [(6, 32, 32), (16, 12, 12), (120, 3, 3)]
    first = model.activation(model.conv1(paddle.to_tensor(imgs)))
    second = model.activation(model.conv2(model.pool1(first)))
    third = model.activation(model.conv3(model.pool2(second)))  # which is flattened afterwards
    np.testing.assert_array_equal(conv1.maps, first.numpy())
    np.testing.assert_array_equal(conv2.maps, second.numpy())
    np.testing.assert_array_equal(conv3.maps, third.numpy()[:, conv3.channels])


def test_the_channels_are_those_that_vary_most_over_both_images():
    paddle.seed(0)
    model, imgs = LeNet(image_size=28), two_images(28)
    full, few = (layer_features(model, imgs, max_maps=number)[1] for number in (16, 3))
    spread = [full.maps[:, channel].std() for channel in range(16)]
    assert set(few.channels) == set(np.argsort(spread)[-3:])
    assert few.channels == tuple(sorted(few.channels))
    np.testing.assert_array_equal(few.maps, full.maps[:, few.channels])
    assert few.correlation == full.correlation  # of all maps


def test_the_correlation_is_numpys():
    first, second = np.random.RandomState(0).rand(2, 5, 7, 6).astype("float32")
    second += first
    assert correlation(first, second) == pytest.approx(np.corrcoef(first.ravel(), second.ravel())[0, 1], abs=1e-12)
    assert correlation(first, 3 * first + 1) == pytest.approx(1)
    assert np.isnan(correlation(first, np.ones_like(first)))
    layer = layer_features(LeNet(image_size=28), two_images(28), max_maps=120)[2]
    assert layer.correlation == pytest.approx(np.corrcoef(*layer.maps.reshape(2, -1))[0, 1], abs=1e-6)


def test_one_image_has_no_correlation():
    assert [layer.correlation for layer in layer_features(LeNet(image_size=28), two_images(28)[:1])] == [None] * 3


def test_the_maps_of_sigmoid_are_more_alike_than_those_of_relu(small_demo):
    imgs = eyes(find_dataset(small_demo), 64)
    alike = {}
    for activation in ("sigmoid", "relu"):
        paddle.seed(0)
        layers = layer_features(LeNet(image_size=64, activation=activation), imgs)
        alike[activation] = [layer.correlation for layer in layers]
    assert alike["sigmoid"][2] > 0.99
    assert alike["sigmoid"] == sorted(alike["sigmoid"])  # more so in deeper layers
    assert all(sigmoid > relu for sigmoid, relu in zip(alike["sigmoid"], alike["relu"]))
    assert alike["relu"][2] < 0.95


class Normalised(nn.Layer):
    """A convolution that a normalisation follows, an activation function, and another convolution."""

    def __init__(self, norm):
        super().__init__()
        self.conv1, self.norm, self.conv2 = Conv2D(3, 4, 3), norm, Conv2D(4, 5, 3)

    def forward(self, x):
        return self.conv2(F.relu(self.norm(self.conv1(x))))


@pytest.mark.parametrize("norm", [nn.BatchNorm2D(4), LocalResponseNorm(5, k=2, alpha=1e-4, beta=0.75)])
def test_a_normalisation_and_what_follows_it_are_passed(norm):
    paddle.seed(0)
    model, imgs = Normalised(norm), two_images(9)
    model.train()
    first, last = layer_features(model, imgs)
    assert model.training
    model.eval()
    np.testing.assert_array_equal(first.maps, F.relu(norm(model.conv1(paddle.to_tensor(imgs)))).numpy())
    assert first.maps.min() == 0
    np.testing.assert_array_equal(last.maps, model(paddle.to_tensor(imgs)).numpy())  # no layer receives it


def test_blocks_are_shown_as_a_whole():
    paddle.seed(0)
    model, imgs = PalmNet(image_size=32), two_images(32)
    layers = layer_features(model, imgs, max_maps=200)
    assert [layer.name for layer in layers] == ["conv1", "block1", "block2", "block3", "block4"]
    model.eval()
    x = F.relu(model.norm1(model.conv1(paddle.to_tensor(imgs))))
    np.testing.assert_array_equal(layers[0].maps, x.numpy())
    for layer, block in zip(layers[1:], (model.block1, model.block2, model.block3, model.block4)):
        x = block(x)
        np.testing.assert_array_equal(layer.maps, x.numpy())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", "conv1 layer1.2 layer2.1 layer3.0 layer3.3 layer3.5 layer4.2"),
        ("googlenet", "_conv._conv _ince3b _ince4a _ince4b _ince4d _ince5a _ince5b"),
        ("vgg16", "features.0 features.5 features.10 features.14 features.19 features.24 features.28"),
    ],
)
def test_of_many_layers_some_are_taken(name, expected):
    with paddle.LazyGuard():  # without 500 MB of weights
        assert feature_layers(build_model(name)) == expected.split()


def test_a_library_activation_is_passed():
    paddle.seed(0)
    model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.ReLU(), nn.MaxPool2D(2), nn.Conv2D(4, 5, 3), nn.Sigmoid())
    for layer in layer_features(model, two_images(12)):
        assert layer.maps.min() >= 0
        assert layer.maps.max() <= (1 if layer.name == "3" else np.inf)


def test_filters_are_rgb_with_grey_for_0():
    model = LeNet(image_size=28)
    weights = np.zeros((6, 3, 5, 5), "float32")
    weights[0, 0, 1, 2], weights[0, 2] = 2, -1  # blue, everywhere less red
    model.conv1.weight.set_value(weights)
    name, filters = first_filters(model)
    assert (name, filters.shape) == ("conv1", (6, 5, 5, 3))
    np.testing.assert_array_equal(filters[0, 1, 2], [0.25, 0.5, 1])
    np.testing.assert_array_equal(filters[0, 0, 0], [0.25, 0.5, 0.5])
    assert (filters[1:] == 0.5).all()


def test_networks_without_photographs_or_convolutions_are_refused():
    with pytest.raises(InputError, match="conv1 takes 1 channels; filters are shown of networks for photographs"):
        first_filters(LeNet(in_channels=1, image_size=28))
    with pytest.raises(InputError, match="need a convolution"):
        layer_features(nn.Linear(3, 4), two_images(28))


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("number", [1, 2])
def test_the_figure(small_demo, number):
    images = lesson_examples(find_dataset(small_demo))[:number]
    figure = feature_figure(LeNet(image_size=36, num_classes=3), images, "a title")
    assert figure.texts[0].get_text() == "a title"
    assert [len(axis.images) for axis in figure.axes] == [1] * number + [6] + [number * maps for maps in (6, 8, 8)]
    written = texts(figure)
    assert written[: number + 1] == [path.name for path in images] + ["6 filters of conv1, 5 x 5 pixels"]
    assert {"conv1:  6 x 32 x 32", "conv2:  16 x 12 x 12  (8 of 16 maps)"} < set(written)
    alike = [text for text in written if text.startswith("correlation of the two images: 0.")]
    assert len(alike) == (3 if number == 2 else 0)
    for axis in figure.axes[-3:]:
        assert len({image.get_clim() for image in axis.images}) == 1  # one scale for both images


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("letter", ["$", "x", "眼"])
def test_names_of_any_length_have_room(small_demo, tmp_path, number, letter):
    image = tmp_path / f"{40 * letter}.jpg"
    shutil.copy(lesson_examples(find_dataset(small_demo))[0], image)
    figure = feature_figure(LeNet(image_size=28), [image] * number)
    with ignore_missing_glyphs():
        figure.canvas.draw()
        titles = [axis.texts[0].get_window_extent() for axis in figure.axes[: number + 1]]
    assert not any(left.overlaps(right) for left, right in zip(titles, titles[1:]))


def test_a_dead_layer_is_drawn(small_demo):
    model = LeNet(image_size=28, activation="relu")
    model.conv2.bias.set_value(np.full(16, -1e6, "float32"))
    figure = feature_figure(model, lesson_examples(find_dataset(small_demo)))
    assert "correlation of the two images: undefined, one is constant" in texts(figure)
    figure.canvas.draw()


def test_wrong_use_of_the_figure(small_demo):
    images = lesson_examples(find_dataset(small_demo))
    with pytest.raises(InputError, match="3 images: feature maps are drawn of one image or two"):
        feature_figure(LeNet(), [*images, images[0]])
    with pytest.raises(InputError, match="no layers; take the weights it was made from"):
        feature_figure(lambda imgs: imgs, images)


@pytest.mark.parametrize("network", [AlexNetPaper, AlexNetKeras])
def test_networks_with_normalisation_by_layers_of_ours_keep_their_shapes(network, monkeypatch):
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x[:, :1])  # the convolutions alone
    monkeypatch.setattr(nn.Linear, "__init__", lambda self, *sizes, **attributes: nn.Layer.__init__(self))
    layers = layer_features(network(), two_images(224)[:1])
    assert [layer.shape[0] for layer in layers] == [96, 256, 384, 384, 256]
    assert [layer.maps.min() >= 0 for layer in layers] == [True, True, *[network is AlexNetPaper] * 2, True]


@pytest.fixture(scope="module")
def palm_weights(tmp_path_factory):
    model = build_model("palm", num_classes=3, image_size=32)
    path = tmp_path_factory.mktemp("weights") / "palm"
    metadata = {"model": "palm", "input": {"size": 32, "channels": "BGR", "range": [-1.0, 1.0]}}
    save(path, model, metadata={**metadata, "classes": ["a", "b", "c"]})
    return f"{path}.pdparams"


def test_the_tool(tool_here, small_demo, palm_weights, tmp_path):
    options = ("--features", "--weights", palm_weights, "--data", small_demo, "--output", tmp_path / "a.png")
    done = tool_here("show_images", *options)
    assert (done.returncode, done.stdout) == (0, f"figure: {tmp_path / 'a.png'}\n"), done.stderr
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert width > height > 600
    image = lesson_examples(find_dataset(small_demo))[0]
    done = tool_here("show_images", "--features", "--weights", palm_weights, image, "--output", tmp_path / "b.png")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "b.png")).shape[0] < height  # one row a layer


def test_wrong_use_of_the_tool(tool_here, palm_weights):
    features = ("--features", "--weights", palm_weights)
    assert_refused(tool_here("show_images", "--features"), "--features needs the network: --weights PATH")
    assert_refused(tool_here("show_images", "a.jpg"), "IMAGE and --model go with --features")
    assert_refused(tool_here("show_images", *features, "a", "b", "c"), "--features shows one image or two")
    assert_refused(tool_here("show_images", *features, "nowhere.jpg"), "nowhere.jpg: no such image")
    assert_refused(tool_here("show_images", *features, "--augment", "lesson"), "not allowed with argument")
