"""The figure of a network: its layers as boxes with the shapes of their outputs.

network_figure(build_model("lenet"), "LeNet")
"""

import math
from dataclasses import dataclass

from palm_cls.core.figures import escape_text, import_pyplot
from palm_cls.models.layers import find_blocks, short_name
from palm_cls.models.summary import layer_table, parameter_count

import paddle.nn as nn

POOLINGS = {nn.MaxPool2D: "max", nn.AvgPool2D: "average", nn.AdaptiveMaxPool2D: "max", nn.AdaptiveAvgPool2D: "average"}
COLOURS = {  # by Okabe and Ito, which colour-blind people can distinguish
    "input": "#BBBBBB",
    "convolution": "#56B4E9",
    "block of convolutions": "#0072B2",
    "pooling": "#E69F00",
    "fully connected": "#009E73",
}
MAX_COLUMNS = 13  # boxes in a row
SLOT, ROW = 1.28, 2.55  # inches: from one box to the next, and from one row to the next
TALLEST, DEEPEST, WIDEST = 1.35, 0.34, 0.46  # inches, of a box with 224 x 224 pixels or 2048 channels
SLANT = 0.62  # height of a box's depth in the picture, over its width
FOOT = 0.62  # inches below a box, for its shape
LARGEST, MOST_CHANNELS = 224, 2048


@dataclass(frozen=True)
class Box:
    """A layer in the figure.

    Attributes:
        kind: A key of COLOURS.
        lines: What is written above, a tuple of str.
        shape: Of the output for one image, a tuple of int: (channels, height, width) or (features,).
    """

    kind: str
    lines: tuple
    shape: tuple


def network_boxes(model):
    """List the boxes of a network in forward order, the input first.

    Blocks, as `palm_cls.models.layers.find_blocks` finds them, are a box each. Normalisations, activation functions,
    dropout and auxiliary heads have none.

    Args:
        model: a network with `input_shape`, (channels, height, width); it stays as it was.

    Returns:
        A list of Box.
    """
    blocks, layers = find_blocks(model), dict(model.named_sublayers())
    hidden = tuple(f"{name}." for name in getattr(model, "auxiliary_layers", ()))
    boxes = [Box("input", ("input",), tuple(model.input_shape))]
    for row in layer_table(model, 1, blocks):
        kind, *details = ("block of convolutions",) if row.name in blocks else _describe(layers[row.name])
        if kind and not f"{row.name}.".startswith(hidden):
            boxes.append(Box(kind, (short_name(row.name), *details), tuple(row.output_shape[1:])))
    return boxes


def _describe(layer):
    """Return what a layer is: (a key of COLOURS, details...); or (None,) if it has no box."""
    if isinstance(layer, nn.Conv2D):
        size, stride = layer.weight.shape[2:], _pair(layer._stride)
        return "convolution", _by(size), *([f"stride {stride[0]}"] if stride[0] > 1 else [])
    if isinstance(layer, nn.Linear):
        return ("fully connected",)
    name = next((name for pooling, name in POOLINGS.items() if isinstance(layer, pooling)), None)
    if not name:
        return (None,)
    if not hasattr(layer, "ksize"):  # adaptive
        return "pooling", name
    size, stride = _pair(layer.ksize), _pair(layer.stride or layer.ksize)
    return "pooling", f"{name} {_by(size)}", *([f"stride {stride[0]}"] if stride != size else [])


def _pair(value):
    return [value, value] if isinstance(value, int) else list(value)


def _by(size):
    return "x".join(map(str, size))


