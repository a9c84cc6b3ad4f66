"""The figures of a report: curves of a run's log, and its predictions on the validation images.

Each function returns (figure, text): a matplotlib Figure, and a sentence that describes it to those who cannot see it.
Imports neither paddle nor cv2.
"""

import textwrap

import numpy as np

from palm_cls.core.console import text_width
from palm_cls.core.figures import escape_text, import_matplotlib
from palm_cls.eval.metrics import reliability_bins

# A report replaces these colours by those of the page, light or dark; PNG files keep them.
INK, FIRST, SECOND = "#1b1f23", "#0072b2", "#d55e00"
SIZE = (4.6, 3.7)  # inches
SIZE_MULTICLASS = (5.4, 4.9)  # no larger, or a phone shrinks the numbers until nobody can read them
CURVES = [(colour, style) for style in ("-", "--") for colour in (FIRST, SECOND, INK)]  # of classes, in order
MAX_CURVES = len(CURVES)
MAX_OPACITY = 0.65  # of a cell of the confusion matrix that holds a whole row
MAX_NUMBERED = 20  # classes; the numbers of images in a larger matrix would run into each other
MAX_TICKS = 25  # classes named beside a confusion matrix
NAME_WIDTH = 18  # letters of a class's name that fit on a line beside an axis
MAX_LINE = 40  # letters of all names that fit on a line below a confusion matrix
MAX_MARKERS = 30  # epochs; the markers of more would run into each other


def loss_curve(log, best):
    """Plot the loss of each epoch.

    Args:
        log: As `read_log` returns it.
        best: Number of the epoch whose weights are kept.

    Returns:
        (figure, text).
    """
    return _curve(log, best, "loss")


def accuracy_curve(log, best):
    """Plot the accuracy of each epoch; arguments as for `loss_curve`."""
    return _curve(log, best, "accuracy")


def _curve(log, best, kind):
    figure, axis = _axes("epoch", kind)
    from matplotlib.ticker import MaxNLocator  # after matplotlib itself, see `import_matplotlib`

    epochs = [record["epoch"] for record in log]
    size = 5 if len(epochs) <= MAX_MARKERS else 0
    parts = []
    for name, key, colour, marker in (("training", "train", FIRST, "o"), ("validation", "valid", SECOND, "s")):
        values = [record[f"{key}_{kind}"] for record in log]
        axis.plot(epochs, values, color=colour, marker=marker, markersize=size, label=name)
        parts.append(f"{name} from {values[0]:.3f} to {values[-1]:.3f}")
    axis.axvline(best, color=INK, alpha=0.5, linestyle=":", label="best epoch")
    if len(epochs) == 1:
        axis.set_xlim(best - 0.5, best + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend(axis)
    return figure, f"The {kind} over {len(log)} epoch{'s' if len(log) > 1 else ''}: {', '.join(parts)}."


def roc_curve(labels, probabilities, metrics):
    """Plot the ROC curve with the chosen threshold on it.

    Args:
        labels: int [N], with both 0 and 1.
        probabilities: float [N].
        metrics: Those of `binary_metrics`.

    Returns:
        (figure, text).
    """
    from sklearn.metrics import roc_curve

    figure, axis = _axes("1 - specificity", "sensitivity")
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, probabilities)
    axis.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle=":", label="by chance")
    axis.plot(false_positive_rate, true_positive_rate, color=FIRST, label="the network")
    point = 1 - metrics["specificity"]["value"], metrics["sensitivity"]["value"]
    axis.plot(*point, "o", color=SECOND, markersize=8, label=_threshold(metrics))
    _legend(axis)
    return figure, "The ROC curve: area {value:.3f}, 95% interval {low:.3f} to {high:.3f}.".format(**metrics["auc"])


def precision_recall_curve(labels, probabilities, metrics):
    """Plot the precision-recall curve with the chosen threshold on it; arguments as for `roc_curve`."""
    from sklearn.metrics import precision_recall_curve

    figure, axis = _axes("recall (sensitivity)", "precision (PPV)")
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    share = metrics["positive"] / metrics["images"]
    axis.axhline(share, color=INK, alpha=0.5, linestyle=":", label="by chance")
    axis.step(recall, precision, where="post", color=FIRST, label="the network")
    if metrics["ppv"]:
        point = metrics["sensitivity"]["value"], metrics["ppv"]["value"]
        axis.plot(*point, "o", color=SECOND, markersize=8, label=_threshold(metrics))
    axis.set_ylim(0, 1.03)
    _legend(axis)
    return figure, f"The precision-recall curve: average precision {metrics['average_precision']:.3f}."


