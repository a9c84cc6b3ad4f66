"""From images to logits, the fastest way: `predictor`.

On a CPU, Paddle Inference with oneDNN computes a network several times as fast as paddle's own layers do. The network
must be converted first, which takes as long as predicting some dozens of images.
"""

import contextlib
import functools
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from palm_cls.core import environment
from palm_cls.core.console import log_once
from palm_cls.core.device import num_threads, paddle
from palm_cls.core.errors import shorten
from palm_cls.models.layers import eval_mode

MIN_IMAGES = 100  # from which converting takes less time than it saves; a constant, so that runs are repeatable
TOLERANCE = 5e-5  # between the logits of both ways, relative to the largest where that is above 1


@contextlib.contextmanager
def predictor(model, num_samples):
    """Set the network to evaluation mode and yield a function from images to logits.

    The weights are those of the network at the first batch. Its mode is restored at the end.

    Args:
        model: A network, or an exported network, which is a function of images already.
        num_samples: Images that will be predicted in all; it decides whether the network is converted.

    Yields:
        A function of float32 [N, C, H, W] that returns float32 [N, num_classes], both NumPy arrays. For several views
        of each image, [N, views, C, H, W], it returns the logits of their mean probabilities.
    """
    if not isinstance(model, paddle.nn.Layer):
        yield _averaging_views(model)
        return
    engine = None

    def predict_logits(imgs):
        nonlocal engine
        if engine is None:
            worthwhile = num_samples >= MIN_IMAGES and _has_engine()
            engine = (worthwhile and to_inference_engine(model, imgs)) or functools.partial(predict, model)
        return engine(imgs)

    with eval_mode(model):
        yield _averaging_views(predict_logits)


def _averaging_views(predict_logits):
    """Extend a function from images to logits to several views of each image."""

    def predict_views(imgs):
        if imgs.ndim != 5:
            return predict_logits(imgs)
        from scipy.special import log_expit, log_softmax, logsumexp

        logits = predict_logits(imgs.reshape(-1, *imgs.shape[2:])).reshape(*imgs.shape[:2], -1).astype("float64")
        if logits.shape[2] > 1:
            return logsumexp(log_softmax(logits, axis=2), axis=1).astype("float32")
        return (logsumexp(log_expit(logits), axis=1) - logsumexp(log_expit(-logits), axis=1)).astype("float32")

    return predict_views


def predict(model, imgs):
    """Compute logits with paddle's own layers.

    Args:
        model: A network, in the mode to predict in.
        imgs: float32 [N, C, H, W].

    Returns:
        float32 [N, num_classes].
    """
    with paddle.no_grad():
        return model(paddle.to_tensor(imgs)).numpy()


def _has_engine():
    return paddle.get_device() == "cpu" and _has_onednn()


def _has_onednn():
    return platform.machine() in ("x86_64", "AMD64") and not environment.use_paddle_defaults()


def to_inference_engine(model, imgs):
    """Convert a network for Paddle Inference and check it on the first two images.

    Args:
        model: A network in evaluation mode.
        imgs: float32 [N, C, H, W], images as it will predict.

    Returns:
        A function from images to logits; None, with a notice, if the conversion fails or changes the logits.
    """
    try:
        engine = _convert(model, imgs.shape[1:])
        result, expected = engine(imgs[:2]), predict(model, imgs[:2])
    except Exception as error:  # anything, from a user's network that does not convert to a full disk
        log_once(f"Predicting with this network's own layers: it could not be converted ({shorten(error)}).")
        return None
    if not max_relative_error(result, expected) <= TOLERANCE:
        log_once("Predicting with this network's own layers: converted, it gives other logits.")
        return None
    return engine


def max_relative_error(result, expected):
    """Compute the largest difference of logits, NaN if not finite; relative to logits above 1."""
    with np.errstate(invalid="ignore"):
        return float(np.abs(result - expected).max() / max(1, np.abs(expected).max()))


def _convert(model, shape):
    with tempfile.TemporaryDirectory() as directory:
        return load_predictor(save_program(model, Path(directory, "network"), shape))


def save_program(model, path, shape):
    """Write a network as a program for Paddle Inference.

    Args:
        model: A network in evaluation mode.
        path: Without suffix; the program gets .json, or .pdmodel before paddle 3, the weights .pdiparams.
        shape: Of an image; the batch may have any size.

    Returns:
        The Path of the program.
    """
    spec = paddle.static.InputSpec([None, *shape], "float32", "images")
    paddle.jit.save(model, str(path), input_spec=[spec])
    return find_program(path)


def find_program(path):
    """Return the program that `save_program` wrote to `path`, or None."""
    files = map(path.with_suffix, (".json", ".pdmodel"))
    return next((file for file in files if file.is_file()), None)


def load_predictor(program):
    """Load a program into Paddle Inference, on the CPU.

    Args:
        program: The file of `save_program`, with its weights beside it.

    Returns:
        A function of float32 [N, C, H, W] that returns float32 [N, num_classes].
    """
    config = paddle.inference.Config(*map(os.fsencode, (program, program.with_suffix(".pdiparams"))))
    config.disable_gpu()
    config.disable_glog_info()
    if _has_onednn():
        config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(num_threads())
    inference = paddle.inference.create_predictor(config)
    (input_name,), (output_name,) = inference.get_input_names(), inference.get_output_names()

    def predict_logits(imgs):
        inference.get_input_handle(input_name).copy_from_cpu(np.ascontiguousarray(imgs))
        try:
            inference.run()
        finally:  # it leaves paddle's own layers with one thread: slower, and rounding in another order
            paddle.base.core.set_num_threads(num_threads())
        return inference.get_output_handle(output_name).copy_to_cpu()

    return predict_logits
