"""Checks of what the metrics are computed from; each returns its argument as an array or raises InputError."""

import numpy as np

from palm_cls.core.errors import InputError


def check_binary_labels(labels):
    """Return labels 0 and 1 as int64 [N]."""
    labels = np.ravel(labels)
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels are 0 or 1 for two classes, and some of these are not; correct them")
    return labels.astype("int64")


def check_class_numbers(labels, num_classes):
    """Return class numbers from 0 to num_classes - 1 as int64 [N]."""
    labels = np.ravel(labels)
    if not np.isin(labels, range(num_classes)).all():
        raise InputError(f"some labels are no class numbers from 0 to {num_classes - 1}, the columns of the logits")
    return labels.astype("int64")


def check_scores(scores):
    """Return one finite score per image as a floating-point array [N]."""
    scores = check_finite(scores)
    if scores.size != len(scores):
        raise InputError(f"scores of shape {scores.shape}: give one number for each image, [N] or [N, 1]")
    return scores.ravel()


def check_probabilities(probabilities):
    """Return one probability per image as a floating-point array [N]."""
    probabilities = check_scores(probabilities)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError("some probabilities are not from 0 to 1; convert logits with a sigmoid first")
    return probabilities


def check_finite(scores):
    """Return finite scores as an array of their own floating-point type, else float64."""
    scores = np.atleast_1d(scores)
    scores = scores if scores.dtype.kind == "f" else scores.astype("float64")
    if not np.isfinite(scores).all():
        raise InputError(
            f"{(~np.isfinite(scores)).sum()} of {scores.size} scores are NaN or infinite; metrics need finite scores"
        )
    return scores


def check_same_length(*columns):
    """Check that the columns are of the same images, at least one."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise InputError(f"{lengths} entries: give one entry for each image in all columns, of the same images")
    if not lengths[0]:
        raise InputError("there are no images to measure; give at least one")
