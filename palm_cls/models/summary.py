"""The lesson's table of a network's layers."""

from collections import namedtuple

from palm_cls.core.console import format_table
from palm_cls.core.device import paddle
from palm_cls.models.layers import evaluating

# name: str; output_shape: list of int with the batch first; weight_shape, bias_shape: list of int, or None
LayerRow = namedtuple("LayerRow", ("name", "output_shape", "weight_shape", "bias_shape"))


def layer_table(model, batch_size=10):
    """The lesson's table of layers: a list of LayerRow in forward order.

    It comes from one forward pass of a batch of zeros in evaluation mode; the network stays as it was. A layer that
    consists of others is left out for them; one that is used several times has as many rows.
    """
    rows = []

    def note(name, layer, output):
        parameters = [getattr(layer, kind, None) for kind in ("weight", "bias")]
        shapes = [None if parameter is None else list(parameter.shape) for parameter in parameters]
        rows.append(LayerRow(name, list(output.shape), *shapes))

    hooks = [
        layer.register_forward_post_hook(lambda layer, inputs, output, name=name: note(name, layer, output))
        for name, layer in model.named_sublayers()
        if not layer.sublayers()
    ]
    try:
        with evaluating(model), paddle.no_grad():
            model(paddle.zeros([batch_size, *model.input_shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def parameter_count(model):
    """Number of trainable parameters."""
    return sum(int(parameter.size) for parameter in model.parameters() if not parameter.stop_gradient)


def format_summary(model):
    """The table of a network's layers and the number of its parameters, as text (str) for people.

    model: one of ours, or any paddle.nn.Layer that tells the shape of an image as `input_shape`, (channels, height,
    width). Shapes of outputs are those of a batch of ten; see `layer_table`.
    """
    heads = ("layer", "output shape", "weight shape", "bias shape")
    rows = [heads, *([row.name, *("" if s is None else str(s) for s in row[1:])] for row in layer_table(model))]
    return "\n".join([*format_table(rows), f"parameters: {parameter_count(model):,}"])
