"""From images to logits, the fastest way: `logits_function`.

On a CPU, Paddle Inference with oneDNN computes a network several times as fast as paddle's own layers do. The network
must be converted for it, which takes as long as predicting some dozens of images.
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

WORTHWHILE = 100  # images from which converting takes less time than it saves; a fixed number, so that runs repeat
TOLERANCE = 5e-5  # between the logits of both ways, relative to the largest where that is above 1


@contextlib.contextmanager
def logits_function(model, images):
    """A context: the network in evaluation mode, and a function imgs -> logits for `images` images in all.

    imgs: float32 [N, C, H, W]; logits: float32 [N, num_classes]; both NumPy arrays. The weights are those that the
    network has at the first batch. Its mode is put back at the end. An exported network is such a function already.
    """
    if not isinstance(model, paddle.nn.Layer):
        yield model
        return
    engine = None

    def logits_of(imgs):
        nonlocal engine
        if engine is None:
            worthwhile = images >= WORTHWHILE and _has_engine()
            engine = (worthwhile and convert(model, imgs)) or functools.partial(predict, model)
        return engine(imgs)

    with eval_mode(model):
        yield logits_of


def predict(model, imgs):
    """The logits as paddle's own layers compute them."""
    with paddle.no_grad():
        return model(paddle.to_tensor(imgs)).numpy()


def _has_engine():
    return paddle.get_device() == "cpu" and _takes_onednn()


def _takes_onednn():
    return platform.machine() in ("x86_64", "AMD64") and not environment.use_paddle_defaults()


def convert(model, imgs):
    """A function imgs -> logits by Paddle Inference, for images like `imgs`; None, and why is told, where it fails.

    The first two images decide whether its logits are those of `predict`.
    """
    try:
        engine = _engine(model, imgs.shape[1:])
        found, expected = engine(imgs[:2]), predict(model, imgs[:2])
    except Exception as error:  # whatever a network of one's own makes of the conversion; a full disk
        log_once(f"This network is evaluated by its own layers: it could not be converted ({shorten(error)}).")
        return None
    if not deviation(found, expected) <= TOLERANCE:
        log_once("This network is evaluated by its own layers: converted, it gives other logits.")
        return None
    return engine


def deviation(found, expected):
    """The largest difference of logits, relative to the largest where that is above 1; NaN for what is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))


def _engine(model, shape):
    with tempfile.TemporaryDirectory() as directory:
        return run_program(save_program(model, Path(directory, "network"), shape))


def save_program(model, path, shape):
    """Write a network in evaluation mode for Paddle Inference, and return the file with the program.

    path: without suffix; the program gets .json, or .pdmodel before paddle 3, the weights .pdiparams. shape: of an
    image, without the batch, which may have any size.
    """
    spec = paddle.static.InputSpec([None, *shape], "float32", "images")
    paddle.jit.save(model, str(path), input_spec=[spec])
    return find_program(path)


def find_program(path):
    """The program that `save_program` wrote for `path`, or None where it did not."""
    files = map(path.with_suffix, (".json", ".pdmodel"))
    return next((file for file in files if file.is_file()), None)


def run_program(program):
    """A function imgs -> logits, as that of `logits_function`, by Paddle Inference on the CPU.

    program: the file of `save_program`, its weights beside it.
    """
    config = paddle.inference.Config(*map(os.fsencode, (program, program.with_suffix(".pdiparams"))))
    config.disable_gpu()
    config.disable_glog_info()
    if _takes_onednn():
        config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(num_threads())
    predictor = paddle.inference.create_predictor(config)
    (input_name,), (output_name,) = predictor.get_input_names(), predictor.get_output_names()

    def logits_of(imgs):
        predictor.get_input_handle(input_name).copy_from_cpu(np.ascontiguousarray(imgs))
        try:
            predictor.run()
        finally:  # it leaves paddle's own layers with one thread: slower, and rounding in another order
            paddle.base.core.set_num_threads(num_threads())
        return predictor.get_output_handle(output_name).copy_to_cpu()

    return logits_of
