"""What a network's answers are worth: accuracy, sensitivity, AUC, calibration, and how certain the numbers are.

    measures = binary_measures(labels, logits)      # int [N] of 0 and 1, float [N]
    print(format_measures(measures))

NumPy arrays in; out come dictionaries of Python's own int, float, str and None, ready for JSON. A measure with an
uncertainty is {"value", "low", "high"}, the last two a 95% interval; one that these images do not define (the
specificity without a negative, the positive predictive value where nothing was called positive) is None. Arguments that
do not fit each other raise InputError.

The measures are scikit-learn's and SciPy's, which are imported when first needed. Imports neither paddle nor OpenCV.
"""

import statistics

import numpy as np

from palm_cls.core.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap; with the seed, an interval's ends then vary by a sixtieth of its width
BLOCK = 4_000_000  # numbers that are drawn at a time: 32 MB, however many images there are
NEGATIVES = ("N", "H")  # first letters of the course's negatives: normal, and high but not pathological myopia


def binary_measures(labels, logits, names=None, threshold=0.5, seed=0):
    """All measures of a network with one logit, on images whose labels are known.

    labels: 0 or 1, [N] or [N, 1]; logits: float [N] or [N, 1], finite. An image is called positive where its
    probability is above `threshold`, not at it (the lesson's rule). names: N file names, or None; seed: of the
    bootstrap.

    Returns a dictionary:

    - images, positive: numbers of images, and of those labelled 1; threshold: as given
    - loss: the mean sigmoid cross-entropy, in nats
    - accuracy, sensitivity, specificity, ppv, npv (the predictive values): with Wilson's interval
    - auc: the area under the ROC curve, with a bootstrap interval; average_precision
    - brier: the mean squared error of the probabilities; calibration_error: see `calibration_error`
    - confusion: {"tp", "fp", "fn", "tn"}, numbers of images
    - negatives: {"N", "H"}, the specificity on the normal and on the highly myopic eyes; only there where the names of
      all negatives begin with one of these letters
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix

    labels, logits = _binary_labels(labels), _scores(logits)
    _same_length(labels, logits)
    probabilities = probabilities_of(logits)
    predicted = (probabilities > threshold).astype("int64")
    tn, fp, fn, tp = confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist()
    measures = {
        "images": len(labels),
        "positive": tp + fn,
        "threshold": float(threshold),
        "loss": _sigmoid_cross_entropy(labels, logits),
        "accuracy": _proportion(tp + tn, len(labels)),
        "auc": _auc_interval(labels, [logits], seed),
        "average_precision": float(average_precision_score(labels, logits)) if tp + fn else None,
        "sensitivity": _proportion(tp, tp + fn),
        "specificity": _proportion(tn, tn + fp),
        "ppv": _proportion(tp, tp + fp),
        "npv": _proportion(tn, tn + fn),
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)),
        "calibration_error": calibration_error(calibration(labels, probabilities)),
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }
    negatives = _negatives(labels, predicted, names)
    return {**measures, "negatives": negatives} if negatives else measures


def probabilities_of(logits):
    """The probabilities of the positive class, float64 in the shape of the logits.

    Computed in the precision of the logits, as in the lesson: a float32 logit of 1e-9 is a probability of exactly 0.5.
    """
    from scipy.special import expit

    return expit(np.asarray(logits)).astype("float64")


def _sigmoid_cross_entropy(labels, logits):
    # From the logits: a probability that rounds to 0 or 1 has no logarithm worth having, and log_loss would clip it.
    from scipy.special import log_expit

    return float(-log_expit(np.where(labels == 1, 1.0, -1.0) * logits).mean())


def _proportion(part, whole):
    """`part` of `whole` with Wilson's score interval (JASA 22, 1927); None for a part of nothing."""
    from scipy.stats import binomtest

    if not whole:
        return None
    interval = binomtest(part, whole).proportion_ci(CONFIDENCE, method="wilson")
    return {"value": part / whole, "low": float(interval.low), "high": float(interval.high)}


