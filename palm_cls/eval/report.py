"""The report of a run: `report.html`, one file with what was trained, how good it is and where it fails.

The page needs no network and no script. Its figures are also in the run's `figures` as PNG, and its numbers in
`evaluation.json` and `predictions.csv`. The text of the page is in report.html.jinja.
"""

import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palm_cls.checkpoints.run_dir import check_same_images, resolve_data_dir
from palm_cls.checkpoints.run_files import (
    EVALUATION,
    FIGURES,
    PREDICTIONS,
    REPORT,
    best_record,
    read_log,
    read_settings,
)
from palm_cls.checkpoints.weights import load, resolve_weights
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError
from palm_cls.core.files import TEXT, atomic_write, require_directory
from palm_cls.core.html import load_template, thumbnail
from palm_cls.data.data_root import DEMO_DISCLAIMER
from palm_cls.data.labels import CLASSES
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.options import stored_options
from palm_cls.data.samples import example_names
from palm_cls.eval import metrics, plots
from palm_cls.eval.assess import (
    EvaluationResult,
    class_names,
    disclaimer_for,
    evaluate_model,
    prediction_rows,
    write_evaluation,
)
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.eval.multiclass_metrics import class_probabilities
from palm_cls.eval.report_figures import write_figure
from palm_cls.recipes import build_network, trained_recipe

MAX_CLASSES = 10  # of which images are counted and shown
MAX_EXAMPLES = 3  # images shown of each class
MAX_MISTAKES = 8  # of those shown
TEMPLATE = Path(__file__).with_name("report.html.jinja")
THUMBNAIL = 320  # pixels, the longer side
EPOCHS_MARK = '<meta name="palm_cls:epochs" content="{}">'  # as in report.html.jinja
LOADER_ATTRIBUTES = (
    "metadata",
    "directory",
    "num_samples",
    "labels",
    "order",
    "load_image",
    "load_input",
)
RECIPE_SETTINGS = {"model", "data", "batch_size"}  # of a run whose report tools/report.py can write again


@dataclass(frozen=True)
class ReportContext:
    """What a report is written from.

    Attributes:
        directory: Path of the run.
        settings: As `read_settings` returns them.
        log: As `read_log` returns it.
        train_loader: The run's loader of training images.
        valid_loader: The run's loader of validation images.
        model: The network with the weights of the best epoch.
        result: EvaluationResult of the best epoch.
        classes: Names of the classes.
    """

    directory: Path
    settings: dict
    log: list
    train_loader: Any
    valid_loader: Any
    model: Any
    result: EvaluationResult
    classes: list


def report_run(directory, data=None, device=None, cache=True, threshold=0.5):
    """Write the report of a run of a recipe, as `tools/report.py` does.

    Args:
        directory: The run.
        data: Where the images are now, if they moved.
        device: As for `choose_device`.
        cache: Whether resized images are cached, as for `train_recipe`.
        threshold: Images are called positive above this probability.

    Returns:
        The Path of report.html.

    Raises:
        InputError: Something is missing, or the images are not those of the run.
    """
    require_directory(directory, "that of a run")
    settings = read_settings(directory)
    resolve_weights(directory)  # raises if no epoch is finished
    if not set(settings) >= RECIPE_SETTINGS:
        raise InputError(f"{directory}: no run of a recipe; a run of palm_cls.train takes palm_cls.write_report")
    recipe = trained_recipe(settings["model"], settings, batch_size=settings["batch_size"])
    metrics.check_threshold(recipe.num_logits, threshold)
    choose_device(device)
    options = stored_options(settings, resolve_data_dir(directory, settings, data))
    *loaders, _ = make_loaders(recipe, options, cache)
    check_same_images(directory, settings, *loaders)
    return write_report(directory, build_network(recipe), *loaders, threshold)


def write_report(directory, model, train_loader, valid_loader, threshold=0.5):
    """Evaluate the best epoch of a run on its validation images and write its report.

    Writes report.html, figures/*.png, evaluation.json and predictions.csv into the run, each atomically.

    Args:
        directory: The run.
        model: A network as the run trained it; it receives the weights of the best epoch.
        train_loader: The run's loader, as `data_loader` returns it.
        valid_loader: The run's loader, as `valid_data_loader` returns it.
        threshold: Images are called positive above this probability.

    Returns:
        The Path of report.html.

    Raises:
        InputError: No epoch is finished, or a loader cannot show its images.
    """
    directory = Path(directory)
    _check_loaders(train_loader, valid_loader)
    weights = resolve_weights(directory)
    log, settings = read_log(directory), read_settings(directory)
    if not log:
        raise InputError(f"{directory}: no epoch finished yet, so there is nothing to report")
    load(weights, model)
    ordered = settings.get("ordered", False)
    result = evaluate_model(model, valid_loader, weights, settings.get("model"), threshold, ordered)
    write_evaluation(result, directory / EVALUATION, directory / PREDICTIONS)
    logits = result.predictions.logits.shape[1]
    classes = class_names(settings, logits) or class_names(valid_loader.metadata, logits) or list(range(max(2, logits)))
    page = _render(ReportContext(directory, settings, log, train_loader, valid_loader, model, result, classes))
    with atomic_write(directory / REPORT) as temporary:
        temporary.write_text(page, **TEXT)
    return directory / REPORT


def _check_loaders(*loaders):
    for loader in loaders:
        if missing := [name for name in LOADER_ATTRIBUTES if not hasattr(loader, name)]:
            raise InputError(
                f"a report shows images, and {type(loader).__name__}, a loader, has no {', '.join(missing)}; "
                "give it loaders as data_loader and valid_data_loader return them"
            )


