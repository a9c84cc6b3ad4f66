"""The report of a run: `report.html`, one file that tells what was trained, how good it is and where it fails.

It needs no network and no script, and is written for people: what each part means stands beside it. The same figures
lie in the run's `figures` as PNG, and the numbers in its `evaluation.json` and `predictions.csv`.
"""

import datetime
import io
import re
from collections import Counter, namedtuple
from html import escape
from pathlib import Path

from palm_cls.checkpoints.run_dir import images_of, refuse_other_images
from palm_cls.checkpoints.run_files import (
    EVALUATION,
    FIGURES,
    PREDICTIONS,
    REPORT,
    best_record,
    read_log,
    read_settings,
)
from palm_cls.checkpoints.weights import load, weights_file
from palm_cls.core import figures
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError
from palm_cls.core.files import TEXT, replacing, require_directory
from palm_cls.core.html import img_tag, thumbnail
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.palm import DEMO_DISCLAIMER
from palm_cls.eval import metrics, plots
from palm_cls.eval.assess import assess_network, caveat_of, class_names, image_rows, refuse_threshold, write_assessment
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.recipes import build_model, find_recipe

EXAMPLES = 3  # images shown of each class
MISTAKES = 8  # at most, of those shown
THUMBNAIL = 320  # pixels, the longer side
# what a report takes from both
OF_READERS = ("metadata", "directory", "num_samples", "labels", "order", "load_image", "load_input")
OF_RECIPE = {"model", "data", "batch_size"}  # settings of a run whose report tools/report.py can write again

# settings, log: of the run; train, valid: its readers; found: the Assessment of its best epoch; classes: their names
Facts = namedtuple("Facts", ("directory", "settings", "log", "train", "valid", "model", "found", "classes"))


def report_run(directory, data=None, device=None, cache=True, threshold=0.5):
    """Write the report of a run of a recipe, as `tools/report.py` does; returns its Path.

    data: where the images are now, if no longer where they were; device, cache: as for `train_recipe`; threshold: of
    the probability, above which an image counts as positive. Raises InputError for what is missing, and for images
    that are not those of the run.
    """
    require_directory(directory, "that of a run")
    settings = read_settings(directory)
    weights_file(directory)  # raises where no epoch is finished
    if not set(settings) >= OF_RECIPE:
        raise InputError(f"{directory}: no run of a recipe; what was trained otherwise takes palm_cls.write_report")
    name = settings["model"]
    recipe = find_recipe(name, batch_size=settings["batch_size"])
    refuse_threshold(name, threshold)
    choose_device(device)
    options = (settings.get("train_csv"), settings.get("skip_bad", False), cache)
    *loaders, _ = make_loaders(recipe, images_of(directory, settings, data), *options)
    refuse_other_images(directory, settings, *loaders)
    return write_report(directory, build_model(name), *loaders, threshold)


def write_report(directory, model, train_loader, valid_loader, threshold=0.5):
    """Evaluate the best epoch of the run in `directory` on all images of a reader, and write everything about it.

    model: a network as the run trained it, which takes the weights of the best epoch here; train_loader, valid_loader:
    the run's readers; threshold: of the probability, above which an image counts as positive. Writes report.html,
    figures/*.png, evaluation.json and predictions.csv into the run, each whole or not at all, and returns the Path of
    the first. Raises InputError where no epoch is finished, and for readers of one's own that cannot show their images.
    """
    directory = Path(directory)
    _require_images(train_loader, valid_loader)
    weights = weights_file(directory)
    log, settings = read_log(directory), read_settings(directory)
    if not log:
        raise InputError(f"{directory}: no epoch finished yet, so there is nothing to report")
    load(weights, model)
    found = assess_network(model, valid_loader, weights, settings.get("model"), threshold)
    write_assessment(found, directory / EVALUATION, directory / PREDICTIONS)
    logits = found.predictions.logits.shape[1]
    classes = class_names(settings, logits) or class_names(valid_loader.metadata, logits) or list(range(max(2, logits)))
    facts = Facts(directory, settings, log, train_loader, valid_loader, model, found, classes)
    page = _page(facts)
    with replacing(directory / REPORT) as temporary:
        temporary.write_text(page, **TEXT)
    return directory / REPORT


