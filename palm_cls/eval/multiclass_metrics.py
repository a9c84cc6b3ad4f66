"""Metrics of a network with a logit for each of several classes, in the manner of `palm_cls.eval.metrics`.

    metrics = multiclass_metrics(labels, logits)  # int [N], float [N, C]
    print(format_metrics(metrics))

Each class is measured against all others together; `one_vs_rest_aucs` has the bootstrap of the AUCs.
"""

import numpy as np

from palm_cls.core.errors import InputError
from palm_cls.eval.auc import RESAMPLES, one_vs_rest_aucs, percentile_interval
from palm_cls.eval.metric_inputs import check_class_numbers, check_finite, check_same_length
from palm_cls.eval.metrics import calibration_error, reliability_bins, wilson_interval


def class_probabilities(logits):
    """Compute the probabilities of the classes from their logits.

    Args:
        logits: Floats [N, C].

    Returns:
        float64 [N, C], the softmax; rows sum to 1.
    """
    from scipy.special import softmax

    return softmax(np.asarray(logits, "float64"), axis=1)


def multiclass_metrics(labels, logits, names=None, ordered=False, seed=0):
    """Compute all metrics of a network with a logit for each class.

    The predicted class is the one of the largest logit, the first of several such.

    Args:
        labels: Class numbers, [N] or [N, 1].
        logits: Finite floats [N, C], C at least 2.
        names: Of the classes, C str, or None.
        ordered: Whether the classes are grades, in order; adds kappa.
        seed: Of the bootstrap.

    Returns:
        A dictionary:

        - images: number of images; loss: mean softmax cross-entropy, in nats; accuracy: with Wilson's interval
        - auc: mean of the AUCs of the classes, with a bootstrap interval; None if one of them is undefined
        - kappa: quadratic weighted kappa, with a bootstrap interval; only if ordered
        - brier: squared errors of the probabilities, summed over the classes, mean over the images; in 0..2
        - calibration_error: see `calibration_error`; of the probability of the predicted class, and whether it is right
        - classes: a list of {"class", "sensitivity", "specificity", "precision", "auc", "f1", "support"}, each class
          against all others: the shares with Wilson's interval, the AUC with a bootstrap interval; f1 is 0 where
          undefined, as in scikit-learn's tables; with "name" if the names are not just the numbers
        - confusion: a list of lists, a row for each true class, a column for each predicted class

    Raises:
        InputError: The arguments do not fit each other, or a logit is not finite.
    """
    from sklearn.metrics import confusion_matrix

    labels, logits = _check(labels, logits, names)
    number = np.arange(logits.shape[1])
    predicted, probabilities = logits.argmax(axis=1), class_probabilities(logits)
    correct = predicted == labels
    mean_auc, aucs = one_vs_rest_aucs(labels, _log_odds(logits), seed)
    confusion = confusion_matrix(labels, predicted, labels=number)
    return {
        "images": len(labels),
        "loss": _softmax_cross_entropy(labels, logits),
        "accuracy": wilson_interval(int(correct.sum()), len(labels)),
        "auc": mean_auc,
        **({"kappa": _kappa_interval(confusion, seed)} if ordered else {}),
        "brier": float(((probabilities - (labels[:, None] == number)) ** 2).sum(axis=1).mean()),
        "calibration_error": calibration_error(reliability_bins(correct, probabilities.max(axis=1))),
        "classes": _class_table(confusion, aucs, names),
        "confusion": confusion.tolist(),
    }


def _check(labels, logits, names):
    """Return labels as int64 [N] and logits as float64 [N, C]."""
    logits = check_finite(logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"logits of shape {logits.shape}: give [N, C], a column for each class, of two at least")
    count = logits.shape[1]
    labels = check_class_numbers(labels, count)
    check_same_length(labels, logits)
    if names is not None and len(names) != count:
        raise InputError(f"{len(names)} class names for {count} logits: give a name for each class")
    return labels, logits.astype("float64")


def _softmax_cross_entropy(labels, logits):
    # From the logits: the logarithm of a probability that rounds to 0 or 1 is useless, and sklearn's log_loss clips it.
    from scipy.special import log_softmax

    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _log_odds(logits):
    """Return log(p / (1 - p)) for the probability p of each class, float64 [N, C].

    Images are ranked by these: the order is that of the probabilities, which tie where they round to 1.
    """
    from scipy.special import logsumexp

    # From the largest logit, and the others sorted: what is equal but for rounding then ties.
    logits = logits - logits.max(axis=1, keepdims=True)
    others = (np.sort(np.delete(logits, number, axis=1), axis=1) for number in range(logits.shape[1]))
    return logits - np.stack([logsumexp(columns, axis=1) for columns in others], axis=1)


def _kappa_interval(confusion, seed):
    """Compute the quadratic weighted kappa with its bootstrap interval.

    Cohen's kappa with disagreements weighted by the square of the distance between the grades (Cohen, Psychological
    Bulletin 70, 1968). The bootstrap draws images, that is, cells of the confusion matrix, not stratified.

    Args:
        confusion: int [C, C].
        seed: Of the random numbers.

    Returns:
        {"value", "low", "high"}; None if all images are of one class and predicted so, where kappa is undefined.
    """
    images, number = confusion.sum(), np.arange(len(confusion))
    weights = (number[:, None] - number) ** 2
    drawn = np.random.default_rng(seed).multinomial(images, confusion.ravel() / images, RESAMPLES)
    counts = np.concatenate([confusion[None], drawn.reshape(-1, *confusion.shape)])  # [1 + RESAMPLES, C, C]
    observed = images * (counts * weights).sum(axis=(1, 2))
    by_chance = ((counts.sum(axis=2) @ weights) * counts.sum(axis=1)).sum(axis=1)
    if not by_chance[0]:
        return None
    defined = by_chance > 0  # a resample of one class only is left out
    return percentile_interval(1 - observed[defined] / by_chance[defined])


def _class_table(confusion, aucs, names):
    """Return the list of dictionaries "classes" of `multiclass_metrics`."""
    images = int(confusion.sum())
    named = names is not None and list(names) != [str(number) for number in range(len(confusion))]
    table = []
    for number, auc in enumerate(aucs):
        found, support, called = (
            int(count) for count in (confusion[number, number], confusion[number].sum(), confusion[:, number].sum())
        )
        row = {
            "class": number,
            **({"name": names[number]} if named else {}),
            "sensitivity": wilson_interval(found, support),
            "specificity": wilson_interval(images - support - called + found, images - support),
            "precision": wilson_interval(found, called),
            "auc": auc,
            "f1": 2 * found / (support + called) if support + called else 0.0,
            "support": support,
        }
        table.append(row)
    return table
