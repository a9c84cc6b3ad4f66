"""The full evaluation of trained weights: `assess`, as `tools/evaluate.py` does it, and the files that it writes.

The metrics are those of `palm_cls.eval.metrics`, each with the uncertainty that the number of images leaves.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.run_files import EVALUATION, read_settings
from palm_cls.checkpoints.weights import load, resolve_weights
from palm_cls.core.console import DEMO_WARNING, DISCLAIMER, log
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import write_json, write_table
from palm_cls.data.augment import TEN_CROP
from palm_cls.data.labels import CLASSES
from palm_cls.data.loader_factory import check_input_spec, input_spec, make_valid_loader
from palm_cls.data.options import DataOptions, stored_classes, stored_options
from palm_cls.data.palm import Dataset
from palm_cls.data.photos import find_photos, photo_loader
from palm_cls.eval import metrics
from palm_cls.eval.evaluate import Predictions, compute_metrics, predict_all
from palm_cls.eval.multiclass_metrics import class_probabilities, multiclass_metrics
from palm_cls.recipes import RECIPES, build_network, trained_recipe


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `assess`.

    Attributes:
        cache: Whether resized images are cached, as for `train_recipe`.
        threshold: Images are called positive above this probability; of two classes only.
        download: Whether missing MNIST files are downloaded.
        ten_crop: Whether the probabilities of ten crops of each image are averaged.
        views: 8 to average those of its four turns and their mirror images; else 1.
        split: "valid", or "test" for the test images.
        valid_csv: Table of the labels of the images; None to take them from the data set.
        ordered: Whether three or more classes have an order, such as grades, which adds a weighted kappa; None if the
            settings of the weights' run say so.
    """

    cache: bool = True
    threshold: float = 0.5
    download: bool = False
    ten_crop: bool = False
    views: int = 1
    split: str = "valid"
    valid_csv: Optional[str] = None
    ordered: Optional[bool] = None


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions and metrics of trained weights on the images of a loader.

    Attributes:
        model: Name of the recipe, or None.
        weights: Path of the weights.
        data: Directory of the images.
        demo: Whether the images are those of the demo set.
        num_listed: Number of images in the table of labels.
        predictions: Names, labels [N, 1] and logits float32 [N, num_classes] of the images.
        metrics: As `detailed_metrics` computes them.
        views: Number of views of each image that were averaged; 10 are those of ten-crop.
        other_dataset: Name of the data set if the weights' run has other validation images, else "".
        classes: Names of the classes.
    """

    model: Optional[str]
    weights: Path
    data: Path
    demo: bool
    num_listed: int
    predictions: Predictions
    metrics: dict
    views: int = 1
    other_dataset: str = ""
    classes: tuple = ()

    @property
    def measures(self):
        """The metrics, by their name in notebooks of the version before."""
        return self.metrics


def assess(weights, name=None, data=None, batch_size=10, device=None, **options):
    """Evaluate weights on the validation or test images and print the lesson's lines.

    Args:
        weights: A run directory (its best epoch) or a `.pdparams` file.
        name: The recipe, if the weights do not name it.
        data: Directory of the images; by default that of the weights' run, else as for `train_recipe`.
        batch_size: Images at a time.
        device: As for `choose_device`.
        options: cache, threshold, download, ten_crop, views, split, valid_csv and ordered, see `EvaluationOptions`.

    Returns:
        An EvaluationResult. Its `metrics` are those of `palm_cls.eval.metrics.binary_metrics`, with a 95% interval for
        every share and for the AUC, or of `palm_cls.eval.multiclass_metrics` for more than two classes.

    Raises:
        InputError: Something is missing or does not fit.
    """
    options = EvaluationOptions(**options)
    weights = resolve_weights(weights)
    metadata, settings = read_metadata(weights), read_settings(weights)
    name = name or metadata.get("model")
    if not isinstance(name, str):
        raise InputError(f"{weights} does not name its network; say which it is (--model)")
    recipe, views = trained_recipe(name, metadata), TEN_CROP if options.ten_crop else options.views
    if options.ten_crop and options.views > 1:
        raise InputError("ten_crop or views, not both")
    check_input_spec(weights, metadata.get("input", input_spec(recipe)), input_spec(recipe))
    metrics.check_threshold(recipe.num_logits, options.threshold)
    choose_device(device)
    where, split = _data_options(weights, metadata, settings, data, options)
    loader, dataset = make_valid_loader(recipe, where, batch_size, options.cache, options.download, views, split)
    if split == "other" and isinstance(dataset, Dataset) and loader.classes != CLASSES:
        raise InputError(
            f"{weights}: for the classes {shorten(', '.join(loader.classes))}, and the images of {dataset.root} are of "
            f"the classes {' and '.join(CLASSES)}; give other images (--data)"
        )
    own_images = options.split == "test" or settings.get("valid_sha256") in (None, loader.fingerprint)
    if not own_images:
        log(f"{weights.parent}: its run has other validation images than {loader.directory}")
    if metadata.get("demo") and not loader.metadata["demo"]:
        log(DEMO_WARNING)
    model = build_network(recipe)
    load(weights, model)
    print("start evaluation .......")
    ordered = settings.get("ordered", False) if options.ordered is None else options.ordered
    result = evaluate_model(model, loader, weights, name, options.threshold, ordered)
    lesson = compute_metrics(result.predictions.logits, result.predictions.labels)
    print(f"loss={lesson['loss']}, acc={lesson['accuracy']} {dataset.disclaimer}".rstrip())
    return replace(result, other_dataset="" if own_images else Path(dataset.root).name)


def _data_options(weights, metadata, settings, data, options):
    """Return (DataOptions, split) of an evaluation: those of the run, unless the images are others."""
    split, classes = options.split, metadata.get("classes")
    place = run_dir.resolve_data_dir(weights.parent, settings, data)
    where = stored_options(settings, place, classes=classes)
    if options.valid_csv:
        where = replace(where, valid_csv=options.valid_csv, valid_fraction=None)
    elif split == "valid" and not _are_same_images(where, settings):
        where, split = DataOptions(place, classes=classes), "other"
    return where, split


def _are_same_images(where, settings):
    """Return whether DataOptions mean the validation images of the run with these settings."""
    if settings.get("valid_sha256") is None:  # weights that are not in their run
        return False
    if os.path.abspath(where.data) == settings.get("data"):
        return True
    try:
        dataset, where = find_photos(where)
        return photo_loader(dataset, "valid", where, cache=False).fingerprint == settings["valid_sha256"]
    except InputError:
        return False


def evaluate_model(model, loader, weights, name=None, threshold=0.5, ordered=False):
    """Evaluate a network that has its weights already on the images of a loader.

    Args:
        model: The network.
        loader: As `valid_data_loader` returns it.
        weights: Path of the file that the weights are from.
        name: The recipe, or None.
        threshold: Images are called positive above this probability.
        ordered: Whether three or more classes have an order.

    Returns:
        An EvaluationResult.
    """
    predictions = predict_all(model, loader)
    metadata = loader.metadata
    classes = class_names(metadata, predictions.logits.shape[1])
    return EvaluationResult(
        model=name,
        weights=weights,
        data=loader.directory,
        demo=metadata["demo"],
        num_listed=loader.num_samples,
        predictions=predictions,
        metrics=detailed_metrics(predictions, threshold, classes, ordered),
        views=loader.views,
        classes=tuple(classes or ()),
    )


def class_names(metadata, num_logits):
    """Return the class names in metadata; None unless they fit so many logits."""
    names = metadata.get("classes")
    return names if names and len(names) == max(2, num_logits) else None


def disclaimer_for(name):
    """Return the medical disclaimer; "" for a recipe on digits or garments."""
    return "" if name in RECIPES and RECIPES[name].dataset != "palm" else DISCLAIMER


def detailed_metrics(predictions, threshold=0.5, classes=None, ordered=False):
    """Compute `metrics.binary_metrics`, or `multiclass_metrics` for more than one logit.

    Args:
        predictions: Predictions.
        threshold: Images are called positive above this probability.
        classes: Names of the classes, a list of str, or None.
        ordered: Whether three or more classes have an order.

    Returns:
        A dictionary.
    """
    labels, logits = predictions.labels.flatten().astype("int64"), predictions.logits
    if logits.shape[1] > 1:
        return multiclass_metrics(labels, logits, classes, ordered)
    names = predictions.names if classes in (None, CLASSES) else None  # whose first letters mean something
    return metrics.binary_metrics(labels, logits.flatten(), names, threshold)


def write_evaluation(result, json_file, csv_file):
    """Write an EvaluationResult: metrics, settings and images as JSON, the images as CSV; each atomically.

    Args:
        result: EvaluationResult.
        json_file: Path of evaluation.json.
        csv_file: Path of predictions.csv.
    """
    rows = prediction_rows(result)
    content = {
        "model": result.model,
        "weights": str(result.weights),
        "data": str(result.data),
        "demo": result.demo,
        "classes": list(result.classes),
        "caveat": disclaimer_for(result.model),
        "versions": run_dir.versions(),
        "listed": result.num_listed,
        "ten_crop": result.views == TEN_CROP,
        "views": result.views,
        "measures": result.metrics,
        "images": rows,
    }
    write_json(content, json_file)
    write_table(rows, csv_file)


def prediction_rows(result):
    """Return a dict for each image of an EvaluationResult: imgName, Label, probability, predicted.

    With one logit, there is also "logit", and the probability is that of class 1; with several, the probability is that
    of the predicted class, and "probability_0", "probability_1", ... are those of all classes.
    """
    logits = result.predictions.logits
    if logits.shape[1] > 1:
        probabilities = class_probabilities(logits)
        columns = {"probability": probabilities.max(axis=1), "predicted": probabilities.argmax(axis=1)}
        columns.update({f"probability_{number}": column for number, column in enumerate(probabilities.T)})
    else:
        logits = logits[:, 0]
        probabilities = metrics.positive_probabilities(logits)
        predicted = metrics.is_positive(probabilities, result.metrics["threshold"]).astype("int64")
        columns = {"logit": logits, "probability": probabilities, "predicted": predicted}
    columns = {"Label": result.predictions.labels.flatten().astype("int64"), **columns}
    rows = zip(result.predictions.names, *(values.tolist() for values in columns.values()))
    return [dict(zip(("imgName", *columns), row)) for row in rows]


def threshold_from(json_file, sensitivity):
    """Find the largest threshold that reaches a sensitivity on the images of another evaluation.

    Args:
        json_file: Path of the evaluation.json of that evaluation.
        sensitivity: Above 0, at most 1.

    Returns:
        float.

    Raises:
        InputError: The file is missing or no evaluation.json, or there is no such threshold.
    """
    try:
        images = json.loads(Path(json_file).read_text(encoding="utf-8"))["images"]
        labels, probabilities = ([image[key] for image in images] for key in ("Label", "probability"))
        labels, probabilities = np.array(labels, "int64"), np.array(probabilities, "float64")
    except FileNotFoundError:
        raise InputError(f"{json_file}: no such file; expected the {EVALUATION} of another evaluation") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{json_file}: not the {EVALUATION} of an evaluation ({error})") from error
    if "logit" not in images[0]:
        raise InputError(f"{json_file}: of three classes or more, and a threshold separates two; leave it out")
    return metrics.threshold_for_sensitivity(labels, probabilities, sensitivity)


def check_threshold_source(json_file, result):
    """Refuse a threshold of another network, or chosen on the images of the evaluation itself.

    Args:
        json_file: Path of the evaluation.json that the threshold was taken from.
        result: EvaluationResult with that threshold.

    Raises:
        InputError: The threshold does not apply.
    """
    content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    if content.get("model") not in (None, result.model):
        raise InputError(
            f"{json_file}: a threshold of {shorten(content['model'])} does not apply to {result.model}; "
            f"give an evaluation of {result.model}"
        )
    theirs, ours = stored_classes(content), list(result.classes) or CLASSES
    if theirs != ours:
        raise InputError(
            f"{json_file}: a threshold for the classes {shorten(', '.join(theirs))} does not apply to "
            f"{shorten(', '.join(ours))}; give an evaluation of the same classes"
        )
    if content.get("views", 1) != result.views:
        raise InputError(
            f"{json_file}: a threshold for {content.get('views', 1)} views of each image does not apply to "
            f"{result.views}; give an evaluation with as many"
        )
    theirs = [(image.get("imgName"), image["Label"]) for image in content["images"]]
    if theirs == list(zip(result.predictions.names, result.predictions.labels.flatten().tolist())):
        raise InputError(
            f"{json_file}: of these very images, and a threshold chosen on the images that it is measured on is "
            "optimistic; give an evaluation of others"
        )
