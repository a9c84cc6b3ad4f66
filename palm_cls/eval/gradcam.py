"""Grad-CAM: where in an image a network finds what speaks for its answer.

After Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017.
"""

import contextlib

import cv2
import numpy as np

from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError
from palm_cls.models.layers import eval_mode

import paddle.nn as nn

COLOURS = cv2.COLORMAP_TURBO  # from dark blue at 0 by green to dark red at 1
STRENGTH = 0.6  # share of the colour where the map is 1


def grad_cam(model, img, layer=None, label=None):
    """The map of what speaks for a label, float32 [H', W'] in 0..1 at the resolution of the layer that it comes from.

    model: a network with a convolution. img: float32 [C, H, W], as the network takes it. layer: a layer of the network
    or its name ("conv3"), by default the one that the network tells as `cam_layer`, else its last convolution. label:
    the class to explain, by default the predicted one.

    The channels' `channel_weights` times the channels, summed, are cut off below 0 and divided by their maximum; the
    map is 0 everywhere where nothing speaks for the label. What it explains is the logit of the label; where a network
    has but one logit (that of class 1), this logit for label 1 and its negative for label 0. The network stays as it
    was, in mode, weights and gradients. Raises InputError for a network without a convolution, and a layer that is not
    there or gives no maps. After Selvaraju et al., ICCV 2017.
    """
    features, weights = channel_weights(model, img, layer, label)
    heat = np.maximum(np.tensordot(weights, features, 1), 0)
    highest = heat.max()
    return (heat / highest if highest > 0 else heat).astype("float32")


def channel_weights(model, img, layer=None, label=None):
    """The feature maps [K, H', W'] of a layer, and the weight of each, [K]: the mean of the target's gradient over it.

    The maps are taken as the next layer receives them, which is behind the activation function, as in the authors'
    code (relu5_3 of VGG-16). Arguments and errors are those of `grad_cam`.
    """
    layer = _find_layer(model, layer)
    with _undisturbed(model), paddle.enable_grad():
        logits, features, shape = _forward(model, paddle.to_tensor(img).unsqueeze(0), layer)
        (gradient,) = paddle.grad([_target(logits, label)], [features], allow_unused=True)
    if gradient is None:
        raise InputError("Grad-CAM: the network's answer does not depend on this layer")
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
def _undisturbed(model):
    """For a while the network is in evaluation mode, and no parameter asks for a gradient; then all is as before."""
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
    """(logits, features, shape): what `layer` hands on, which may have been flattened, and the shape of its output."""
    output = handed_on = None

    def begin_here(_, __, result):  # nothing before this layer needs a gradient
        nonlocal output, handed_on
        output, handed_on = result.detach(), None
        output.stop_gradient = False
        return output

    def receive(_, inputs):
        nonlocal handed_on
        if output is not None and handed_on is None:
            handed_on = inputs[0]

    others = [other for other in model.sublayers() if other is not layer]
    hooks = [layer.register_forward_post_hook(begin_here)]
    hooks += [other.register_forward_pre_hook(receive) for other in others]
    try:
        logits = model(imgs)
    finally:
        for hook in hooks:
            hook.remove()
    if output is None or len(output.shape) != 4:
        raise InputError("Grad-CAM: this layer gives no feature maps; name a convolution or a pooling")
    same = handed_on is not None and handed_on.size == output.size
    return logits, handed_on if same else output, output.shape


def _target(logits, label):
    """The number to explain: the logit of `label`, or of the predicted class; minus the only logit for label 0."""
    single = logits.shape[1] == 1
    if label is None:
        label = int(logits.item() > 0) if single else logits.argmax().item()
    if not 0 <= label < max(2, logits.shape[1]):
        raise ValueError(f"label {label} is none of the network's")
    if single:
        return logits[0, 0] if label else -logits[0, 0]
    return logits[0, label]


def overlay(photo, heat):
    """A map over the photograph that it was made from: uint8 BGR [h, w, 3], the photograph where the map is 0.

    photo: uint8 BGR [h, w, 3], at any resolution; heat: float32 [H', W'] in 0..1, stretched over all of it (bilinear).
    A map of convolutions without padding leaves out a margin, and so is off by a little towards the borders: that of
    LeNet by up to 12 of 224 pixels.
    """
    heat = cv2.resize(heat, photo.shape[1::-1])
    colours = cv2.applyColorMap(np.rint(heat * 255).astype("uint8"), COLOURS)
    share = (STRENGTH * heat)[:, :, None]
    return np.rint(photo + share * (colours.astype("float32") - photo)).astype("uint8")