def _require_images(*loaders):
    for loader in loaders:
        if missing := [name for name in OF_READERS if not hasattr(loader, name)]:
            raise InputError(
                f"a report shows images, and {type(loader).__name__}, a reader, has no {', '.join(missing)}; "
                "give it readers as data_loader and valid_data_loader return them"
            )


def tells(directory, epochs):
    """Whether the report in a run's directory is there, and of this many epochs."""
    try:
        head = Path(directory, REPORT).read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:
        return False
    return _epochs_mark(epochs) in head


def _epochs_mark(epochs):
    return f'<meta name="palm_cls:epochs" content="{epochs}">'


def _page(facts):
    name = escape(str(facts.settings.get("model", facts.directory.name)))
    parts = [_head(facts, name), _curves(facts), _measures(facts), _mistakes(facts), _data(facts), _settings(facts)]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    again = "tools/report.py" if set(facts.settings) >= OF_RECIPE else "palm_cls.write_report"
    now = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{name}: what the network learned</title>
{_epochs_mark(len(facts.log))}
<style>
{style}</style>
</head>
<body>
{"".join(parts)}
<footer>Written {now}; <code>{again}</code> writes it again. {caveat_of(facts.found.model)}</footer>
</body>
</html>
"""


def _head(facts, name):
    found, measures = facts.found, facts.found.measures
    epochs, best, optimistic = "One epoch of training;", "", ""
    if len(facts.log) > 1:
        epochs = f"{len(facts.log)} epochs of training, counted from 0;"
        best = f" epoch {best_record(facts.log)['epoch']} was the best, and"
        optimistic = "\nThe best epoch was chosen on the very images that it is measured on here: an optimistic choice."
    remark = f" {DEMO_DISCLAIMER[1:-1].capitalize()}." if found.demo or facts.settings.get("demo") else ""
    caveat = caveat_of(found.model)
    warning = f"<p class=plain><strong>{caveat}</strong>{remark}</p>\n" if caveat else ""
    tiles = [(key, measures.get(key)) for key in ("accuracy", "auc", "sensitivity", "specificity")]
    shown = "".join(
        f"<div>{_label(key)}<b>{value['value']:.3f}</b><span class=soft>{_interval(value)}</span></div>\n"
        for key, value in tiles
        if value
    )
    return f"""<h1>{name}: what the network learned</h1>