def class_roc_curves(labels, probabilities, metrics, classes):
    """Plot the ROC curve of each class against all others.

    Args:
        labels: int [N].
        probabilities: float [N, C], C at most MAX_CURVES.
        metrics: Those of `multiclass_metrics`; a class without AUC is left out.
        classes: Names of the classes, in order.

    Returns:
        (figure, text).
    """
    from sklearn.metrics import roc_curve

    figure, axis = _axes("1 - specificity", "sensitivity")
    axis.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle=":", label="by chance")
    areas = []
    for number, ((colour, style), row) in enumerate(zip(CURVES, metrics["classes"])):
        if row["auc"] is None:
            continue
        false_positive_rate, true_positive_rate, _ = roc_curve(labels == number, probabilities[:, number])
        name = _shorten(str(classes[number]), lines=1)
        name = f" {name}" if name.startswith("_") else name  # which would hide it from the legend
        axis.plot(false_positive_rate, true_positive_rate, color=colour, linestyle=style, label=name)
        areas.append(f"{classes[number]} {row['auc']['value']:.3f}")
    _legend(axis, columns=2)
    return figure, f"The ROC curve of each class against all others; areas: {', '.join(areas)}."


def reliability_diagram(labels, probabilities, metrics, positives="positives"):
    """Plot the share of positives against the probability.

    Args:
        labels, probabilities, metrics: As for `roc_curve`; of several classes, whether the answer is right and the
            probability of the answer.
        positives: What the positives are called.

    Returns:
        (figure, text).
    """
    bins = reliability_bins(labels, probabilities)
    figure, axis = _axes("mean predicted probability", f"share of {_shorten(positives, lines=1)}")
    axis.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle=":", label="calibrated")
    predicted, positive, images = ([bin[key] for bin in bins] for key in ("probability", "positive", "images"))
    axis.plot(predicted, positive, color=FIRST, alpha=0.6)
    areas = 25 + 400 * np.array(images) / sum(images)
    axis.scatter(predicted, positive, areas, color=FIRST)
    axis.plot([], [], "o", color=FIRST, label="the network")  # in the legend, of the same size in every report
    for x, y, count in zip(predicted, positive, images):
        axis.annotate(str(count), (x, y), (0, 11), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axis.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.12))
    _legend(axis)
    return figure, f"The reliability diagram: calibration error {metrics['calibration_error']:.3f}."


def confusion_matrix(metrics, classes):
    """Plot the confusion matrix, a row for each true class, shaded by its share.

    Args:
        metrics: Those of `binary_metrics` or `multiclass_metrics`.
        classes: Names of the classes, in order.

    Returns:
        (figure, text).
    """
    counts = _counts(metrics)
    multiclass = len(classes) > 2
    names = [_shorten(str(name), lines=1 if multiclass else 2) for name in classes]
    figure, axis = _axes("predicted", "labelled", SIZE_MULTICLASS if multiclass else SIZE)
    _fill_matrix(axis, counts)
    axis.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    crowded = multiclass and len(names) * max(map(text_width, names)) > MAX_LINE
    slanted = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"} if crowded else {}
    ticks = range(0, len(names), -(-len(names) // MAX_TICKS))
    axis.set_xticks(ticks, [names[number] for number in ticks], **slanted)
    axis.set_yticks(ticks, [names[number] for number in ticks])
    axis.grid(False)
    correct = int(np.trace(counts))
    return figure, f"The confusion matrix: {correct} of {counts.sum()} images on the diagonal, called what they are."


def _fill_matrix(axis, counts):
    """Shade the cells of a confusion matrix, int [C, C], and write the numbers into them."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbered = len(counts) <= MAX_NUMBERED
    fontsize = 15 if len(counts) == 2 else 13 if len(counts) <= 5 else 9
    for row, column in np.ndindex(counts.shape) if numbered else np.argwhere(counts):
        colour = FIRST if row == column else SECOND
        axis.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour, linewidth=0)
        axis.collections[-1].set_alpha(MAX_OPACITY * shares[row, column])
        if numbered:
            axis.text(column, row, counts[row, column], ha="center", va="center", color=INK, fontsize=fontsize)


def _counts(metrics):
    counts = metrics["confusion"]
    if isinstance(counts, dict):
        counts = [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]]
    return np.array(counts)


def _shorten(name, lines):
    """Wrap the name of a class so that it fits beside an axis."""
    name = escape_text(name)
    width = NAME_WIDTH * len(name) // max(1, text_width(name))
    wrapped = textwrap.wrap(name, width, max_lines=lines, placeholder=" ...") if name else []
    return "\n".join(wrapped if wrapped != ["..."] else [f"{name[: width - 3]}..."])  # of one long word


def _threshold(metrics):
    return f"threshold {metrics['threshold']:.3g}"


def _legend(axis, columns=3):
    """Put the legend above the axes, where it hides nothing."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=columns, frameon=False, labelcolor=INK)


def _axes(xlabel, ylabel, size=SIZE):
    figure = import_matplotlib().figure.Figure(size, layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(xlabel, color=INK)
    axis.set_ylabel(ylabel, color=INK)
    axis.tick_params(color=INK, labelcolor=INK)
    axis.grid(color=INK, alpha=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(INK)
    return figure, axis
