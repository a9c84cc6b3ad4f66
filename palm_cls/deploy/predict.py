"""Trained weights on images of one's own: `predictions`, and the files that `tools/predict.py` writes."""

import contextlib
import csv
import glob
import io
import json
import os
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np

from palm_cls.checkpoints.run_dir import describe
from palm_cls.checkpoints.weights import is_export, load, weights_file
from palm_cls.core import environment
from palm_cls.core.console import CAVEAT, DEMO_WARNING
from palm_cls.core.errors import InputError, excerpt
from palm_cls.core.files import TEXT, append_whole, refuse_existing, replacing
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.image_files import image_names, is_image
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.loaders import ImageLoader
from palm_cls.data.prefetch import prefetch
from palm_cls.deploy.exported_model import exported_network
from palm_cls.eval import metrics
from palm_cls.eval.engine import logits_function
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.recipes import RECIPES, build_model, find_recipe

OVERLAY = ".cam.jpg"  # how the names of overlays end
COLUMNS = ("imgName", "probability", "label", "error", "note")

# path: Path; probability: of class 1, float 0..1; label: 0 or 1; error: None, or why there is neither (str)
Prediction = namedtuple("Prediction", ("path", "probability", "label", "error"))


def find_images(names):
    """The images that `names` mean, a list of Paths, each once, in the order given.

    A name is that of a file, whatever its suffix; of a folder, which stands for the images in it, sorted by name; or a
    pattern (`photos/*.jpg`, `**` for folders within folders), which stands for the images and folders that it matches,
    sorted. In folders and patterns the overlays of an earlier run are passed over. A file need not be there: that comes
    out when it is read. Raises InputError for a pattern or a folder without images.
    """
    found = {}
    for name in names:
        for path in _images_of(name):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _images_of(name):
    path = Path(name)
    if path.is_dir():
        return _images_in(path)
    if path.is_file() or not glob.has_magic(str(name)):
        return [path]
    matches = map(Path, sorted(glob.glob(str(name), recursive=True)))
    images = [image for match in matches for image in _images_matched(match)]
    if not images:
        raise InputError(f"{name}: matches no image")
    return images


def _images_in(folder):
    images = [folder / name for name in image_names(folder) if not name.lower().endswith(OVERLAY)]
    if not images:
        raise InputError(f"{folder}: no images in it but overlays of an earlier run")
    return images


def _images_matched(path):
    if path.is_dir():
        return [entry for entry in sorted(path.iterdir()) if _is_photo(entry)]
    return [path] if _is_photo(path) else []


def _is_photo(path):
    return is_image(path) and not path.name.lower().endswith(OVERLAY)


def trained_network(weights, name=None):
    """A network with trained weights, and what is known about them: (model, about), see `run_dir.describe`.

    weights: as `palm_cls.load` takes them, or what `palm_cls.export_network` wrote, of which the model is a function;
    name: the recipe, where the weights do not tell it. Raises InputError where neither does, where they disagree, and
    for weights that are fed with other images than `transform_img` makes, such as those of MNIST.
    """
    if is_export(weights):
        return exported_network(weights, name)
    name, model, about = known_network(weights, name)
    if find_recipe(name).data != "palm":  # these weights may tell nothing, as those of PaddlePaddle 1.6
        raise InputError(
            f"{weights}: {name} takes grey images of 28 x 28 pixels, and this predicts fundus photographs; "
            "tools/evaluate.py predicts the test images that belong to it"
        )
    return model, about


def known_network(weights, name=None):
    """As `trained_network`, for the weights of any recipe, and not for exported ones: (name, model, about)."""
    weights = weights_file(weights)
    about = describe(weights)
    told = about.get("model")
    if told is not None and told not in list(RECIPES):  # it may be no text, either
        raise InputError(f"{weights}: weights of {excerpt(told)!r}, which is none of {', '.join(RECIPES)}")
    if told is None and name is None:
        raise InputError(f"{weights} does not tell its network; give --model ({', '.join(RECIPES)})")
    if name not in (None, told or name):
        raise InputError(f"{weights}: weights of {told}, not of {name}")
    name, expected = name or told, input_of(name or told)
    if about.get("input", expected) != expected:
        raise InputError(f"{weights}: takes images as {excerpt(about['input'])}; here they are made as {expected}")
    model = build_model(name)
    load(weights, model)
    return name, model, about


def input_of(name):
    """The images that the network of a recipe takes, as `palm_cls.data.images.INPUT_SPEC`."""
    recipe = find_recipe(name)
    reader = ImageLoader if recipe.data == "palm" else ArrayLoader
    return {**reader.input_spec, "range": list(recipe.pixel_range)}


def predictions(model, paths, batch_size=10, threshold=0.5):
    """Predict images: a generator of one Prediction for each path, in their order.

    model: as `trained_network` gives it; paths: of image files, as `find_images` lists them; batch_size: images at a
    time. A Prediction has path, probability (of pathological myopia, 0..1), label and error. The label is 1 where the
    probability is above `threshold`. An image that cannot be read, or for which the network gives no finite number,
    gets an error instead, in words. Threads decode ahead; the network is in evaluation mode meanwhile.
    """
    with logits_function(model, len(paths)) as logits_of:
        for batch in _decoded(paths, batch_size):
            imgs = [img for _, img, error in batch if error is None]
            answers = iter(probabilities(logits_of(np.stack(imgs))) if imgs else [])
            for path, _, error in batch:
                yield Prediction(path, None, None, error) if error else _prediction(path, next(answers), threshold)


