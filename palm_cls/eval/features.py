"""Feature maps: what each convolution of a network passes on of some images, and how alike these maps are.

model, _ = load_model("output/lenet")                          # of palm_cls.deploy.predict
for layer in layer_features(model, np.stack([img, other])):    # as transform_img returns them
    print(layer.name, layer.shape, layer.correlation)
"""

from dataclasses import dataclass
from typing import Optional

import numpy as np

from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError
from palm_cls.models.alexnet_variants import LocalResponseNorm
from palm_cls.models.layers import eval_mode, find_blocks

import paddle.nn as nn

MAX_LAYERS = 7  # with the filters, four rows of two panels
MAX_MAPS = 8  # of a layer
# Layers that the features pass before a layer receives them; an activation function that is no layer is passed, too.
ELEMENTWISE = (nn.ReLU, nn.Sigmoid, nn.BatchNorm2D, LocalResponseNorm)


@dataclass(frozen=True)
class LayerFeatures:
    """Feature maps of a layer for N images.

    Attributes:
        name: Of the layer in the network, as "conv1".
        shape: (channels, height, width) of all its maps.
        channels: Numbers of the channels in `maps`, a tuple of int.
        maps: float32 [N, len(channels), height, width].
        correlation: How alike two images' maps are, see `correlation`; None for another N.
    """

    name: str
    shape: tuple
    channels: tuple
    maps: np.ndarray
    correlation: Optional[float]


def layer_features(model, imgs, max_layers=MAX_LAYERS, max_maps=MAX_MAPS):
    """Compute feature maps of the layers that `feature_layers` names, in a forward pass in evaluation mode.

    The maps are as the next layer receives them, after normalisation and activation function. The channels are those
    with the largest standard deviation over the pixels of all images.

    Args:
        model: A network with a convolution; it stays as it was.
        imgs: float32 [N, C, H, W], as the network takes them.
        max_layers, max_maps: Of a network with more layers some are taken, of a layer with more channels some.

    Returns:
        A list of LayerFeatures in forward order.

    Raises:
        InputError: The network has no convolution.
    """
    features = _forward(model, imgs, feature_layers(model, max_layers))
    return [_select(name, maps, max_maps) for name, maps in features.items()]


def feature_layers(model, max_layers=MAX_LAYERS):
    """Name the layers to show: all convolutions or, of a network of blocks, the first convolution and the blocks.

    Args:
        model: The network.
        max_layers: From more, so many are taken in equal steps, with the first and the last.

    Returns:
        A list of names.

    Raises:
        InputError: The network has no convolution.
    """
    convolutions, blocks = _convolutions(model), find_blocks(model)
    names = [convolutions[0], *blocks] if blocks else convolutions
    steps = np.linspace(0, len(names) - 1, min(max_layers, len(names)))
    return [names[int(step)] for step in np.rint(steps)]


def _convolutions(model):
    names = [name for name, layer in model.named_sublayers() if isinstance(layer, nn.Conv2D)]
    if not names:
        raise InputError("feature maps need a convolution, and this network has none")
    return names


def first_filters(model):
    """Return the filters of the first convolution as small colour images.

    Each is divided by its largest weight in absolute value; 0 is a medium grey.

    Args:
        model: A network for photographs, float32 BGR.

    Returns:
        (name, filters): the layer's name; float32 RGB [K, height, width, 3] in 0..1.

    Raises:
        InputError: The network has no convolution, or its input is not BGR.
    """
    name = _convolutions(model)[0]
    weights = dict(model.named_sublayers())[name].weight.numpy()
    if weights.shape[1] != 3:
        raise InputError(f"{name} takes {weights.shape[1]} channels; filters are shown of networks for photographs")
    highest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    filters = 0.5 + weights / np.where(highest > 0, 2 * highest, 1)
    return name, filters.transpose(0, 2, 3, 1)[..., ::-1]  # BGR -> RGB


def correlation(maps, other):
    """Compute Pearson's correlation of all values of two images' maps.

    1: the layer passes on the same of both images, up to scale and offset.

    Args:
        maps, other: float32 of the same shape.

    Returns:
        A float in -1..1; NaN if the values of an image are all the same.
    """
    first, second = (values.astype("float64").ravel() - values.mean(dtype="float64") for values in (maps, other))
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 0 else float("nan")


def _select(name, maps, max_maps):
    spread = maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1).std(axis=1, dtype="float64")
    channels = np.sort(np.argsort(-spread, kind="stable")[:max_maps])
    alike = correlation(*maps) if len(maps) == 2 else None
    return LayerFeatures(name, maps.shape[1:], tuple(channels.tolist()), maps[:, channels], alike)


def _forward(model, imgs, names):
    """Run the network and record the features of some layers as the next layer receives them.

    Returns:
        {name: float32 [N, K, H, W]} in forward order.
    """
    recorder, hooks = _Recorder(), []
    for name, layer in model.named_sublayers():
        hooks.append(layer.register_forward_pre_hook(recorder.before))
        record = recorder.begin(name) if name in names else recorder.after
        hooks.append(layer.register_forward_post_hook(record))
    try:
        with eval_mode(model), paddle.no_grad():
            model(paddle.to_tensor(imgs))
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.features


class _Recorder:
    """Records the output of a layer, and what becomes of it until a layer receives it that is not ELEMENTWISE.

    Attributes:
        features: {name of the layer: float32 [N, K, H, W]}.
    """

    def __init__(self):
        self.features = {}
        self._name = None  # of the layer whose features no layer has received yet

    def begin(self, name):
        def record(layer, inputs, output):
            self.features[name], self._name = output.numpy(), name

        return record

    def before(self, layer, inputs):
        self._update(inputs[0])
        if not isinstance(layer, ELEMENTWISE):
            self._name = None

    def after(self, layer, inputs, output):
        if isinstance(layer, ELEMENTWISE):
            self._update(output)

    def _update(self, tensor):
        """Take over features that may have been flattened."""
        if self._name is not None and tensor.size == self.features[self._name].size:
            self.features[self._name] = tensor.numpy().reshape(self.features[self._name].shape)
