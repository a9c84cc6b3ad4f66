"""Grad-CAM: which parts of an image support a network's answer.

After Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017.
"""

import contextlib

import cv2
import numpy as np

from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError
from palm_cls.eval.evaluate import predicted_classes
from palm_cls.models.layers import eval_mode

import paddle.nn as nn

COLOURS = cv2.COLORMAP_TURBO  # from dark blue at 0 by green to dark red at 1
OPACITY = 0.6  # of the colour where the map is 1


def grad_cam(model, img, layer=None, label=None):
    """Compute the heat map of the parts of an image that support a label.

    The channels, weighted by `channel_weights` and summed, are cut off below 0 and divided by their maximum; the map is
    0 everywhere if nothing supports the label. It explains the logit of the label; of a network with a single logit
    (that of class 1), this logit for label 1 and its negative for label 0. The network keeps its mode, weights and
    gradients.

    Args:
        model: A network with a convolution.
        img: float32 [C, H, W], as the network takes it.
        layer: A layer of the network or its name ("conv3"); by default the network's `cam_layer`, else its last
            convolution.
        label: The class to explain; by default the predicted one.

    Returns:
        float32 [H', W'] in 0..1, at the resolution of the layer (Selvaraju et al., ICCV 2017).

    Raises:
        InputError: The network has no convolution, or no such layer, or the layer has no feature maps.
    """
    features, weights = channel_weights(model, img, layer, label)
    heat = np.maximum(np.tensordot(weights, features, 1), 0)
    highest = heat.max()
    return (heat / highest if highest > 0 else heat).astype("float32")


def channel_weights(model, img, layer=None, label=None):
    """Compute the feature maps of a layer and the weight of each.

    The maps are taken as the next layer receives them, after the activation function, as in the authors' code (relu5_3
    of VGG-16). A weight is the mean of the gradient of the explained number over a map. Arguments and errors are those
    of `grad_cam`.

    Returns:
        (maps [K, H', W'], weights [K]).
    """
    layer = _find_layer(model, layer)
    with _frozen_eval(model), paddle.enable_grad():
        logits, features, shape = _forward(model, paddle.to_tensor(img).unsqueeze(0), layer)
        (gradient,) = paddle.grad([_target(logits, label)], [features], allow_unused=True)
    if gradient is None:
        raise InputError("Grad-CAM: the network's answer does not depend on this layer; name another")
    gradient = gradient.reshape(shape)[0].numpy()
    return features.detach().reshape(shape)[0].numpy(), gradient.mean(axis=(1, 2))


def _find_layer(model, layer):
    layers = dict(model.named_sublayers())
    layer = getattr(model, "cam_layer", None) if layer is None else layer
    if layer is None:
        convolutions = [layer for layer in layers.values() if isinstance(layer, nn.Conv2D)]
        if not convolutions:
            raise InputError("Grad-CAM needs a convolution, and this network has none")
        return convolutions[-1]
    if isinstance(layer, str):
        if layer not in layers:
            raise InputError(f"Grad-CAM: the network has no layer {layer!r}; it has {', '.join(layers)}")
        return layers[layer]
    return layer


@contextlib.contextmanager
def _frozen_eval(model):
    """Set the network to evaluation mode without gradients of its parameters; restore both afterwards."""
    flags = [(parameter, parameter.stop_gradient) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.stop_gradient = True  # the weights' gradients, 200 MB of them in AlexNet, are not even computed
    try:
        with eval_mode(model):
            yield
    finally:
        for parameter, flag in flags:
            parameter.stop_gradient = flag


def _forward(model, imgs, layer):
    """Run the network and capture a layer.

    Returns:
        (logits, features, shape): the features as the next layer receives them, perhaps flattened, and the shape of the
        layer's output.
    """
    output = next_input = None

    def capture_output(_, __, result):  # nothing before this layer needs a gradient
        nonlocal output, next_input
        output, next_input = result.detach(), None
        output.stop_gradient = False
        return output

    def capture_input(_, inputs):
        nonlocal next_input
        if output is not None and next_input is None:
            next_input = inputs[0]

    others = [other for other in model.sublayers() if other is not layer]
    hooks = [layer.register_forward_post_hook(capture_output)]
    hooks += [other.register_forward_pre_hook(capture_input) for other in others]
    try:
        logits = model(imgs)
    finally:
        for hook in hooks:
            hook.remove()
    if output is None or len(output.shape) != 4:
        raise InputError("Grad-CAM: this layer gives no feature maps; name a convolution or a pooling")
    same_size = next_input is not None and next_input.size == output.size
    return logits, next_input if same_size else output, output.shape


def _target(logits, label):
    """Return the label's logit; of a single logit, its negative for label 0."""
    single = logits.shape[1] == 1
    if label is None:
        label = predicted_classes(logits).item()
    if not 0 <= label < max(2, logits.shape[1]):
        raise ValueError(f"label {label} is none of the network's")
    if single:
        return logits[0, 0] if label else -logits[0, 0]
    return logits[0, label]


def overlay(photo, heat):
    """Lay a heat map over the photograph that it was made from.

    The map of a network whose convolutions have no padding omits a margin, and so is off by a little towards the
    borders: that of LeNet by up to 12 of 224 pixels.

    Args:
        photo: uint8 BGR [h, w, 3], at any resolution.
        heat: float32 [H', W'] in 0..1, stretched over the whole photograph (bilinear).

    Returns:
        uint8 BGR [h, w, 3]: the photograph where the map is 0.
    """
    heat = cv2.resize(heat, photo.shape[1::-1])
    colours = cv2.applyColorMap(np.rint(heat * 255).astype("uint8"), COLOURS)
    share = (OPACITY * heat)[:, :, None]
    return np.rint(photo + share * (colours.astype("float32") - photo)).astype("uint8")
