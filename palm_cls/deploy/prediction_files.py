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
from palm_cls.deploy.predict import OVERLAY_SUFFIX, Prediction, input_size, read_error
from palm_cls.eval.gradcam import grad_cam, overlay

COLUMNS = ("imgName", "probability", "label", "error", "note")


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
def row_writer(output=None, note=DISCLAIMER):
    """Open a file of predictions, to which every row is written at once and whole.

    Args:
        output: A new file: JSON lines for `*.jsonl`, else CSV. By default CSV is printed.
        note: Last value of every row, see `prediction_note`.

    Returns:
        A context with a function (name, Prediction) that writes a row.

    Raises:
        InputError: The file exists.
    """
    if output is None:
        print(csv_row(COLUMNS), end="")
        yield lambda name, prediction: print(csv_row(_values(name, prediction, note)), end="")
        return
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    check_absent([output])
    is_json = output.suffix.lower() == ".jsonl"
    format_row = json_row if is_json else csv_row
    with open(output, "xb", buffering=0) as file:
        if not is_json:
            _append(file, csv_row(COLUMNS))
        yield lambda name, prediction: _append(file, format_row(_values(name, prediction, note)))


def _values(name, prediction, note):
    return name, prediction.probability, prediction.label, prediction.error, note


def csv_row(values):
    """Format values as a line of CSV; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def json_row(values):
    """Format the values of COLUMNS as a line of JSON, which omits an empty error."""
    row = dict(zip(COLUMNS, values))
    if row["error"] is None:
        del row["error"]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _append(file, row):
    append_or_rollback(file, row.encode(**TEXT))


def write_overlays(model, predictions, targets):
    """Write the heat map of each prediction, and yield the prediction afterwards.

    Args:
        model: The network, no export.
        predictions: Predictions. An image that is gone or damaged by now gets an error.
        targets: Paths of the heat maps, see `overlay_paths`.
    """
    for prediction, target in zip(predictions, targets):
        if prediction.error is None:
            try:
                write_overlay(model, prediction, target)
            except (InputError, FileNotFoundError) as error:
                prediction = Prediction(prediction.path, error=read_error(prediction.path, error))
        yield prediction


def write_overlay(model, prediction, target):
    """Draw the Grad-CAM of a Prediction's label over its image, as a JPEG file."""
    photo = read_image(prediction.path)  # again: those of three batches would take 400 MB
    heat = grad_cam(model, transform_img(photo, input_size(model)), label=prediction.label)
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
