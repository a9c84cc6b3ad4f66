"""Predict images with trained weights: `find_images`, `load_model`, `predict_images`."""

import functools
import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from palm_cls.checkpoints.file_checks import is_export
from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.weights import load, resolve_weights
from palm_cls.core import environment
from palm_cls.core.errors import InputError, shorten
from palm_cls.data.augment import EIGHT_VIEWS, turns_and_mirrors
from palm_cls.data.classes import check_classes
from palm_cls.data.image_files import image_names, is_image
from palm_cls.data.images import IMAGE_SIZE, read_image, transform_img
from palm_cls.data.loader_factory import check_input_spec, input_spec
from palm_cls.data.options import stored_classes
from palm_cls.data.prefetch import prefetch
from palm_cls.deploy.exported_model import load_exported_model
from palm_cls.eval import metrics
from palm_cls.eval.engine import predictor
from palm_cls.eval.multiclass_metrics import class_probabilities
from palm_cls.recipes import RECIPES, build_network, find_recipe, trained_recipe

OVERLAY_SUFFIX = ".cam.jpg"  # of heat maps drawn over images, see `palm_cls.deploy.prediction_files`


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image, or the reason why there is none.

    Attributes:
        path: Path of the image.
        probability: Probability of class 1 of two classes, of the predicted class of more, 0..1; None after an error.
        label: Number of the predicted class; of two, 1 if the probability is above the threshold. None after an error.
        error: Why the image has no prediction, a str; None if it has one.
        probabilities: Those of all classes, a tuple; None after an error.
    """

    path: Path
    probability: Optional[float] = None
    label: Optional[int] = None
    error: Optional[str] = None
    probabilities: Optional[tuple] = None


def find_images(names):
    """List the images that names of files, folders and patterns stand for.

    Args:
        names: Each the name of a file, of any suffix, existing or not; of a folder, for the images in it, sorted by
            name; or a pattern (`photos/*.jpg`, with `**` for nested folders), for the images and folders that it
            matches, sorted. Folders and patterns skip the overlays of an earlier prediction.

    Returns:
        A list of Paths in the order given, each once.

    Raises:
        InputError: A pattern or a folder has no images.
    """
    found = {}
    for name in names:
        for path in _expand(name):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _expand(name):
    path = Path(name)
    if path.is_dir():
        return _images_in(path)
    if path.is_file() or not glob.has_magic(str(name)):
        return [path]
    matches = map(Path, sorted(glob.glob(str(name), recursive=True)))
    images = [image for match in matches for image in _images_at(match)]
    if not images:
        raise InputError(f"{name}: matches no image")
    return images


def _images_in(folder):
    images = [folder / name for name in image_names(folder) if not name.lower().endswith(OVERLAY_SUFFIX)]
    if not images:
        raise InputError(f"{folder}: no images in it but overlays of an earlier run")
    return images


def _images_at(match):
    entries = sorted(match.iterdir()) if match.is_dir() else [match]
    return [entry for entry in entries if is_image(entry) and not entry.name.lower().endswith(OVERLAY_SUFFIX)]


def load_model(weights, name=None):
    """Load a trained network for fundus images.

    Args:
        weights: A run directory (its best epoch), a `.pdparams` file, or an export of `palm_cls.export_network`.
        name: The recipe, if the weights do not name it.

    Returns:
        (model, metadata). Of an export, the model is a function imgs -> logits. The metadata are those of
        `palm_cls.checkpoints.metadata.read_metadata`.

    Raises:
        InputError: The recipe is unknown or another one, or its input is not that of `transform_img`, as with MNIST.
    """
    if is_export(weights):
        return load_exported_model(weights, name)
    name, model, metadata = load_recipe_model(weights, name)
    if find_recipe(name).dataset != "palm":  # weights without metadata, as those of PaddlePaddle 1.6
        raise InputError(
            f"{weights}: {name} takes grey images of 28 x 28 pixels, and this predicts fundus photographs; "
            "tools/evaluate.py predicts the test images that belong to it"
        )
    return model, metadata


def load_recipe_model(weights, name=None):
    """Load the trained network of any recipe, as `load_model` does, but no export.

    Args:
        weights: A run directory (its best epoch) or a `.pdparams` file.
        name: The recipe, if the weights do not name it.

    Returns:
        (name, model, metadata).

    Raises:
        InputError: The recipe is unknown or another one, or its images are prepared in another way here.
    """
    weights = resolve_weights(weights)
    metadata = read_metadata(weights)
    stored = metadata.get("model")
    if stored is not None and stored not in list(RECIPES):  # which need not be text
        raise InputError(f"{weights}: weights of {shorten(stored)!r}, which is none of {', '.join(RECIPES)}")
    if stored is None and name is None:
        raise InputError(f"{weights} does not name its network; give --model ({', '.join(RECIPES)})")
    if name not in (None, stored or name):
        raise InputError(f"{weights}: weights of {stored}, not of {name}")
    name = name or stored
    recipe = trained_recipe(name, metadata)
    expected = input_spec(recipe)
    check_input_spec(weights, metadata.get("input", expected), expected)
    model = build_network(recipe)
    load(weights, model)
    return name, model, {**metadata, "input": expected}


def find_classes(weights, metadata):
    """Return the names of the classes that weights or an export predict, in order.

    Args:
        weights: Their path, for messages.
        metadata: As `load_model` returns them; without names of classes, these are the lesson's.

    Raises:
        InputError: The names cannot be those of classes.
    """
    return check_classes(stored_classes(metadata), weights)


def input_size(model):
    """Return the size in pixels of the images that a network or an export takes: 224 unless it has an `input_shape`."""
    return getattr(model, "input_shape", (3, IMAGE_SIZE, IMAGE_SIZE))[-1]


def predict_images(model, paths, batch_size=10, threshold=0.5, views=1):
    """Predict images, decoding the next batches in the background.

    An image that cannot be read, or whose logits are not finite, gets a Prediction with an error. A network is in
    evaluation mode meanwhile.

    Args:
        model: As `load_model` returns it.
        paths: Paths of images, as `find_images` returns them.
        batch_size: Images at a time.
        threshold: Of two classes, the label is 1 above this probability of class 1, 0..1.
        views: 8 to average the probabilities of eight views, see `palm_cls.data.augment.eight_views`; else 1.

    Returns:
        A generator of one Prediction for each path, in their order.

    Raises:
        InputError: There is no such number of views, or the threshold is for two classes and there are more.
    """
    if views not in (1, EIGHT_VIEWS):
        raise InputError(f"{views} views of an image: expected 1 or {EIGHT_VIEWS}")
    with predictor(model, len(paths)) as logits_of:
        for batch in _decode_batches(
            paths, batch_size, functools.partial(_prepare, size=input_size(model), views=views)
        ):
            imgs = [img for _, img, error in batch if error is None]
            values = iter(probabilities(logits_of(np.stack(imgs))) if imgs else [])
            for path, _, error in batch:
                yield Prediction(path, error=error) if error else _prediction(path, next(values), threshold)


def _prediction(path, value, threshold):
    """Return the Prediction for one of the values that `probabilities` returns."""
    if not np.isfinite(value).all():
        return Prediction(path, error="the network gives no finite number for this image")
    if isinstance(value, float):
        label = int(metrics.is_positive(value, threshold))
        return Prediction(path, value, label, probabilities=(1 - value, value))
    metrics.check_threshold(len(value), threshold)
    return Prediction(path, max(value), int(np.argmax(value)), probabilities=tuple(value))


def probabilities(logits):
    """Compute the probabilities of class 1 of two classes, or of all of three or more.

    They equal those of the evaluation to the bit, so that a threshold chosen there separates the same images here.

    Args:
        logits: float32 [N, 1] (sigmoid), [N, 2] (softmax) or [N, num_classes] (softmax).

    Returns:
        A list of N floats, for three classes or more of N lists of floats; NaN if a logit is not finite.
    """
    if logits.shape[1] > 2:
        is_finite = np.isfinite(logits).all(axis=1, keepdims=True)
        return class_probabilities(np.where(is_finite, logits, np.nan)).tolist()
    differences = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    return metrics.positive_probabilities(np.where(np.isfinite(differences), differences, np.nan)).tolist()


def _prepare(photo, size, views):
    img = transform_img(photo, size)
    return turns_and_mirrors(img) if views == EIGHT_VIEWS else img


def _decode_batches(paths, batch_size, prepare):
    """Yield batches of (path, float32 [3, size, size] or [8, 3, size, size] or None, None or error)."""
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with environment.thread_pool() as pool:
        yield from prefetch(_submit_batch(batch, pool, prepare) for batch in batches)


def _submit_batch(paths, pool, prepare):
    futures = [pool.submit(_load_image, path, prepare) for path in paths]
    return lambda: [(path, *future.result()) for path, future in zip(paths, futures)]


def _load_image(path, prepare):
    try:
        return prepare(read_image(path)), None
    except (InputError, OSError) as error:
        return None, read_error(path, error)


def read_error(path, error):
    """Return the error of a Prediction for an exception that reading its image raised."""
    return str(error) if isinstance(error, InputError) else f"{path}: {error.strerror or error}"
