"""The figures of a report: what a run's log and its answers on the validation images look like.

Each function but the last two returns (figure, text): a matplotlib Figure, and a sentence that tells what it shows to
those who cannot see it. Imports neither paddle nor cv2.
"""

import textwrap

import numpy as np

from palm_cls.core.figures import escape_text, import_matplotlib
from palm_cls.eval import metrics

# In a report these colours give way to those of the page, light or dark; in a PNG file they stand as they are.
INK, FIRST, SECOND = "#1b1f23", "#0072b2", "#d55e00"
SIZE = (4.6, 3.7)  # inches
SIZE_OF_MANY = (5.4, 4.9)  # of more than two classes: no larger, or a phone shrinks the numbers until nobody reads them
PAINTED = 0.65  # opacity of a cell of the confusion matrix that holds a whole row
NAME = 18  # letters of a class's name that fit on a line beside an axis
MARKED = 30  # epochs; the markers of more would run into each other


def loss_curve(log, best):
    """The loss of each epoch. log: as `read_log` gives it; best: the number of the epoch whose weights were kept."""
    return _curve(log, best, "loss")


def accuracy_curve(log, best):
    """The accuracy of each epoch, as `loss_curve`."""
    return _curve(log, best, "accuracy")


def _curve(log, best, kind):
    figure, axis = _axes("epoch", kind)
    from matplotlib.ticker import MaxNLocator  # after matplotlib itself, see `import_matplotlib`

    epochs = [record["epoch"] for record in log]
    size = 5 if len(epochs) <= MARKED else 0
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


def roc(labels, probabilities, measures):
    """The ROC curve, with the chosen threshold on it.

    labels: int [N], both 0 and 1 among them; probabilities: float [N]; measures: those of `binary_measures`.
    """
    from sklearn.metrics import roc_curve

    figure, axis = _axes("1 - specificity", "sensitivity")
    alarms, hits, _ = roc_curve(labels, probabilities)
    axis.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle=":", label="by chance")
    axis.plot(alarms, hits, color=FIRST, label="the network")
    point = 1 - measures["specificity"]["value"], measures["sensitivity"]["value"]
    axis.plot(*point, "o", color=SECOND, markersize=8, label=_threshold(measures))
    _legend(axis)
    return figure, "The ROC curve: area {value:.3f}, 95% interval {low:.3f} to {high:.3f}.".format(**measures["auc"])


def precision_recall(labels, probabilities, measures):
    """The precision-recall curve, with the chosen threshold on it; arguments as for `roc`."""
    from sklearn.metrics import precision_recall_curve

    figure, axis = _axes("recall (sensitivity)", "precision (PPV)")
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    share = measures["positive"] / measures["images"]
    axis.axhline(share, color=INK, alpha=0.5, linestyle=":", label="by chance")
    axis.step(recall, precision, where="post", color=FIRST, label="the network")
    if measures["ppv"]:
        point = measures["sensitivity"]["value"], measures["ppv"]["value"]
        axis.plot(*point, "o", color=SECOND, markersize=8, label=_threshold(measures))
    axis.set_ylim(0, 1.03)
    _legend(axis)
    return figure, f"The precision-recall curve: average precision {measures['average_precision']:.3f}."


def calibration(labels, probabilities, measures):
    """The reliability diagram; arguments as for `roc`, but one class is enough."""
    diagram = metrics.calibration(labels, probabilities)
    figure, axis = _axes("mean predicted probability", "share of positives")
    axis.plot([0, 1], [0, 1], color=INK, alpha=0.5, linestyle=":", label="calibrated")
    predicted, found, images = ([bin[key] for bin in diagram] for key in ("probability", "positive", "images"))
    axis.plot(predicted, found, color=FIRST, alpha=0.6)
    areas = 25 + 400 * np.array(images) / sum(images)
    axis.scatter(predicted, found, areas, color=FIRST)
    axis.plot([], [], "o", color=FIRST, label="the network")  # in the legend, of the same size in every report
    for x, y, count in zip(predicted, found, images):
        axis.annotate(str(count), (x, y), (0, 11), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axis.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.12))
    _legend(axis)
    return figure, f"The reliability diagram: calibration error {measures['calibration_error']:.3f}."


def confusion(measures, classes):
    """The confusion matrix: a row for each true class, shaded by its share. classes: their names, in order."""
    counts = _matrix(measures)
    many = len(classes) > 2
    names = [_short(str(name), lines=1 if many else 2) for name in classes]
    figure, axis = _axes("predicted", "labelled", SIZE_OF_MANY if many else SIZE)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(counts.shape):
        colour = FIRST if row == column else SECOND
        axis.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour, linewidth=0)
        axis.collections[-1].set_alpha(PAINTED * shares[row, column])
        axis.text(column, row, counts[row, column], ha="center", va="center", color=INK, fontsize=9 if many else 15)
    axis.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    crowded = many and max(map(len, names)) > 2
    slanted = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"} if crowded else {}
    axis.set_xticks(range(len(names)), names, **slanted)
    axis.set_yticks(range(len(names)), names)
    axis.grid(False)
    right = int(np.trace(counts))
    return figure, f"The confusion matrix: {right} of {counts.sum()} images on the diagonal, called what they are."


def _matrix(measures):
    counts = measures["confusion"]
    if isinstance(counts, dict):
        counts = [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]]
    return np.array(counts)


def _short(name, lines):
    """A class's name as it fits beside an axis."""
    return "\n".join(textwrap.wrap(escape_text(name), NAME, max_lines=lines, placeholder=" ..."))


def _threshold(measures):
    return f"threshold {measures['threshold']:.3g}"


def _legend(axis):
    """Above the axes, where it hides nothing."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3, frameon=False, labelcolor=INK)


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
