"""How good trained weights are, in full: `assess`, what `tools/evaluate.py` does, and the files that it writes.

The measures are those of `palm_cls.eval.metrics`, each with the uncertainty that so many images leave.
"""

import json
from collections import namedtuple
from pathlib import Path

import numpy as np

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import EVALUATION, read_settings, write_json, write_table
from palm_cls.checkpoints.weights import load, weights_file
from palm_cls.core.console import CAVEAT, DEMO_WARNING, notice
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError, excerpt
from palm_cls.data.loader_factory import make_valid_loader
from palm_cls.eval import metrics
from palm_cls.eval.evaluate import measures, predict_all
from palm_cls.recipes import RECIPES, build_model, find_recipe

# model: name of the recipe, or None; weights: Path; data: directory of the images; demo: whether they are drawn;
# listed: number of images in their table; predictions: Predictions; measures: dict; ten_crop: whether of ten views;
# elsewhere: name of the data set, where the run of the weights has other validation images, else ""
Assessment = namedtuple(
    "Assessment",
    ("model", "weights", "data", "demo", "listed", "predictions", "measures", "ten_crop", "elsewhere"),
    defaults=(False, ""),
)


def assess(
    weights,
    name=None,
    data=None,
    batch_size=10,
    device=None,
    cache=True,
    threshold=0.5,
    download=False,
    ten_crop=False,
):
    """Evaluate weights on the validation images, print the lesson's lines, and return an Assessment.

    weights: a run's directory (its best epoch) or a `.pdparams` file; name: the recipe, if the weights do not tell it;
    data: the images' directory, by default where the run of the weights had them, else as for `train_recipe`; device,
    cache, download: as there; batch_size: images at a time; threshold: of the probability, above which an image counts
    as positive, where there are two classes; ten_crop: average over ten views (as `palm_cls.data.loaders.ImageLoader`).

    Of what is returned, `measures` is the dictionary of `palm_cls.eval.metrics.binary_measures`, with a 95% interval to
    every share and to the AUC, or of `class_measures` for more than two classes; `predictions` has the names, labels
    [N, 1] and logits float32 [N, num_classes] of the images. Raises InputError for what is missing or does not fit.
    """
    weights = weights_file(weights)
    about, settings = run_dir.describe(weights), read_settings(weights)
    name = name or about.get("model")
    if not isinstance(name, str):
        raise InputError(f"{weights} does not tell its network; say which it is (--model)")
    recipe = find_recipe(name)
    refuse_threshold(name, threshold)
    choose_device(device)
    data = run_dir.images_of(weights.parent, settings, data)
    loader, dataset = make_valid_loader(recipe, data, batch_size, cache, download, ten_crop)
    own = settings.get("valid_sha256") in (None, loader.fingerprint)
    if not own:
        notice(f"{weights.parent}: its run has other validation images than {loader.directory}")
    if about.get("demo") and not loader.metadata["demo"]:
        notice(DEMO_WARNING)
    model = build_model(name)
    load(weights, model)
    print("start evaluation .......")
    found = assess_network(model, loader, weights, name, threshold)
    lesson = measures(found.predictions.logits, found.predictions.labels)
    print(f"loss={lesson['loss']}, acc={lesson['accuracy']} {dataset.disclaimer}".rstrip())
    return found._replace(elsewhere="" if own else Path(dataset.root).name)


def assess_network(model, loader, weights, name=None, threshold=0.5):
    """The Assessment of a network that has its weights already, on the images of a reader. weights: their file."""
    predictions = predict_all(model, loader)
    about = loader.metadata
    found = all_measures(predictions, threshold, class_names(about, predictions.logits.shape[1]))
    ten_crop = getattr(loader, "ten_crop", False)
    return Assessment(name, weights, loader.directory, about["demo"], loader.num_samples, predictions, found, ten_crop)


