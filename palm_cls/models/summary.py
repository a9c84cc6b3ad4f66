"""The lesson's table of a network's layers."""

from dataclasses import dataclass

from palm_cls.core.console import format_table
from palm_cls.core.device import paddle
from palm_cls.models.layers import eval_mode


@dataclass(frozen=True)
class LayerRow:
    """A layer in the table; shapes are lists of int."""

    name: str
    output_shape: list  # batch first
    weight_shape: list  # or None
    bias_shape: list  # or None


def layer_table(model, batch_size=10, blocks=()):
    """Make the lesson's table of layers, by a forward pass of zeros in evaluation mode.

    Args:
        model: a network with `input_shape`, (channels, height, width); it stays as it was.
        batch_size: images in the batch.
        blocks: names of layers that are one row each, instead of the layers that they contain.

    Returns:
        A list of LayerRow in forward order, without layers that contain others; a layer that is used several times
        has several rows.
    """
    rows, inside = [], tuple(f"{name}." for name in blocks)

    def add_row(name, layer, output):
        parameters = [getattr(layer, kind, None) for kind in ("weight", "bias")]
        shapes = [None if parameter is None else list(parameter.shape) for parameter in parameters]
        rows.append(LayerRow(name, list(output.shape), *shapes))

    hooks = [
        layer.register_forward_post_hook(lambda layer, inputs, output, name=name: add_row(name, layer, output))
        for name, layer in model.named_sublayers()
        if name in blocks or not (layer.sublayers() or name.startswith(inside))
    ]
    try:
        with eval_mode(model), paddle.no_grad():
            model(paddle.zeros([batch_size, *model.input_shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def parameter_count(model):
    """Return the number of trainable parameters."""
    return sum(int(parameter.size) for parameter in model.parameters() if not parameter.stop_gradient)


def format_summary(model):
    """Format the table of a network's layers and the number of its parameters.

    Args:
        model: one of ours, or any paddle.nn.Layer with `input_shape`, (channels, height, width).

    Returns:
        Text (str); shapes of outputs are those of a batch of ten (see `layer_table`).
    """
    rows = [("layer", "output shape", "weight shape", "bias shape")]
    for row in layer_table(model):
        shapes = (row.output_shape, row.weight_shape, row.bias_shape)
        rows.append((row.name, *("" if shape is None else str(shape) for shape in shapes)))
    return "\n".join([*format_table(rows), f"parameters: {parameter_count(model):,}"])
