"""Shared by the networks: a convolution that is fast on the CPU, evaluation mode, classifier layers, blocks."""

import contextlib

from palm_cls.core.device import paddle

nn, F = paddle.nn, paddle.nn.functional


class Conv2D(nn.Conv2D):
    """nn.Conv2D with the same results bit for bit, and faster on the CPU.

    paddle adds a bias of shape [1, C, 1, 1] slowly, and one of [C, 1, 1] fast.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: as of nn.Conv2D.
        attributes: its weight_attr and bias_attr; a bias is required.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, **attributes):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, **attributes)

    def forward(self, x):
        features = F.conv2d(x, self.weight, stride=self._stride, padding=self._padding, groups=self._groups)
        return features + self.bias.reshape([-1, 1, 1])


@contextlib.contextmanager
def eval_mode(model):
    """Put a network into evaluation mode; afterwards restore the mode of each layer."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def classifier_layers(model):
    """Return the names of the layers that give logits: the attribute `classifier_layers`, else the last nn.Linear."""
    linears = [name for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)]
    return tuple(getattr(model, "classifier_layers", linears[-1:]))


def find_blocks(model):
    """Return the names of a network's blocks, as those of a residual network.

    A block is a layer of a class of its own, no nn.Sequential, with some of the network's convolutions, at least two,
    and without smaller blocks.
    """
    convolutions = {name for name, layer in model.named_sublayers() if isinstance(layer, nn.Conv2D)}
    blocks = []
    for name, layer in model.named_sublayers():
        inside = sum(other.startswith(f"{name}.") for other in convolutions)
        if 1 < inside < len(convolutions) and not isinstance(layer, nn.Sequential):
            blocks.append(name)
    return [name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)]


def short_name(name):
    """Shorten a layer's name for a figure: "_conv._conv" of Paddle's library to "conv"."""
    return ".".join(dict.fromkeys(part.strip("_") for part in name.split(".")))