def class_names(about, logits):
    """The names of the classes that readers or settings tell of, if as many as a network with so many logits has."""
    names = about.get("classes")
    return names if names and len(names) == max(2, logits) else None


def caveat_of(name):
    """CAVEAT, but "" for a recipe on digits or garments."""
    return "" if name in RECIPES and RECIPES[name].data != "palm" else CAVEAT


def refuse_threshold(name, threshold):
    """Raise InputError for a threshold where there are ten classes. name: of the recipe."""
    if threshold != 0.5 and find_recipe(name).data != "palm":
        raise InputError(f"a threshold parts two classes; {name} has ten, and predicts the most probable one")


def all_measures(predictions, threshold=0.5, classes=None):
    """The measures of Predictions: `metrics.binary_measures`, or `metrics.class_measures` for more than one logit.

    classes: names of the labels, a list of str.
    """
    labels, logits = predictions.labels.flatten().astype("int64"), predictions.logits
    if logits.shape[1] > 1:
        return metrics.class_measures(labels, logits, classes)
    return metrics.binary_measures(labels, logits.flatten(), predictions.names, threshold)


def write_assessment(assessment, json_file, csv_file):
    """Write an Assessment: measures, settings and images as JSON, and the images as CSV; each whole or not at all."""
    rows = image_rows(assessment)
    content = {
        "model": assessment.model,
        "weights": str(assessment.weights),
        "data": str(assessment.data),
        "demo": assessment.demo,
        "caveat": caveat_of(assessment.model),
        "versions": run_dir.versions(),
        "listed": assessment.listed,
        "ten_crop": assessment.ten_crop,
        "measures": assessment.measures,
        "images": rows,
    }
    write_json(content, json_file)
    write_table(rows, csv_file)


def image_rows(assessment):
    """One dict an image: imgName, Label, probability, predicted.

    With one class, also its logit, and the probability is that of class 1; with more, that of the predicted class.
    """
    from scipy.special import softmax

    names, labels, logits = assessment.predictions
    if logits.shape[1] > 1:
        chances = softmax(logits, axis=1)
        columns = {"probability": chances.max(axis=1), "predicted": chances.argmax(axis=1)}
    else:
        logits = logits[:, 0]
        chances = metrics.probabilities_of(logits)
        predicted = (chances > assessment.measures["threshold"]).astype("int64")
        columns = {"logit": logits, "probability": chances, "predicted": predicted}
    columns = {"Label": labels.flatten().astype("int64"), **columns}
    rows = zip(names, *(values.tolist() for values in columns.values()))
    return [dict(zip(("imgName", *columns), row)) for row in rows]


def threshold_from(json_file, sensitivity):
    """The largest threshold that reaches this sensitivity on the images of another evaluation, given its JSON file."""
    try:
        images = json.loads(Path(json_file).read_text(encoding="utf-8"))["images"]
        labels, chances = ([image[key] for image in images] for key in ("Label", "probability"))
        labels, chances = np.array(labels, "int64"), np.array(chances, "float64")
    except FileNotFoundError:
        raise InputError(f"{json_file}: no such file; expected the {EVALUATION} of another evaluation") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{json_file}: not the {EVALUATION} of an evaluation ({error})") from error
    return metrics.threshold_for_sensitivity(labels, chances, sensitivity)


def refuse_threshold_from(json_file, found):
    """Raise InputError where the threshold is of another network, or was chosen on the very images of an Assessment."""
    told = json.loads(Path(json_file).read_text(encoding="utf-8"))
    if told.get("model") not in (None, found.model):
        raise InputError(f"{json_file}: of {excerpt(told['model'])}, whose threshold tells nothing about {found.model}")
    theirs = [(image.get("imgName"), image["Label"]) for image in told["images"]]
    if theirs == list(zip(found.predictions.names, found.predictions.labels.flatten().tolist())):
        raise InputError(
            f"{json_file}: of these very images, and a threshold chosen on the images that it is measured on flatters; "
            "take that of others"
        )
