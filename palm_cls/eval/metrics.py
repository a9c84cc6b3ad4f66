"""Metrics of a network's predictions, with the uncertainty that the number of images leaves.

    metrics = binary_metrics(labels, logits)      # int [N] of 0 and 1, float [N]
    print(format_metrics(metrics))

The functions take NumPy arrays and return dictionaries of Python's own int, float, str and None, ready for JSON. A
metric with an uncertainty is {"value", "low", "high"}, the last two a 95% interval. An undefined metric is None, such
as the specificity without a negative.

scikit-learn and SciPy are imported on first use; paddle and OpenCV are not needed.
"""

import statistics

import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.eval.auc import CONFIDENCE, auc_interval
from palm_cls.eval.metric_inputs import (
    check_binary_labels,
    check_probabilities,
    check_same_length,
    check_scores,
)

NEGATIVES = ("N", "H")  # first letters of the course's negatives: normal, and high but not pathological myopia


def is_positive(probabilities, threshold=0.5):
    """Return whether an image counts as positive: its probability is above, not at, the threshold.

    Args:
        probabilities: Of class 1: a number, an array or a tensor.
        threshold: A probability.

    Returns:
        bool, in the shape of the probabilities.
    """
    return probabilities > threshold


def check_threshold(num_classes, threshold):
    """Raise InputError for a threshold other than 0.5 of more than two classes."""
    if threshold != 0.5 and num_classes > 2:
        raise InputError(
            f"a threshold separates two classes; this network has {num_classes} and predicts the most probable one"
        )


def positive_probabilities(logits):
    """Compute the probabilities of the positive class from its logits.

    Computed in the precision of the logits, as in the lesson: a float32 logit of 1e-9 is a probability of exactly 0.5.

    Args:
        logits: float, of any shape.

    Returns:
        float64 in the same shape.
    """
    from scipy.special import expit

    return expit(np.asarray(logits)).astype("float64")