def _negatives(labels, predicted, names):
    """{letter: specificity on the negatives whose names begin with it}, or None where others are among them."""
    if names is None:
        return None
    _same_length(labels, names)
    letters = np.array([str(name)[:1] for name in names])[labels == 0]
    right = predicted[labels == 0] == 0
    if not len(letters) or not np.isin(letters, NEGATIVES).all():
        return None
    return {
        letter: _proportion(int(right[letters == letter].sum()), int((letters == letter).sum())) for letter in NEGATIVES
    }


def _auc_interval(labels, scores, seed):
    """The AUC with its bootstrap interval; of two score vectors the first's AUC less the second's.

    labels: int [N]; scores: list of one or two float [N]. None where a class is missing. Positives and negatives are
    drawn apart (a stratified bootstrap), the same images for both score vectors, and the interval is between
    percentiles (Efron & Tibshirani 1993, chapter 13). It has no width where the classes are separated without a fault,
    and is too narrow with a handful of images in a class: what was not seen is not drawn.
    """
    order = np.lexsort(scores)  # the same draws in whatever order the images came
    labels, scores = labels[order], [vector[order] for vector in scores]
    sizes = int((labels == 1).sum()), int((labels == 0).sum())
    if 0 in sizes:
        return None
    aucs_of = [_auc_of_draws(vector[labels == 1], vector[labels == 0]) for vector in scores]

    def statistic(*draws):
        first, *second = (aucs(*draws) for aucs in aucs_of)
        return first - second[0] if second else first

    everything = [np.ones((1, size), "int64") for size in sizes]
    resampled = np.concatenate([statistic(*draws) for draws in _draws(sizes, seed)])
    low, high = np.percentile(resampled, (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE))
    return {"value": float(statistic(*everything)[0]), "low": float(low), "high": float(high)}


def auc(labels, scores):
    """The area under the ROC curve alone, exact and without its interval; None where a class is missing.

    labels: 0 or 1, [N] or [N, 1]; scores: float [N] or [N, 1], finite.
    """
    labels, scores = _binary_labels(labels), _scores(scores)
    _same_length(labels, scores)
    classes = [scores[labels == label] for label in (1, 0)]
    if not all(map(len, classes)):
        return None
    return float(_auc_of_draws(*classes)(*(np.ones((1, len(members)), "int64") for members in classes))[0])


def _auc_of_draws(positives, negatives):
    """The function from draws, int [draws, P] and [draws, N] (how often each image was drawn), to AUCs, float [draws].

    positives: float [P], negatives: float [N], their scores. The AUC is the share of the pairs of a positive and a
    negative in which the positive has the higher score; a tie counts one half (Mann & Whitney 1947).
    """
    order = np.argsort(negatives)
    below = np.searchsorted(negatives[order], positives, "left")  # [P], how many negatives each positive beats
    not_above = np.searchsorted(negatives[order], positives, "right")

    def aucs(drawn_positives, drawn_negatives):
        counts = np.cumsum(drawn_negatives[:, order], axis=1)
        counts = np.pad(counts, ((0, 0), (1, 0)))  # [draws, N + 1]
        twice_won = (drawn_positives * (counts[:, below] + counts[:, not_above])).sum(axis=1)
        return twice_won / (2 * len(positives) * len(negatives))

    return aucs