def is_current(directory, epochs):
    """Return whether a run has a report, of this many epochs."""
    try:
        head = Path(directory, REPORT).read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:
        return False
    return EPOCHS_MARK.format(epochs) in head


def _render(context):
    """Return the page as text."""
    result, settings = context.result, context.settings
    num_mistakes, mistakes = _top_losses(context)
    return load_template(TEMPLATE).render(
        name=settings.get("model", context.directory.name),
        num_epochs=len(context.log),
        best_epoch=best_record(context.log)["epoch"],
        metrics=result.metrics,
        num_listed=result.num_listed,
        classes=context.classes,
        named=_are_named(context.classes),
        disclaimer=disclaimer_for(result.model),
        demo_remark=f"{DEMO_DISCLAIMER[1:-1].capitalize()}." if result.demo or settings.get("demo") else "",
        figures=_write_figures(context),
        num_mistakes=num_mistakes,
        mistakes=mistakes,
        class_counts=_class_counts(context),
        max_classes=MAX_CLASSES,
        examples=[
            example for number in range(len(context.classes[:MAX_CLASSES])) for example in _examples(context, number)
        ],
        settings=shown_settings(settings),
        written=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        command="tools/report.py" if set(settings) >= RECIPE_SETTINGS else "palm_cls.write_report",
    )


def _are_named(classes):
    """Return whether the classes have names, other than the lesson's, to use in place of "positive" and "negative"."""
    return list(classes) != CLASSES and list(map(str, classes)) != list(map(str, range(len(classes))))


def _write_figures(context):
    """Write the figures into the run; return {name: <svg>}."""
    best = best_record(context.log)["epoch"]
    figures = {
        "loss": plots.loss_curve(context.log, best),
        "accuracy": plots.accuracy_curve(context.log, best),
        "confusion": plots.confusion_matrix(context.result.metrics, context.classes),
        **(_class_figures(context) if "classes" in context.result.metrics else _binary_figures(context)),
    }
    folder = context.directory / FIGURES
    return {name: write_figure(folder, name, figure, text) for name, (figure, text) in figures.items()}


def _binary_figures(context):
    """Plot what one logit gives: {name: (figure, text)}."""
    result = context.result
    labels = result.predictions.labels.flatten().astype("int64")
    arguments = labels, metrics.positive_probabilities(result.predictions.logits.flatten()), result.metrics
    positives = [str(context.classes[1])] if _are_named(context.classes) else []
    figures = {"calibration": plots.reliability_diagram(*arguments, *positives)}
    if result.metrics["auc"] is not None:
        figures["roc"] = plots.roc_curve(*arguments)
        figures["precision_recall"] = plots.precision_recall_curve(*arguments)
    return figures


def _class_figures(context):
    """Plot what a logit for each class gives: {name: (figure, text)}."""
    result = context.result
    labels, probabilities = result.predictions.labels.flatten(), class_probabilities(result.predictions.logits)
    answers = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    figures = {"calibration": plots.reliability_diagram(*answers, result.metrics, "right answers")}
    areas = [row["auc"] for row in result.metrics["classes"]]
    if len(areas) <= plots.MAX_CURVES and any(areas):
        figures["roc"] = plots.class_roc_curves(labels, probabilities, result.metrics, context.classes)
    return figures


def _top_losses(context):
    """Return (number of mistakes, the most confident of them as dicts for the page)."""
    rows = [row for row in prediction_rows(context.result) if row["Label"] != row["predicted"]]
    rows.sort(key=_confidence, reverse=True)
    return len(rows), [_mistake(context, row) for row in rows[:MAX_MISTAKES]]


def _confidence(row):
    """Return how sure the network was; below 0 if only the threshold decided its answer."""
    if "logit" not in row:
        return row["probability"]
    return row["logit"] if row["predicted"] else -row["logit"]


def _mistake(context, row):
    name = row["imgName"]
    photo = thumbnail(context.valid_loader.load_image(name), THUMBNAIL)
    try:
        heat = grad_cam(context.model, context.valid_loader.load_input(name), label=row["predicted"])
    except InputError:  # a network without convolutions
        heat = None
    return {
        "name": name,
        "label": context.classes[row["Label"]],
        "answer": context.classes[row["predicted"]],
        "probability": row["probability"],
        "photo": photo,
        "heat_map": None if heat is None else overlay(photo, heat),
    }


def _class_counts(context):
    """Return the number of images of each class: [[training, validation], ...]."""
    counts = [Counter(loader.labels) for loader in (context.train_loader, context.valid_loader)]
    return [[count[number] for count in counts] for number in range(len(context.classes))]


def _examples(context, number):
    """Return training images of a class as dicts for the page."""
    loader, label = context.train_loader, context.classes[number]
    names = example_names(loader, number, MAX_EXAMPLES)
    return [{"name": name, "label": label, "photo": thumbnail(loader.load_image(name), THUMBNAIL)} for name in names]


def shown_settings(settings):
    """Return {description: text} of a run's settings and versions."""
    rows = {key.replace("_", " "): value for key, value in settings.items() if key not in ("versions", "classes")}
    rows.update({f"version of {name}": version for name, version in settings.get("versions", {}).items()})
    lists = {key: ", ".join(map(_as_text, value)) for key, value in rows.items() if isinstance(value, list)}
    return {key: _as_text(value) for key, value in {**rows, **lists}.items() if value is not None}


def _as_text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " to ".join(map(str, value))
    return str(value)