def binary_metrics(labels, logits, names=None, threshold=0.5, seed=0):
    """Compute all metrics of a network with one logit.

    Args:
        labels: 0 or 1, [N] or [N, 1].
        logits: Finite floats, [N] or [N, 1].
        names: N file names, or None.
        threshold: Images are called positive above this probability (see `is_positive`).
        seed: Of the bootstrap.

    Returns:
        A dictionary:

        - images, positive: number of images, and of those labelled 1; threshold: as given
        - loss: mean sigmoid cross-entropy, in nats
        - accuracy, sensitivity, specificity, ppv, npv (predictive values): with Wilson's interval
        - auc: area under the ROC curve, with a bootstrap interval; average_precision
        - brier: mean squared error of the probabilities; calibration_error: see `calibration_error`
        - confusion: {"tp", "fp", "fn", "tn"}, numbers of images
        - negatives: {"N", "H"}, the specificity on normal and on highly myopic eyes; only if the names of all negatives
          begin with one of these letters

    Raises:
        InputError: The arguments do not fit each other, or a logit is not finite.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix

    labels, logits = check_binary_labels(labels), check_scores(logits)
    check_same_length(labels, logits)
    probabilities = positive_probabilities(logits)
    predicted = is_positive(probabilities, threshold).astype("int64")
    tn, fp, fn, tp = confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist()
    metrics = {
        "images": len(labels),
        "positive": tp + fn,
        "threshold": float(threshold),
        "loss": _sigmoid_cross_entropy(labels, logits),
        "accuracy": wilson_interval(tp + tn, len(labels)),
        "auc": auc_interval(labels, [logits], seed),
        "average_precision": float(average_precision_score(labels, logits)) if tp + fn else None,
        "sensitivity": wilson_interval(tp, tp + fn),
        "specificity": wilson_interval(tn, tn + fp),
        "ppv": wilson_interval(tp, tp + fp),
        "npv": wilson_interval(tn, tn + fn),
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)),
        "calibration_error": calibration_error(reliability_bins(labels, probabilities)),
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }
    negatives = _specificity_by_letter(labels, predicted, names)
    return {**metrics, "negatives": negatives} if negatives else metrics


def _sigmoid_cross_entropy(labels, logits):
    # From the logits: the logarithm of a probability that rounds to 0 or 1 is useless, and sklearn's log_loss clips it.
    from scipy.special import log_expit

    return float(-log_expit(np.where(labels == 1, 1.0, -1.0) * logits).mean())


def wilson_interval(count, total):
    """Compute a proportion with Wilson's score interval (JASA 22, 1927).

    Args:
        count: int, of the total.
        total: int.

    Returns:
        {"value", "low", "high"}; None if the total is 0.
    """
    from scipy.stats import binomtest

    if not total:
        return None
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return {"value": count / total, "low": float(interval.low), "high": float(interval.high)}


def _specificity_by_letter(labels, predicted, names):
    """Return {letter: specificity on negatives whose names begin with it}, or None for other names."""
    if names is None:
        return None
    check_same_length(labels, names)
    letters = np.array([str(name)[:1] for name in names])[labels == 0]
    correct = predicted[labels == 0] == 0
    if not len(letters) or not np.isin(letters, NEGATIVES).all():
        return None
    return {
        letter: wilson_interval(int(correct[letters == letter].sum()), int((letters == letter).sum()))
        for letter in NEGATIVES
    }


def reliability_bins(labels, probabilities, bins=10):
    """Sort images into bins of equal width by their probability, for a reliability diagram.

    A probability on the border of two bins is in the lower one, as in scikit-learn's calibration_curve (which does not
    return the number of images, and takes no single class).

    Args:
        labels: 0 or 1, [N].
        probabilities: float [N] in 0..1.
        bins: Their number.

    Returns:
        A list of {"probability": mean, "positive": share of positives, "images": number}, by increasing probability,
        without empty bins.
    """
    labels, probabilities = check_binary_labels(labels), check_probabilities(probabilities).astype("float64")
    check_same_length(labels, probabilities)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    return [
        {
            "probability": float(probabilities[index == bin].mean()),
            "positive": float(labels[index == bin].mean()),
            "images": int((index == bin).sum()),
        }
        for bin in np.unique(index)
    ]


def calibration_error(bins):
    """Compute the expected calibration error of `reliability_bins`, in 0..1.

    It is the mean distance, weighted by images, between the mean probability of a bin and its share of positives (Guo
    et al., On calibration of modern neural networks, ICML 2017; here for the positive class, not for the predicted
    one).
    """
    distances = [bin["images"] * abs(bin["probability"] - bin["positive"]) for bin in bins]
    return sum(distances) / sum(bin["images"] for bin in bins)


def threshold_for_sensitivity(labels, probabilities, sensitivity):
    """Find the largest threshold with at least this share of the positives above it.

    It is the next number below the probability of a positive, in the floating-point type of the probabilities: rounding
    it may give another threshold. Images with the same probability are above the threshold together, so that ties may
    raise the share. If a positive of probability 0 is needed, the threshold is below 0.

    Args:
        labels: 0 or 1, [N].
        probabilities: float [N] in 0..1; those of `positive_probabilities` if `binary_metrics` is to find the same
            images above the threshold.
        sensitivity: Above 0, at most 1.

    Returns:
        float.

    Raises:
        InputError: There is no positive, or the sensitivity is out of range.
    """
    labels, probabilities = check_binary_labels(labels), check_probabilities(probabilities)
    check_same_length(labels, probabilities)
    if not 0 < sensitivity <= 1:
        raise InputError(f"a sensitivity of {sensitivity} is not possible; give a number above 0, at most 1")
    positives = np.sort(probabilities[labels == 1])[::-1]
    if not len(positives):
        raise InputError(f"none of the {len(labels)} images is positive; a sensitivity needs at least one")
    shares = np.arange(1, len(positives) + 1) / len(positives)  # not ceil(sensitivity * P), which is off by rounding
    last = positives[np.argmax(shares >= sensitivity)]
    return float(np.nextafter(last, -np.inf, dtype=last.dtype))


def mcnemar(labels, first, second):
    """Test whether one of two networks is right more often on the same images.

    McNemar's test, exact and two-sided (Psychometrika 12, 1947).

    Args:
        labels: True class numbers [N].
        first: Class numbers that one network predicted, [N].
        second: Those of the other network, [N].

    Returns:
        {"only_first_right", "only_second_right": numbers of images, "p"}; p is 1 if both are right on the same images.
    """
    from scipy.stats import binomtest

    labels, first, second = (np.ravel(classes) for classes in (labels, first, second))
    check_same_length(labels, first, second)
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p": p}


def summarize(values):
    """Summarize a metric of several runs.

    Args:
        values: Numbers; None (undefined) is left out.

    Returns:
        {"mean", "sd", "low", "high", "n"}: sd is the sample's standard deviation (n - 1), None for fewer than two
        values; low and high are the smallest and the largest value. Without a value, everything but n is None.
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
