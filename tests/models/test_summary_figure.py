"""The figure of a network's layers, and tools/train.py --summary --figure."""

import cv2
import pytest
from helpers.processes import assert_refused

from palm_cls.core.figures import import_pyplot
from palm_cls.models.layers import find_blocks, short_name
from palm_cls.models.lenet import LeNet
from palm_cls.models.palmnet import PalmNet
from palm_cls.models.summary import layer_table
from palm_cls.models.summary_figure import COLOURS, network_boxes, network_figure
from palm_cls.recipes import build_model

import paddle.nn as nn


@pytest.fixture(autouse=True)
def closed_figures():
    """Close pyplot's figures, of which it warns above twenty."""
    yield
    import_pyplot().close("all")


def test_the_boxes_of_the_lesson_are_its_table_of_layers():
    boxes = network_boxes(LeNet())
    assert [" ".join(box.lines) for box in boxes] == [
        *("input", "conv1 5x5", "pool1 max 2x2", "conv2 5x5", "pool2 max 2x2", "conv3 4x4", "fc1", "fc2")
    ]
    assert boxes[0].shape == (3, 224, 224)
    assert [list(box.shape) for box in boxes[1:]] == [row.output_shape[1:] for row in layer_table(LeNet())]
    assert [box.kind for box in boxes[-3:]] == ["convolution", "fully connected", "fully connected"]


def test_blocks_are_a_box_each_and_keep_no_rows():
    model = PalmNet(image_size=64)
    assert find_blocks(model) == ["block1", "block2", "block3", "block4"]
    boxes = network_boxes(model)
    assert [box.lines[0] for box in boxes] == ["input", "conv1", *find_blocks(model), "pool", "fc"]
    assert [box.shape for box in boxes[1:]] == [
        *((24, 16, 16), (24, 16, 16), (48, 8, 8), (96, 4, 4), (192, 2, 2), (192, 1, 1), (1,))
    ]
    assert boxes[1].lines == ("conv1", "7x7", "stride 4")
    assert boxes[6].lines == ("pool", "average")


def test_googlenet_without_its_auxiliary_heads():
    model = build_model("googlenet")
    boxes = network_boxes(model)
    assert [box.lines[0] for box in boxes] == [
        *("input", "conv", "pool", "conv_1.conv", "conv_2.conv", "pool", "ince3a", "ince3b", "pool"),
        *("ince4a", "ince4b", "ince4c", "ince4d", "ince4e", "pool", "ince5a", "ince5b", "pool_5", "fc_out"),
    ]
    assert boxes[-3].shape == (1024, 6, 6)  # of all branches
    figure = network_figure(model)
    assert figure.axes[0].texts[-1].get_text() == "8,463,811 parameters with the auxiliary heads, which are not drawn"


def test_a_network_without_blocks_has_none():
    assert find_blocks(LeNet()) == []
    wrapped = nn.Sequential(LeNet())  # all convolutions in one layer are no block
    assert find_blocks(wrapped) == []
    assert short_name("_conv._conv") == "conv"
    assert short_name("layer1.0") == "layer1.0"


def arrows(axis):
    return [text for text in axis.texts if getattr(text, "arrow_patch", None)]


@pytest.mark.parametrize(("convolutions", "rows", "size"), [(11, 1, 8), (12, 2, 600)])
def test_many_layers_wrap_into_rows(convolutions, rows, size):
    model = nn.Sequential(*(nn.Conv2D(3, 3, 1) for _ in range(convolutions)), nn.Conv2D(3, 3, 1), nn.ReLU())
    model.input_shape = (3, size, size)
    figure = network_figure(model, "n$t")
    (axis,) = figure.axes
    shapes = [text for text in axis.texts if text.get_text() == f"3 x {size} x {size}"]
    assert len(shapes) == convolutions + 2  # with the input, without the activation function
    assert len({text.get_position()[1] for text in shapes}) == rows
    assert len(axis.patches) == 3 * len(shapes)
    assert len(arrows(axis)) == len(shapes) - 1
    figure.canvas.draw()
    box = axis.get_window_extent()
    for text in axis.texts:  # nothing is cut off, at any size
        extent = text.get_window_extent()
        assert box.containsx(extent.x0)
        assert box.containsx(extent.x1)
        assert box.containsy(extent.y0)
        assert box.containsy(extent.y1)


def test_no_texts_overlap():
    figure = network_figure(LeNet(), "lenet")
    figure.canvas.draw()
    (axis,) = figure.axes
    extents = [text.get_window_extent() for text in axis.texts if text.get_text()]
    overlaps = [(a, b) for i, a in enumerate(extents) for b in extents[:i] if a.overlaps(b)]
    assert overlaps == []
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        kind for kind in COLOURS if kind != "block of convolutions"
    ]


def test_the_tool(tool_here, tmp_path):
    plain = tool_here("train", "--summary", "--model", "palm")
    done = tool_here("train", "--summary", "--model", "palm", "--figure", tmp_path / "a" / "n.png")
    assert (done.returncode, done.stdout) == (0, f"{plain.stdout}figure: {tmp_path / 'a' / 'n.png'}\n"), done.stderr
    height, width = cv2.imread(str(tmp_path / "a" / "n.png")).shape[:2]
    assert width > 2 * height


def test_wrong_use_of_the_tool(tool_here, tmp_path):
    assert_refused(tool_here("train", "--figure", tmp_path / "n.png"), "--figure goes with --summary")
    wrong = tool_here("train", "--summary", "--figure", tmp_path / "n.pdf")
    assert wrong.returncode == 2
    assert "n.pdf: not the name of a .png file to write" in wrong.stderr
    assert list(tmp_path.iterdir()) == []