<p class=soft>{epochs}{best} everything below is measured with its weights on {measures["images"]} of {found.listed}
validation images.</p>
{warning}<div class=tiles>
{shown}</div>
<p class=soft>Below each number stands its 95% interval: where the true value may lie, with no more images than
these.{optimistic}</p>
"""


def _curves(facts):
    best = best_record(facts.log)["epoch"]
    figures = [
        _figure(
            facts,
            "loss",
            *plots.loss_curve(facts.log, best),
            "The loss in each epoch (counted from 0): on the training images while the network was learning from them, "
            "on the validation images at the end of it.",
        ),
        _figure(
            facts,
            "accuracy",
            *plots.accuracy_curve(facts.log, best),
            "The share of right answers, at the same times: early epochs may well have training below validation. "
            "Training far above it: the network learns the images by heart.",
        ),
    ]
    return f"<h2>How it learned</h2>\n<div class=figures>\n{''.join(figures)}</div>\n"


def _measures(facts):
    found, measures = facts.found, facts.found.measures
    several = "classes" in measures
    matrix = _figure(
        facts,
        "confusion",
        *plots.confusion(measures, facts.classes),
        "A row for each true class, a column for each answer: what lies off the diagonal is wrong.",
        wide=several,
    )
    if several:
        figures, table = [matrix], _class_table(measures, facts.classes)
    else:
        labels = found.predictions.labels.flatten().astype("int64")
        probabilities = metrics.probabilities_of(found.predictions.logits.flatten())
        figures = [*_binary_figures(facts, labels, probabilities, measures), matrix]
        table = ""
    return f"""<h2>How good it is</h2>
{_measure_table(measures, facts)}{table}<div class=figures>
{"".join(figures)}</div>
"""


def _binary_figures(facts, labels, probabilities, measures):
    reliability = _figure(
        facts,
        "calibration",
        *plots.calibration(labels, probabilities, measures),
        "Of the images called positive with 80%, are 80% positive? On the dotted line: yes. The numbers are images; "
        "a point of few tells little.",
    )
    if measures["auc"] is None:
        lacking = "<p>Without images of both classes there is neither a ROC nor a precision-recall curve.</p>\n"
        return [lacking, reliability]
    ranking = _figure(
        facts,
        "roc",
        *plots.roc(labels, probabilities, measures),
        "Sensitivity against false alarms, for every threshold: the further to the upper left, the better.",
    )
    finding = _figure(
        facts,
        "precision_recall",
        *plots.precision_recall(labels, probabilities, measures),
        "How many alarms are right (precision), against how many of the positives are found (recall).",
    )
    return [ranking, finding, reliability]


LABELS = {
    "auc": "AUC",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "brier": "Brier score",
}
MEANING = {
    "accuracy": "right answers, of all",
    "loss": "mean cross-entropy, in nats",
    "auc": "how often a positive image ranks above a negative one",
    "average_precision": "area under the precision-recall curve",
    "sensitivity": "of the positives, those found",
    "specificity": "of the negatives, those called negative",
    "ppv": "of those called positive, the positives",
    "npv": "of those called negative, the negatives",
    "brier": "mean squared error of the probability; 0 is best",
    "calibration_error": "how far probabilities are from shares of positives, on average",
}
GROUPS = {"N": "normal eyes", "H": "high myopia without pathology"}


def _label(key):
    return LABELS.get(key, key.replace("_", " "))


def _measure_table(measures, facts):
    rows = [(_label(key), measures[key], meaning) for key, meaning in MEANING.items() if key in measures]
    for letter, value in measures.get("negatives", {}).items():
        rows.append((f"specificity on {letter}", value, GROUPS[letter]))
    table = _table(
        ("measure", "value", "95% interval"),
        [(f"{label}<small>{meaning}</small>", _value(value), _interval(value)) for label, value, meaning in rows],
    )
    at, bootstrap = "", ""
    if "threshold" in measures:
        at = (
            f"<p>An image counts as positive ({_class(facts, 1)}) where its probability is above "
            f"{measures['threshold']:.6g}.</p>\n"
        )
        bootstrap = ", that of the AUC comes from a stratified bootstrap"
    return f"{at}{table}<p class=soft>Intervals of shares are Wilson's{bootstrap}.</p>\n"


def _class_table(measures, classes):
    columns = ("precision", "recall", "f1")
    rows = [
        (escape(str(name)), *(f"{row[column]:.3f}" for column in columns), row["support"])
        for name, row in zip(classes, measures["classes"])
    ]
    return (
        f"{_table(('class', *columns, 'images'), rows)}"
        "<p class=soft>Precision: of the images called so, those that are; recall: of those that are, those called so; "
        "f1: the harmonic mean of the two. 0 also where no image was called so, or none is.</p>\n"
    )


def _table(heads, rows):
    """A table. heads: of its columns, all but the first of numbers; rows: lists of their cells, as HTML or numbers."""
    first, *others = heads
    head = "".join(f"<th scope=col class=number>{name}</th>" for name in others)
    body = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>\n"
        for name, *cells in rows
    )
    return (
        f"<div class=scroll><table>\n<thead><tr><th scope=col>{first}</th>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _value(value):
    value = value["value"] if isinstance(value, dict) else value
    return "undefined" if value is None else f"{value:.4f}"


def _interval(value):
    return f"{value['low']:.3f} to {value['high']:.3f}" if isinstance(value, dict) else ""


def _mistakes(facts):
    rows = [row for row in image_rows(facts.found) if row["Label"] != row["predicted"]]
    if not rows:
        return "<h2>Where it is wrong</h2>\n<p>On none of these images.</p>\n"
    rows.sort(key=_confidence, reverse=True)
    maps = [_heat_map(facts, row) for row in rows[:MISTAKES]]
    shown = "".join(_mistake(facts, row, heat) for row, heat in zip(rows, maps))
    which = "Those that it was most sure of come first."
    if len(rows) > MISTAKES:
        which = f"These are the {MISTAKES} that it was most sure of."
    beside = (
        " Beside each stands the same with its heat map (Grad-CAM): red is where the network found what speaks for its"
    )
    beside = f"{beside}\nwrong answer." if any(heat is not None for heat in maps) else ""
    return f"""<h2>Where it is wrong</h2>
