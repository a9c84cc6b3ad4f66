"""Shared by the networks: a convolution that is fast on the CPU, evaluation mode, the classifier layers."""

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
    """Put a network into evaluation mode for a while; afterwards each layer has its own mode again."""
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
