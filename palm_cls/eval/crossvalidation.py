"""The results of a cross-validation: read, measured with their uncertainty, compared. Imports neither paddle nor cv2.

A metric is computed once for each seed, on the out-of-fold predictions of all images together, and averaged over the
seeds. Its standard error and its interval come from a bootstrap that draws the groups of images, each with all of its
images. How much the seed matters is a second standard error, of the mean over the seeds.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_files import (
    CROSSVALIDATION,
    PREDICTIONS,
    fold_directory,
    read_crossvalidation_settings,
)
from palm_cls.core.console import format_table
from palm_cls.core.errors import InputError
from palm_cls.core.files import write_json
from palm_cls.data.data_root import DEMO_DISCLAIMER
from palm_cls.data.options import stored_classes
from palm_cls.eval.auc import CONFIDENCE, RESAMPLES, resampled_aucs
from palm_cls.eval.predictions_file import (
    FOLD_TABLE,
    HELD_OUT,
    damaged,
    image_probabilities,
    predicted_classes,
    prediction_row,
    read_fold_table,
    read_held_out,
    write_exactly,
)

RESULTS = "results.json"
VIEWS = {1: "one view", 8: "eight views"}  # of an image, over which its probabilities are averaged
METRICS = {"accuracy": "accuracy", "auc": "AUC", "loss": "log loss"}


@dataclass(frozen=True)
class CrossValidation:
    """The out-of-fold predictions of N images.

    Attributes:
        directory: Path of the cross-validation.
        content: Content of its crossvalidation.json.
        names: N file names, sorted.
        labels: int [N], class numbers.
        groups: int [N], the group of each image.
        folds: int [N], the fold of each image.
        logits: {number of views: float [seeds, N]}, or float [seeds, N, C] of C classes, three or more.
    """

    directory: Path
    content: dict
    names: list
    labels: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    logits: dict

    @property
    def num_groups(self):
        """Number of groups."""
        return len(set(self.groups.tolist()))

    @property
    def classes(self):
        """Names of the classes."""
        return stored_classes(self.content)


def read_crossvalidation(directory):
    """Read the predictions of a finished cross-validation.

    Args:
        directory: Its directory.

    Returns:
        A CrossValidation.

    Raises:
        InputError: There is none, it is not finished, or a file is damaged.
    """
    content = read_crossvalidation_settings(directory)
    if not content:
        raise InputError(f"{directory}: no cross-validation there (no {CROSSVALIDATION} in it)")
    num_classes = len(stored_classes(content))
    table = read_fold_table(directory, content["folds"], num_classes)
    names = [row["imgName"] for row in table]
    labels, groups, folds = (np.array([row[key] for row in table]) for key in ("Label", "group", "fold"))
    logits = {views: [] for views in VIEWS}
    for seed in content["seeds"]:
        rows = {}
        for fold in range(content["folds"]):
            own = read_held_out(fold_directory(directory, seed, fold), num_classes)
            expected = {row["imgName"]: row["Label"] for row in table if row["fold"] == fold}
            if {name: row["Label"] for name, row in own.items()} != expected:
                file = fold_directory(directory, seed, fold) / HELD_OUT
                raise damaged(file, f"its images or labels are not those of fold {fold} in {FOLD_TABLE}")
            rows.update(own)
        for views in VIEWS:
            logits[views].append([rows[name][views] for name in names])
    logits = {views: np.array(values, "float32") for views, values in logits.items()}
    return CrossValidation(Path(directory), content, names, labels, groups, folds, logits)


def format_fold(rows, seconds):
    """Format the line of a fold: its metrics with one view."""
    labels = np.array([row["Label"] for row in rows.values()])
    logits = np.array([row[1] for row in rows.values()], "float32")
    found = _metrics_of(labels, logits, np.ones((1, len(labels)), "int64"))
    numbers = ", ".join(f"{name} {found[key][0]:.4f}" for key, name in METRICS.items())
    return f"{len(labels)} images, {numbers} ({seconds:.0f} s)"


def _metrics_of(labels, logits, draws):
    """Compute {metric: float [draws]} of one seed's logits [N] or [N, C] on images drawn so often, int [draws, N].

    Of three classes or more, the AUC is the mean of those of each class against all others.
    """
    from scipy.special import log_expit, log_softmax

    probabilities, totals = image_probabilities(logits), draws.sum(axis=1)
    correct = predicted_classes(probabilities) == labels
    if logits.ndim == 1:
        losses = -log_expit(np.where(labels == 1, 1.0, -1.0) * logits)
        scores = {1: logits}
    else:
        losses = -log_softmax(logits.astype("float64"), axis=1)[np.arange(len(labels)), labels]
        scores = dict(enumerate(probabilities.T))
    return {
        "accuracy": draws @ correct / totals,
        "auc": np.mean([resampled_aucs(labels == number, column, draws) for number, column in scores.items()], axis=0),
        "loss": draws @ losses / totals,
    }


def _resample(result):
    """Compute, for each number of views, every metric of each seed.

    Returns:
        ({views: {metric: float [seeds]}}, {views: {metric: float [draws]}}): the metrics on all images, and their means
        over the seeds on resampled groups, the same for all views.
    """
    _, group = np.unique(result.groups, return_inverse=True)
    number = group.max() + 1
    drawn = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), RESAMPLES)[:, group]
    everything = np.ones((1, len(group)), "int64")
    on_all, on_drawn = {}, {}
    for views, logits in result.logits.items():
        values = [_metrics_of(result.labels, row, everything) for row in logits]
        resampled = [_metrics_of(result.labels, row, drawn) for row in logits]
        on_all[views] = {key: np.array([value[key][0] for value in values]) for key in METRICS}
        on_drawn[views] = {key: np.mean([value[key] for value in resampled], axis=0) for key in METRICS}
    return on_all, on_drawn


def measure(result):
    """Compute all metrics of a CrossValidation.

    Returns:
        {number of views: {"accuracy", "auc", "loss": metric}}, each metric {"value": the mean over the seeds, "low" and
        "high": its 95% interval over groups of images, "se": its standard error over them, "seeds": the value of each
        seed, "se_seeds": the standard error over the seeds, None for one}.
    """
    on_all, on_drawn = _resample(result)
    return {
        views: {key: _summary(on_all[views][key], on_drawn[views][key]) for key in METRICS} for views in result.logits
    }


def _summary(seeds, drawn):
    low, high = np.nanpercentile(drawn, (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE))
    return {
        "value": float(np.mean(seeds)),
        "low": float(low),
        "high": float(high),
        "se": float(np.nanstd(drawn)),
        "seeds": seeds.tolist(),
        "se_seeds": _standard_error(seeds) if len(seeds) > 1 else None,
    }


def mean_probabilities(result, views=1):
    """Return the `image_probabilities` of all images, the mean over the seeds: float [N] or [N, C]."""
    return np.mean([image_probabilities(logits) for logits in result.logits[views]], axis=0)


def write_results(result):
    """Write predictions.csv and results.json of a CrossValidation into its directory; return its metrics."""
    rows = [
        {"seed": seed, "fold": int(fold), "group": int(group), **prediction_row(name, label, *logits)}
        for seed, by_views in zip(result.content["seeds"], zip(*result.logits.values()))
        for name, label, fold, group, *logits in zip(
            result.names, result.labels, result.folds, result.groups, *by_views
        )
    ]
    write_exactly(rows, result.directory / PREDICTIONS)
    found = measure(result)
    metrics_of_views = {VIEWS[views].replace(" ", "_"): found[views] for views in found}
    write_json({**result.content, "images": len(result.names), "metrics": metrics_of_views}, result.directory / RESULTS)
    return found


def format_comparison(results):
    """Format cross-validations as a table, best first by log loss.

    Args:
        results: CrossValidations of the same images, labels and folds.

    Returns:
        Text.

    Raises:
        InputError: Images, labels or folds differ.
    """
    first = results[0]
    for result in results[1:]:
        _check_same_folds(first, result)
    candidates = [candidate for result in results for candidate in _candidates(result, len(results) > 1)]
    candidates.sort(key=lambda candidate: candidate[1]["loss"].mean())
    best, *others = candidates
    lines = [
        f"{first.content['folds']} folds of {len(first.names)} images in {first.num_groups} groups",
        *format_table([("", *METRICS.values(), "seeds"), *map(_row, candidates)]),
        "",
        "Less the first, on the same images:",
        *format_table([("", *METRICS.values()), *(_difference_row(best, other) for other in others)]),
        "",
        "± the standard error over the images, by groups; (that of the mean over the seeds)",
    ]
    return "\n".join(lines + ([DEMO_DISCLAIMER] if first.content["demo"] else []))


def _candidates(result, named):
    """Return (label, metrics on all images, metrics on drawn ones) for each number of views, see `_resample`."""
    on_all, on_drawn = _resample(result)
    prefix = f"{result.directory}, " if named else ""
    return [(prefix + text, on_all[views], on_drawn[views]) for views, text in VIEWS.items()]


def _row(candidate):
    label, on_all, on_drawn = candidate
    cells = [_with_errors(_summary(on_all[key], on_drawn[key])) for key in METRICS]
    return (label, *cells, str(len(on_all["loss"])))


def _difference_row(best, other):
    label, on_all, on_drawn = other
    cells = []
    for key in METRICS:
        difference = on_all[key].mean() - best[1][key].mean()
        text = f"{difference:+.4f} ± {np.nanstd(on_drawn[key] - best[2][key]):.4f}"
        if len(on_all[key]) == len(best[1][key]) > 1:
            text += f" ({_standard_error(on_all[key] - best[1][key]):.4f})"
        cells.append(text)
    return (label, *cells)


def _standard_error(values):
    return statistics.stdev(values) / len(values) ** 0.5


def _with_errors(metric):
    seeds = "" if metric["se_seeds"] is None else f" ({metric['se_seeds']:.4f})"
    return f"{metric['value']:.4f} ± {metric['se']:.4f}{seeds}"


def _check_same_folds(first, second):
    for what in ("names", "labels", "classes", "folds", "groups"):
        if list(getattr(first, what)) != list(getattr(second, what)):
            raise InputError(
                f"{first.directory} and {second.directory} have other {what}; only results on the same folds of the "
                "same images can be compared"
            )