def _prediction(path, probability, threshold):
    if not np.isfinite(probability):
        return Prediction(path, None, None, "the network gives no finite number for this image")
    return Prediction(path, probability, int(probability > threshold), None)


def probabilities(logits):
    """Of class 1, a list of N floats, for logits float32 [N, 1] (sigmoid) or [N, 2] (softmax).

    They are those of the evaluation, to the bit, so that a threshold taken from there parts the same images here; NaN
    for what is not finite.
    """
    if logits.shape[1] > 2:
        raise InputError(f"a network with {logits.shape[1]} logits; predictions are for two classes")
    differences = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    return metrics.probabilities_of(np.where(np.isfinite(differences), differences, np.nan)).tolist()


def _decoded(paths, batch_size):
    """Batches of (path, float32 [3, 224, 224] or None, None or error), decoded ahead by threads."""
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with environment.own_threads() as pool:
        yield from prefetch(_begin(batch, pool) for batch in batches)


def _begin(paths, pool):
    futures = [pool.submit(_read, path) for path in paths]
    return lambda: [(path, *future.result()) for path, future in zip(paths, futures)]


def _read(path):
    try:
        return transform_img(read_image(path)), None
    except (InputError, OSError) as error:
        return None, _reason(path, error)


def _reason(path, error):
    return str(error) if isinstance(error, InputError) else f"{path}: {error.strerror or error}"


def write_overlay(model, prediction, target):
    """Write the photograph of a Prediction with the Grad-CAM of its label over it, as JPEG, whole or not at all."""
    photo = read_image(prediction.path)  # anew: kept from the first time, those of three batches take 400 MB
    heat = grad_cam(model, transform_img(photo), label=prediction.label)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", overlay(photo, heat))[1])


def with_overlays(model, found, targets):
    """The Predictions `found`, each when its overlay is written to the next of `targets`.

    An image that is gone or damaged by then gets its error.
    """
    for prediction, target in zip(found, targets):
        if prediction.error is None:
            try:
                write_overlay(model, prediction, target)
            except (InputError, FileNotFoundError) as error:
                prediction = Prediction(prediction.path, None, None, _reason(prediction.path, error))
        yield prediction


def overlay_paths(folder, images):
    """Where the overlays go, one Path for each image, all different: NAME.cam.jpg in `folder` for NAME.jpg.

    Where that would be one file for two images, all keep their suffix (NAME.png.cam.jpg); where it still would, they go
    into folders that are named like those of the images (FOLDER/NAME.cam.jpg), as many levels as it takes.
    """
    parts = [Path(os.path.abspath(image)).parts[1:] for image in images]
    for levels in range(max(map(len, parts))):
        for suffixes in (False, True):
            names = [part[-1] if suffixes else Path(part[-1]).stem for part in parts]
            targets = [Path(folder, *part[-1 - levels : -1], f"{name}{OVERLAY}") for part, name in zip(parts, names)]
            if len({str(target).casefold() for target in targets}) == len(targets):  # casefold: Windows, macOS
                return targets
    raise InputError("two images differ by no name that an overlay could have; predict them one after the other")


def shown_names(images):
    """What `imgName` says: the names of the images, as in tables of labels; the paths as given, where names repeat."""
    names = [image.name for image in images]
    return names if len(set(names)) == len(names) else [str(image) for image in images]


def note_about(about):
    """The line that goes with every row, wherever it is copied to: what the predictions are not.

    about: what is known about the weights, see `palm_cls.checkpoints.run_dir.describe`.
    """
    return f"{CAVEAT} {DEMO_WARNING}" if about.get("demo") else CAVEAT


def csv_row(values):
    """Values as a line of CSV; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def json_row(name, prediction, note):
    """A Prediction as a line of JSON; there is an "error" only where there is one."""
    row = dict(zip(COLUMNS, (name, *prediction[1:], note)))
    if prediction.error is None:
        del row["error"]
    return json.dumps(row, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def row_writer(output=None, note=CAVEAT):
    """A function (name, Prediction) that writes a row at once: CSV or, for `output` *.jsonl, JSON lines.

    Without `output` it prints CSV. The file must be new; whoever follows it reads whole rows only. note: what every row
    says last, of `note_about`.
    """
    if output is None:
        print(csv_row(COLUMNS), end="")
        yield lambda name, prediction: print(csv_row((name, *prediction[1:], note)), end="")
        return
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    refuse_existing([output])
    with open(output, "xb", buffering=0) as file:
        if output.suffix.lower() == ".jsonl":
            yield lambda name, prediction: _append(file, json_row(name, prediction, note))
        else:
            _append(file, csv_row(COLUMNS))
            yield lambda name, prediction: _append(file, csv_row((name, *prediction[1:], note)))


def _append(file, row):
    append_whole(file, row.encode(**TEXT))