<p>On {len(rows)} of {facts.found.measures["images"]} images. {which}{beside}</p>
<div class=pairs>
{shown}</div>
"""


def _confidence(row):
    """How sure the network was of its answer: below 0 where only the threshold made it that one."""
    if "logit" not in row:
        return row["probability"]
    return row["logit"] if row["predicted"] else -row["logit"]


def _heat_map(facts, row):
    """What speaks for the answer, as `grad_cam` gives it; None for a network without convolutions."""
    try:
        return grad_cam(facts.model, facts.valid.load_input(row["imgName"]), label=row["predicted"])
    except InputError:
        return None


def _mistake(facts, row, heat):
    name, answer = escape(str(row["imgName"])), _class(facts, row["predicted"])
    photo = thumbnail(facts.valid.load_image(row["imgName"]), THUMBNAIL)
    pictures = img_tag(photo, f"The image {name}.")
    if heat is not None:
        pictures += img_tag(overlay(photo, heat), f"The same with the heat map of the answer {answer}.")
    what = f"{name}: labelled {_class(facts, row['Label'])}, called {answer}"
    chance = f"probability {row['probability']:.4f}" + (" of being positive" if "logit" in row else "")
    return f"<figure><div class=pair>{pictures}</div><figcaption>{what}; {chance}.</figcaption></figure>\n"


def _class(facts, number):
    return escape(str(facts.classes[number]))


def _data(facts):
    counts = [Counter(loader.labels) for loader in (facts.train, facts.valid)]
    numbers = range(len(facts.classes))
    rows = [(_class(facts, number), *(count[number] for count in counts)) for number in numbers]
    together = ("together", *(sum(count.values()) for count in counts))
    return f"""<h2>The data</h2>
{_table(("images", "training", "validation"), [*rows, together])}<p>Some training images of each class:</p>
<div class=photos>
{"".join(_examples(facts, number) for number in numbers)}</div>
"""


def _examples(facts, number):
    names = sorted(name for name, label in zip(facts.train.order, facts.train.labels) if label == number)
    shown = names[:: max(1, len(names) // EXAMPLES)][:EXAMPLES]  # from all over the list of names
    return "".join(
        f"<figure>{img_tag(photo, f'A training image: {_class(facts, number)}.')}"
        f"<figcaption>{escape(str(name))}: {_class(facts, number)}</figcaption></figure>\n"
        for name, photo in ((name, thumbnail(facts.train.load_image(name), THUMBNAIL)) for name in shown)
    )


def _settings(facts):
    settings = dict(facts.settings)
    versions = settings.pop("versions", {})
    settings.pop("classes", None)
    rows = {**settings, **{f"version of {name}": version for name, version in versions.items()}}
    body = "".join(
        f"<tr><th scope=row>{escape(key.replace('_', ' '))}</th><td>{escape(_plain(value))}</td></tr>\n"
        for key, value in rows.items()
        if value is not None
    )
    return f"<h2>How it was made</h2>\n<table>\n<tbody>\n{body}</tbody></table>\n"


def _plain(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " to ".join(map(str, value))
    return str(value)


def _figure(facts, name, figure, text, caption, wide=False):
    """A <figure> of a matplotlib Figure, which also goes to figures/NAME.png."""
    figures.write_png(figure, facts.directory / FIGURES / f"{name}.png", dpi=150, facecolor="white")
    drawing = _svg(figure, name, text)
    return f"<figure{' class=wide' if wide else ''}>\n{drawing}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _svg(figure, name, text):
    """The figure as an <svg> within the page: in its colours and type, every id its own."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with figures.import_matplotlib().rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), figures.any_letters():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for colour, variable in ((plots.INK, "ink"), (plots.FIRST, "first"), (plots.SECOND, "second")):
        drawing = drawing.replace(colour, f"var(--{variable})")
    head, _, rest = drawing.partition(">")
    view = re.search(r'viewBox="[^"]+"', head)[0]
    return f'<svg role="img" aria-label="{escape(text)}" {view}>{rest}'
