"""The figure of a network's features, layer by layer: its first filters, and the feature maps of one or two images.

model, _ = load_model("output/lenet")                         # of palm_cls.deploy.predict
feature_figure(model, ["N0012.jpg", "P0095.jpg"], "lenet")
"""

from pathlib import Path

import numpy as np

from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError
from palm_cls.core.figures import cut_text, import_pyplot
from palm_cls.data.images import read_image, resize, transform_img
from palm_cls.eval.features import MAX_MAPS, first_filters, layer_features
from palm_cls.models.layers import short_name

TILE = 0.84  # inches: width and height of a map
GAP = 0.05  # of a tile, between two
LABEL, TITLE, NOTE, MARGIN = 0.26, 0.27, 0.36, 0.28  # inches: beside, above and below the maps, between two panels
HEAD = 0.68  # inches, above everything
PANEL = LABEL + MAX_MAPS * TILE  # width in inches
COLORMAP = "viridis"
BRIGHTEST = 99.8  # percentile of a layer's values from which on they are brightest
NAME_LENGTH = 18  # letters of a file's name above a photograph
SHORT_LENGTH = 9  # and beside its maps
GREY = "0.35"


def feature_figure(model, images, title=""):
    """Draw the filters of a network's first convolution and, for each layer, feature maps of one or two images.

    A row of maps belongs to an image, a column to a channel, one colour scale to a layer. Below the maps is the range
    of the scale and, for two images, the correlation of all maps of the layer, see
    `palm_cls.eval.features.correlation`.

    Args:
        model: A network for photographs, as `palm_cls.load_model` returns it; no export.
        images: Paths of one or two images.
        title: Text above the figure.

    Returns:
        A figure of pyplot.

    Raises:
        InputError: There are other numbers of images, one cannot be read, or the network has no convolution.
    """
    if not isinstance(model, paddle.nn.Layer):
        raise InputError("an exported network shows no layers; take the weights it was made from")
    if len(images) not in (1, 2):
        raise InputError(f"{len(images)} images: feature maps are drawn of one image or two")
    name, filters = first_filters(model)
    photos = [resize(read_image(path)) for path in images]
    layers = layer_features(model, np.stack([transform_img(photo, model.input_shape[-1]) for photo in photos]))
    names = [Path(path).name for path in images]
    grid = _Grid(1 + len(layers), len(photos))
    grid.figure.text(grid.corner(0)[0] / grid.width, 1 - 0.12 / grid.height, title, fontsize=16, va="top")
    _draw_inputs(grid, photos, names, (name, filters))
    for number, layer in enumerate(layers, 1):
        _draw_maps(grid.panel(number), layer, names)
    return grid.figure


class _Grid:
    """A figure of panels in two columns, each with a row of tiles for each image.

    Attributes:
        figure: Of pyplot.
        height: Its height in inches.
    """

    def __init__(self, num_panels, num_rows):
        self.rows = num_rows
        self.width, self.step = 2 * PANEL + 3 * MARGIN, TITLE + num_rows * TILE + NOTE
        self.height = HEAD + (num_panels + 1) // 2 * self.step
        self.figure = import_pyplot().figure(figsize=(self.width, self.height))

    def axis(self, left, top, width, height):
        """Add axes in inches from the left and the top of the figure, in units of tiles from their upper left."""
        bottom = self.height - top - height
        sizes = left / self.width, bottom / self.height, width / self.width, height / self.height
        axis = self.figure.add_axes(sizes)
        axis.set(xlim=(0, width / TILE), ylim=(height / TILE, 0))
        axis.axis("off")
        return axis

    def corner(self, number):
        """Return where the tiles of a panel begin, in inches."""
        return MARGIN + LABEL + number % 2 * (PANEL + MARGIN), HEAD + number // 2 * self.step + TITLE

    def panel(self, number):
        return self.axis(*self.corner(number), MAX_MAPS * TILE, self.rows * TILE)


def _draw_inputs(grid, photos, names, first):
    """Draw the photographs and the filters of the first convolution into panel 0."""
    left, top = grid.corner(0)
    size = min(2, grid.rows) * TILE
    for number, (photo, name) in enumerate(zip(photos, names)):
        axis = grid.axis(left + number * size, top, size, size)
        _draw_tile(axis, photo[:, :, ::-1], 0, 0, size / TILE)  # BGR -> RGB
        _write(axis, cut_text(name, NAME_LENGTH if grid.rows > 1 else NAME_LENGTH // 2))
    name, filters = first
    left += len(photos) * size + 0.12
    width = grid.corner(0)[0] + MAX_MAPS * TILE - left
    axis = grid.axis(left, top, width, size)
    columns, cell = _fit(len(filters), width / TILE, size / TILE)
    for number, weights in enumerate(filters):
        x, y = number % columns * cell, number // columns * cell
        _draw_tile(axis, weights, x, y, cell, interpolation="nearest")
    count, height, width, _ = filters.shape
    _write(axis, f"{count} filters of {short_name(name)}, {height} x {width} pixels")


def _fit(count, width, height):
    """Return (columns, cell): the largest squares of which `count` fit into width x height."""
    cells = [min(width / columns, height / -(-count // columns)) for columns in range(1, count + 1)]
    best = int(np.argmax(cells))
    return best + 1, min(cells[best], 1)


def _draw_maps(axis, layer, names):
    low, high = layer.maps.min(), np.percentile(layer.maps, BRIGHTEST)
    scale = {"cmap": COLORMAP, "vmin": low, "vmax": high, "interpolation": "nearest"}
    for row, (name, maps) in enumerate(zip(names, layer.maps)):
        label = cut_text(Path(name).stem, SHORT_LENGTH)
        axis.text(-0.06, row + 0.48, label, rotation=90, ha="right", va="center", fontsize=8, color=GREY)
        for column, values in enumerate(maps):
            _draw_tile(axis, values, column, row, 1, **scale)
    shown, number = len(layer.channels), layer.shape[0]
    shape = " x ".join(map(str, layer.shape))
    _write(axis, f"{short_name(layer.name)}:  {shape}" + (f"  ({shown} of {number} maps)" if shown < number else ""))
    top, right = len(names) + 0.04, shown - GAP
    axis.text(right, top, f"colours: {low:.3g} to {high:.3g}", ha="right", va="top", fontsize=9, color=GREY)
    if layer.correlation is not None:
        value = "undefined, one is constant" if np.isnan(layer.correlation) else f"{layer.correlation:.3f}"
        axis.text(0, top, f"correlation of the two images: {value}", va="top", fontsize=11, weight="bold")


def _draw_tile(axis, pixels, x, y, size, **options):
    inner = size * (1 - GAP)
    axis.imshow(pixels, extent=(x, x + inner, y + inner, y), aspect="auto", **options)
    axis.autoscale(False)


def _write(axis, text):
    axis.text(0, -0.06, text, va="bottom", fontsize=11)
