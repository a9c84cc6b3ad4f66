"""The area under the ROC curve, its bootstrap interval, the difference of two, and the areas of several classes.

The bootstrap is our own: scipy.stats.bootstrap with a vectorized statistic of ranks takes twice as long, because each
resample is sorted again, and its samples depend on the order of the images.
"""

import itertools

import numpy as np

from palm_cls.eval.metric_inputs import check_binary_labels, check_same_length, check_scores

CONFIDENCE = 0.95
RESAMPLES = 2000  # with another seed, the ends of an interval move by about a sixtieth of its width
BLOCK = 4_000_000  # numbers drawn at a time: 32 MB, however many images there are


def auc(labels, scores):
    """Compute the exact AUC without an interval.

    Args:
        labels: 0 or 1, [N] or [N, 1].
        scores: Finite floats, [N] or [N, 1].

    Returns:
        A float in 0..1; None if a class is missing.
    """
    labels, scores = check_binary_labels(labels), check_scores(scores)
    check_same_length(labels, scores)
    classes = [scores[labels == label] for label in (1, 0)]
    if not all(map(len, classes)):
        return None
    return float(_auc_of_draws(*classes)(*(np.ones((1, len(members)), "int64") for members in classes))[0])


def paired_auc_difference(labels, first, second, seed=0):
    """Compute the AUC of one network less that of another on the same images.

    Args:
        labels: 0 or 1, [N].
        first: Logits or other scores of one network, float [N].
        second: Those of the other network, float [N].
        seed: Of the bootstrap, which draws images, each with both scores.

    Returns:
        {"value", "low", "high"} with a 95% interval; None if a class is missing.
    """
    labels, first, second = check_binary_labels(labels), check_scores(first), check_scores(second)
    check_same_length(labels, first, second)
    return auc_interval(labels, [first, second], seed)


def resampled_aucs(labels, scores, draws):
    """Compute the AUC of resampled images.

    Args:
        labels: int [N], 0 and 1.
        scores: float [N].
        draws: int [draws, N], how often each image was drawn.

    Returns:
        float [draws]; NaN where a class is missing.
    """
    classes = labels == 1, labels == 0
    with np.errstate(invalid="ignore"):
        return _auc_of_draws(*(scores[chosen] for chosen in classes))(*(draws[:, chosen] for chosen in classes))


def auc_interval(labels, scores, seed):
    """Compute an AUC, or the difference of two AUCs, with its bootstrap interval.

    The bootstrap is stratified: positives and negatives are drawn separately, the same images for both score vectors.
    The interval is between percentiles (Efron & Tibshirani 1993, chapter 13). Its width is zero for perfectly
    separated classes, and it is too narrow for a handful of images in a class: unseen scores are never drawn.

    Args:
        labels: int [N].
        scores: List of one or two float [N]; of two, the first AUC less the second is computed.
        seed: Of the random numbers.

    Returns:
        {"value", "low", "high"}; None if a class is missing.
    """
    order = np.lexsort(scores)  # so that the draws do not depend on the order of the images
    labels, scores = labels[order], [vector[order] for vector in scores]
    sizes = int((labels == 1).sum()), int((labels == 0).sum())
    if 0 in sizes:
        return None
    auc_functions = [_auc_of_draws(vector[labels == 1], vector[labels == 0]) for vector in scores]

    def statistic(*draws):
        first, *second = (aucs(*draws) for aucs in auc_functions)
        return first - second[0] if second else first

    all_images = [np.ones((1, size), "int64") for size in sizes]
    blocks = itertools.chain([all_images], _draws(sizes, seed))
    return percentile_interval(np.concatenate([statistic(*draws) for draws in blocks]))


def percentile_interval(values):
    """Compute the 95% interval of a bootstrap between percentiles.

    Args:
        values: float [1 + resamples]: the value on all images, then those on resampled ones, without NaN.

    Returns:
        {"value", "low", "high"}.
    """
    low, high = np.percentile(values[1:], (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE))
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def one_vs_rest_aucs(labels, scores, seed=0):
    """Compute the AUC of each class against all others, and their mean, with bootstrap intervals.

    The bootstrap is that of `auc_interval`, with the images of each class drawn separately. All classes share its
    draws, so that the mean of the AUCs has an interval, too.

    Args:
        labels: Class numbers, int [N].
        scores: Finite floats [N, C]: in each column the score of a class.
        seed: Of the random numbers.

    Returns:
        (mean, classes): {"value", "low", "high"}, and a list of C such. The AUC of a class is None if no image or all
        images are of this class; the mean is None if one of the AUCs is.
    """
    order = np.lexsort((*scores.T, labels))  # by class; within it, the draws do not depend on the order of the images
    labels, scores = labels[order], scores[order]
    sizes = np.bincount(labels, minlength=scores.shape[1])
    present = np.flatnonzero(sizes)
    classes = [None] * len(sizes)
    if len(present) < 2:
        return None, classes
    members = [labels == number for number in present]
    auc_functions = [_auc_of_draws(scores[own, i], scores[~own, i]) for i, own in zip(present, members)]

    def statistic(draws):
        drawn = np.concatenate([np.ascontiguousarray(of_class.T) for of_class in draws])  # [N, draws]
        return np.stack([aucs(drawn[own].T, drawn[~own].T) for aucs, own in zip(auc_functions, members)], axis=1)

    all_images = [np.ones((1, size), "int64") for size in sizes[present]]
    # A quarter of the usual block: it takes half as long, and 4 copies are held at a time.
    blocks = itertools.chain([all_images], _draws(sizes[present], seed, copies=4))
    aucs = np.concatenate([statistic(draws) for draws in blocks])
    for number, column in zip(present, aucs.T):
        classes[number] = percentile_interval(column)
    return None if None in classes else percentile_interval(aucs.mean(axis=1)), classes


def _auc_of_draws(positives, negatives):
    """Return the function from draws to AUCs.

    The AUC is the share of pairs of a positive and a negative in which the positive has the higher score; a tie counts
    one half (Mann & Whitney 1947).

    Args:
        positives: Scores, float [P].
        negatives: Scores, float [N].

    Returns:
        A function of int [draws, P] and int [draws, N], how often each image was drawn, that returns float [draws].
    """
    order = np.argsort(negatives)
    below = np.searchsorted(negatives[order], positives, "left")  # [P], number of negatives below each positive
    not_above = np.searchsorted(negatives[order], positives, "right")

    def aucs(drawn_positives, drawn_negatives):
        counts = np.cumsum(drawn_negatives.T[order], axis=0)
        counts = np.pad(counts, ((1, 0), (0, 0)))  # [N + 1, draws]
        twice_won = (drawn_positives.T * (counts[below] + counts[not_above])).sum(axis=0)
        return twice_won / (2 * drawn_positives.sum(axis=1) * counts[-1])

    return aucs


def _draws(sizes, seed, copies=1):
    """Yield draws with replacement: blocks of int64 [block, size] for each class, counts of images.

    Args:
        sizes: Number of images of each class.
        seed: Of the random numbers.
        copies: How many arrays of a block's size the caller holds at a time; blocks are smaller by this factor.
    """
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // (copies * sum(sizes)))
    for start in range(0, RESAMPLES, block):
        draws = min(block, RESAMPLES - start)
        yield [generator.multinomial(size, np.full(size, 1 / size), draws) for size in sizes]