def _draws(sizes, seed):
    """RESAMPLES draws with replacement, a block at a time: for each class int64 [block, size], how often each came."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // sum(sizes))
    for start in range(0, RESAMPLES, block):
        draws = min(block, RESAMPLES - start)
        yield [generator.multinomial(size, np.full(size, 1 / size), draws) for size in sizes]


def calibration(labels, probabilities, bins=10):
    """The reliability diagram: its bins of equal width in which there are images, from the lowest up.

    labels: 0 or 1, [N]; probabilities: float [N] in [0, 1]. A probability on the border of two bins is in the lower
    one, as in scikit-learn's calibration_curve. Returns a list of {"probability": their mean, "positive": the share of
    positives, "images": their number}.
    """
    labels, probabilities = _binary_labels(labels), _probabilities(probabilities).astype("float64")
    _same_length(labels, probabilities)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    return [
        {
            "probability": float(probabilities[index == bin].mean()),
            "positive": float(labels[index == bin].mean()),
            "images": int((index == bin).sum()),
        }
        for bin in np.unique(index)
    ]


def calibration_error(diagram):
    """The expected calibration error of a `calibration`, in [0, 1].

    That is how far, on average over the images, the mean probability of a bin is from its share of positives (Guo et
    al., On calibration of modern neural networks, ICML 2017; here of the positive class's probability, not of the
    winning one's).
    """
    off = [bin["images"] * abs(bin["probability"] - bin["positive"]) for bin in diagram]
    return sum(off) / sum(bin["images"] for bin in diagram)


def threshold_for_sensitivity(labels, probabilities, sensitivity):
    """The largest threshold with at least the share `sensitivity` of the positives above it.

    It is the next number, in the floating-point type of the probabilities, below the probability of a positive: rounded
    to a few digits it may be another threshold.

    labels: 0 or 1, [N]; probabilities: float [N] in [0, 1], of `probabilities_of` if `binary_measures` is to find the
    same images above it; sensitivity in (0, 1]. Images of the same probability are above the threshold together, so
    that with ties the share may be larger than asked for. Where a positive of probability 0 is needed, the threshold is
    below 0 and everything above it. InputError where there is no positive.
    """
    labels, probabilities = _binary_labels(labels), _probabilities(probabilities)
    _same_length(labels, probabilities)
    if not 0 < sensitivity <= 1:
        raise InputError(f"a sensitivity of {sensitivity} cannot be asked for: give a number above 0, at most 1")
    positives = np.sort(probabilities[labels == 1])[::-1]
    if not len(positives):
        raise InputError(f"none of the {len(labels)} images is positive: no threshold for a sensitivity without one")
    shares = np.arange(1, len(positives) + 1) / len(positives)  # not ceil(sensitivity * P), which is off by rounding
    last = positives[np.argmax(shares >= sensitivity)]
    return float(np.nextafter(last, -np.inf, dtype=last.dtype))


def class_measures(labels, logits, names=None):
    """The measures of a network with a logit for each class.

    labels: class numbers, [N] or [N, 1]; logits: float [N, C], finite; names: of the classes, C str, or None. Returns a
    dictionary: images; loss, the mean softmax cross-entropy in nats; accuracy with Wilson's interval; classes, a list
    of {"class", "precision", "recall", "f1", "support"} with 0 for what is undefined, as is usual for tables of this
    kind, and "name" where that is not the number; and confusion, a list of lists: a row for each true class, a column
    for each predicted one.
    """
    from scipy.special import log_softmax
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    logits = _finite(logits)
    if logits.ndim != 2:
        raise InputError(f"logits [N, C] are expected, a column for each class; they are of shape {logits.shape}")
    count = logits.shape[1]
    labels = _class_numbers(labels, count)
    _same_length(labels, logits)
    predicted = logits.argmax(axis=1)
    losses = -log_softmax(logits.astype("float64"), axis=1)[np.arange(len(labels)), labels]
    table = precision_recall_fscore_support(labels, predicted, labels=range(count), zero_division=0)
    classes = [
        {"class": number, "precision": precision, "recall": recall, "f1": f1, "support": support}
        for number, (precision, recall, f1, support) in enumerate(zip(*(column.tolist() for column in table)))
    ]
    if names is not None and list(names) != [str(number) for number in range(count)]:
        classes = [{**row, "name": name} for row, name in zip(classes, names)]
    return {
        "images": len(labels),
        "loss": float(losses.mean()),
        "accuracy": _proportion(int((predicted == labels).sum()), len(labels)),
        "classes": classes,
        "confusion": confusion_matrix(labels, predicted, labels=range(count)).tolist(),
    }


def mcnemar(labels, first, second):
    """Is one of two networks right more often, on the same images? McNemar's test, exact (Psychometrika 12, 1947).

    labels, first, second: class numbers [N], the true ones and those that the two predicted. Returns
    {"only_first_right", "only_second_right": numbers of images, "p": two-sided}. p is 1 where they are right on the
    same images.
    """
    from scipy.stats import binomtest

    labels, first, second = (np.ravel(classes) for classes in (labels, first, second))
    _same_length(labels, first, second)
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p": p}


def paired_auc_difference(labels, first, second, seed=0):
    """How much larger the AUC of one network is than that of another, on the same images: {"value", "low", "high"}.

    labels: 0 or 1, [N]; first, second: float [N], logits or other scores. The interval is that of a bootstrap that
    draws images, each with both its scores. None where a class is missing.
    """
    labels, first, second = _binary_labels(labels), _scores(first), _scores(second)
    _same_length(labels, first, second)
    return _auc_interval(labels, [first, second], seed)


def mean_and_range(values):
    """{"mean", "sd", "low", "high", "n"} of a measure over several runs; low and high are the smallest and the largest.

    values: numbers, or None for an undefined measure, which is left out: n tells how many there were. sd is the
    sample's standard deviation (n - 1), None for fewer than two; with no number at all everything but n is None.
    """
    values = [float(value) for value in values if value is not None]
    if not values:
        return {"mean": None, "sd": None, "low": None, "high": None, "n": 0}
    mean = statistics.mean(values)  # exactly rounded: never outside the range, as NumPy's may be
    return {
        "mean": mean,
        # Without the mean given, Python 3.9 fails an assertion of its own on the smallest of numbers.
        "sd": statistics.stdev(values, mean) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
        "n": len(values),
    }


def format_measures(measures):
    """A dictionary of measures as aligned lines for people: `accuracy            0.9250  (0.8800 to 0.9540)`.

    measures: of `binary_measures` or `class_measures`, as `assess` gives them. Returns a str.
    """
    lines = []
    for name, value in measures.items():
        name = {"negatives": "specificity on"}.get(name, name.replace("_", " "))
        if isinstance(value, dict) and "value" not in value:
            lines += [_line(f"{name} {key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            lines += _table(name, value)
        else:
            lines.append(_line(name, value))
    return "\n".join(lines)


def _line(name, value):
    if isinstance(value, dict):
        text = "{}  ({} to {})".format(*(_number(value[key]) for key in ("value", "low", "high")))
    else:
        text = _number(value)
    return f"{name:<19} {text}"


def _table(name, rows):
    """A list of dictionaries (their keys become the heading) or of lists, under the name."""
    heading = [list(rows[0])] if isinstance(rows[0], dict) else []
    rows = [list(row.values()) if isinstance(row, dict) else row for row in rows]
    cells = [[_number(cell) for cell in row] for row in heading + rows]
    widths = [max(9, *map(len, column)) for column in zip(*cells)]
    return [name, *("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in cells)]


def _number(value):
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _binary_labels(labels):
    labels = np.ravel(labels)
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels are 0 or 1; these have others among them")
    return labels.astype("int64")


def _class_numbers(labels, count):
    labels = np.ravel(labels)
    if not np.isin(labels, range(count)).all():
        raise InputError(f"labels are class numbers from 0 to {count - 1}; these have others among them")
    return labels.astype("int64")


def _scores(scores):
    scores = _finite(scores)
    if scores.size != len(scores):
        raise InputError(f"one number for each image is expected; these are of shape {scores.shape}")
    return scores.ravel()


def _probabilities(probabilities):
    probabilities = _scores(probabilities)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError("probabilities are from 0 to 1; these have others among them")
    return probabilities


def _finite(scores):
    """Scores as a floating-point array, of their own precision if they have one."""
    scores = np.atleast_1d(scores)
    scores = scores if scores.dtype.kind == "f" else scores.astype("float64")
    if not np.isfinite(scores).all():
        raise InputError(
            f"{(~np.isfinite(scores)).sum()} of {scores.size} scores are NaN or infinite: no measure of them"
        )
    return scores


def _same_length(*columns):
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise InputError(f"one entry for each image is expected, of the same images; there are {lengths}")
    if not lengths[0]:
        raise InputError("there are no images to measure")
