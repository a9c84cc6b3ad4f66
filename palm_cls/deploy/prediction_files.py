"""Files that `tools/predict.py` writes: rows of predictions, and heat maps drawn over the images."""

import contextlib
import csv
import io
import json
import os
from pathlib import Path

import cv2

from palm_cls.core.console import DEMO_WARNING, DISCLAIMER
from palm_cls.core.errors import InputError
from palm_cls.core.files import TEXT, append_or_rollback, atomic_write, check_absent
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.labels import CLASSES
from palm_cls.deploy.predict import OVERLAY_SUFFIX, Prediction, input_size, read_error
from palm_cls.eval.gradcam import grad_cam, overlay

COLUMNS = ("imgName", "probability", "label", "error", "note")  # for the lesson's classes


def prediction_note(metadata):
    """Return the disclaimer that goes into every row, wherever that is copied to.

    Args:
        metadata: Metadata of the weights, as `palm_cls.load_model` returns them.
    """
    return f"{DISCLAIMER} {DEMO_WARNING}" if metadata.get("demo") else DISCLAIMER


def display_names(images):
    """Return the values of `imgName`: file names, or paths if a file name repeats."""
    names = [image.name for image in images]
    return names if len(set(names)) == len(names) else [str(image) for image in images]


@contextlib.contextmanager
def row_writer(output=None, note=DISCLAIMER, classes=CLASSES):
    """Open a file of predictions, to which every row is written at once and whole.

    A row has the probability and the label of an image; for other classes than the lesson's, the name of the predicted
    class and the probability of each.

    Args:
        output: A new file: JSON lines for `*.jsonl`, else CSV. By default CSV is printed.
        note: Last value of every row, see `prediction_note`.
        classes: Names of the classes, a list of str.

    Returns:
        A context with a function (name, Prediction) that writes a row.

    Raises:
        InputError: The file exists.
    """
    if output is None:
        print(csv_row(csv_columns(classes)), end="")
        yield lambda name, prediction: print(_format_csv(make_row(name, prediction, note, classes)), end="")
        return
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    check_absent([output])
    is_json = output.suffix.lower() == ".jsonl"
    format_row = json_row if is_json else _format_csv
    with open(output, "xb", buffering=0) as file:
        if not is_json:
            _append(file, csv_row(csv_columns(classes)))
        yield lambda name, prediction: _append(file, format_row(make_row(name, prediction, note, classes)))


def csv_columns(classes=CLASSES):
    """Return the columns of a CSV file of predictions, for classes of these names."""
    return COLUMNS if classes == CLASSES else ("imgName", "predicted", *classes, "error", "note")


def make_row(name, prediction, note, classes=CLASSES):
    """Return the row of a Prediction as a dict, in the order of its columns; None after an error.

    Args:
        name: Value of `imgName`.
        prediction: The Prediction.
        note: Last value of the row.
        classes: Names of the classes. For others than the lesson's, the row has "probabilities", {class: probability}.
    """
    if classes == CLASSES:
        values = {"probability": prediction.probability, "label": prediction.label}
    else:
        failed = prediction.probabilities is None
        values = {
            "predicted": None if failed else classes[prediction.label],
            "probabilities": dict.fromkeys(classes) if failed else dict(zip(classes, prediction.probabilities)),
        }
    return {"imgName": name, **values, "error": prediction.error, "note": note}


def _format_csv(row):
    values = (value.values() if isinstance(value, dict) else [value] for value in row.values())
    return csv_row([value for several in values for value in several])


def csv_row(values):
    """Format values as a line of CSV; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def json_row(row):
    """Format a row of `make_row` as a line of JSON, which omits an empty error."""
    row = {column: value for column, value in row.items() if (column, value) != ("error", None)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _append(file, row):
    append_or_rollback(file, row.encode(**TEXT))


def write_overlays(model, predictions, targets, label=None):
    """Write the heat map of each prediction, and yield the prediction afterwards.

    Args:
        model: The network, no export.
        predictions: Predictions. An image that is gone or damaged by now gets an error.
        targets: Paths of the heat maps, see `overlay_paths`.
        label: Number of the class that the heat maps explain; by default the predicted one of each image.
    """
    for prediction, target in zip(predictions, targets):
        if prediction.error is None:
            try:
                write_overlay(model, prediction, target, label)
            except (InputError, FileNotFoundError) as error:
                prediction = Prediction(prediction.path, error=read_error(prediction.path, error))
        yield prediction


def write_overlay(model, prediction, target, label=None):
    """Draw the Grad-CAM of a label, by default the Prediction's, over its image, as a JPEG file."""
    photo = read_image(prediction.path)  # again: those of three batches would take 400 MB
    label = prediction.label if label is None else label
    heat = grad_cam(model, transform_img(photo, input_size(model)), label=label)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", overlay(photo, heat))[1])


def overlay_paths(folder, images):
    """Choose a different file for the heat map of each image: NAME.cam.jpg for NAME.jpg.

    If two images would share a file, all keep their suffix (NAME.png.cam.jpg); if that does not suffice, the files go
    into folders named as those of the images (FOLDER/NAME.cam.jpg), as many levels as necessary.

    Args:
        folder: Directory of the heat maps.
        images: Paths of the images.

    Returns:
        A list of Paths.

    Raises:
        InputError: Two paths differ in nothing but upper and lower case.
    """
    parts = [Path(os.path.abspath(image)).parts[1:] for image in images]
    for levels in range(max(map(len, parts))):
        for keep_suffix in (False, True):
            names = [part[-1] if keep_suffix else Path(part[-1]).stem for part in parts]
            targets = [
                Path(folder, *part[-1 - levels : -1], f"{name}{OVERLAY_SUFFIX}") for part, name in zip(parts, names)
            ]
            if len({str(target).casefold() for target in targets}) == len(targets):  # casefold: Windows, macOS
                return targets
    raise InputError("two images differ by no name that an overlay could have; predict them one after the other")