def network_figure(model, title=""):
    """Draw the layers of a network as boxes, from left to right, in several rows if there are many.

    Height and depth of a box grow with the squared logarithms of its output's height and width, its width with the
    logarithm of the number of channels. An output without height and width is a bar, the higher the more numbers it
    has. Above a box is its operation, below it the shape of its output for one image.

    Args:
        model: one of ours, or any paddle.nn.Layer with `input_shape`, (channels, height, width).
        title: Text above the figure, before the number of parameters.

    Returns:
        A figure of pyplot.
    """
    boxes = network_boxes(model)
    rows = math.ceil(len(boxes) / MAX_COLUMNS)
    columns = math.ceil(len(boxes) / rows)
    width, height = columns * SLOT + 0.3, rows * ROW + 0.75
    figure = import_pyplot().figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    for number, box in enumerate(boxes):
        x, y = 0.15 + number % columns * SLOT, height - 0.5 - (1 + number // columns) * ROW + FOOT
        right = _draw_box(axis, box, x + SLOT / 2, y)
        if number + 1 < len(boxes):
            _draw_arrow(axis, right, x + SLOT, y, is_last=(number + 1) % columns == 0)
    axis.text(0.3, height - 0.16, _heading(model, title), fontsize=15, va="top")
    _draw_legend(axis, boxes)
    return figure


def _heading(model, title):
    heads = " with the auxiliary heads, which are not drawn" if hasattr(model, "auxiliary_layers") else ""
    count = f"{parameter_count(model):,} parameters{heads}"
    return f"{escape_text(title)}: {count}" if title else count


def _relative(size, largest):
    """Return the logarithm of a size as a share, at most 1, of that of the largest; a size of 1 has a little, too."""
    return min(1, math.log2(1 + size) / math.log2(1 + largest))


def _box_sizes(box):
    """Return width, height and depth of a box in inches."""
    channels, *pixels = box.shape
    if not pixels or max(pixels) == 1:  # a vector: a bar
        return 0.12, TALLEST * _relative(channels, 2 * MOST_CHANNELS), 0.12
    height, depth = (_relative(size, LARGEST) for size in pixels)
    return WIDEST * _relative(channels, MOST_CHANNELS), TALLEST * height**2, DEEPEST * depth**2


def _draw_box(axis, box, middle, bottom):
    """Draw a box with its text; returns where its right edge is."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Polygon

    width, height, depth = _box_sizes(box)
    left, rise, colour = middle - (width + depth) / 2, depth * SLANT, COLOURS[box.kind]
    right, top = left + width, bottom + height
    corner = (right + depth, top + rise)
    front = [(left, bottom), (right, bottom), (right, top), (left, top)]
    above = [(left, top), (right, top), corner, (left + depth, top + rise)]
    side = [(right, bottom), (right + depth, bottom + rise), corner, (right, top)]
    for face, light in ((front, 1), (above, 1.25), (side, 0.75)):
        shade = [min(1, light * part) for part in to_rgb(colour)]
        axis.add_patch(Polygon(face, facecolor=shade, edgecolor="white", linewidth=0.8))
    centre = (left + right + depth) / 2
    axis.text(centre, top + rise + 0.07, "\n".join(box.lines), ha="center", va="bottom", fontsize=10, linespacing=1.15)
    shape = " x ".join(map(str, box.shape))
    axis.text(centre, bottom - 0.09, shape, ha="center", va="top", fontsize=9, color="0.25")
    return right + depth


def _draw_arrow(axis, left, right, bottom, is_last):
    """Draw an arrow to the next box; at the end of a row it is dashed."""
    style = {"arrowstyle": "-|>", "color": "0.45", "shrinkA": 0, "shrinkB": 0}
    if is_last:
        style["linestyle"] = "--"
    axis.annotate("", (right + 0.12, bottom + 0.12), (left + 0.06, bottom + 0.12), arrowprops=style)


def _draw_legend(axis, boxes):
    from matplotlib.patches import Patch

    kinds = [kind for kind in COLOURS if any(box.kind == kind for box in boxes)]
    patches = [Patch(color=COLOURS[kind], label=kind) for kind in kinds]
    axis.legend(handles=patches, loc="lower left", ncol=len(kinds), frameon=False, fontsize=10)
