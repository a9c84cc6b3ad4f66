"""The page of a cross-validation: report.html, with its figures. Its text is in crossvalidation.html.jinja."""

import datetime
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_files import FIGURES, REPORT
from palm_cls.core.console import DISCLAIMER
from palm_cls.core.files import TEXT, atomic_write
from palm_cls.core.html import load_template, thumbnail
from palm_cls.data.data_root import DEMO_DISCLAIMER
from palm_cls.eval import plots
from palm_cls.eval.crossvalidation import METRICS, mean_probabilities
from palm_cls.eval.metrics import binary_metrics, calibration_error, reliability_bins
from palm_cls.eval.predictions_file import predicted_classes
from palm_cls.eval.report import THUMBNAIL, shown_settings
from palm_cls.eval.report_figures import write_figure

TEMPLATE = Path(__file__).with_name("crossvalidation.html.jinja")
MAX_MISTAKES = 16  # shown


def write_page(result, metrics, loader):
    """Write report.html and figures/*.png into the directory of a cross-validation.

    Args:
        result: CrossValidation.
        metrics: Those of `palm_cls.eval.crossvalidation.measure`.
        loader: The ImageLoader of its images.

    Returns:
        The Path of report.html.
    """
    content, probabilities = result.content, mean_probabilities(result)
    wrong = np.flatnonzero(predicted_classes(probabilities) != result.labels)
    sureness = abs(probabilities - 0.5) if probabilities.ndim == 1 else probabilities.max(axis=1)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")]
    page = load_template(TEMPLATE).render(
        name=content["model"],
        num_images=len(result.names),
        num_folds=content["folds"],
        num_groups=result.num_groups,
        num_seeds=len(content["seeds"]),
        seeds=content["seeds"],
        epochs=content["epochs"],
        rule=content["groups"],
        weights=content.get("weights"),
        names=METRICS,
        metrics=metrics,
        disclaimer=DISCLAIMER,
        demo_remark=f"{DEMO_DISCLAIMER[1:-1].capitalize()}." if content["demo"] else "",
        figures={
            name: write_figure(result.directory / FIGURES, name, *plot)
            for name, plot in _plots(result, probabilities, loader.classes, metrics[1]["auc"]).items()
        },
        num_mistakes=len(wrong),
        mistakes=[_mistake(result, probabilities, loader, index) for index in wrong[:MAX_MISTAKES]],
        settings=shown_settings({**content, "seeds": ", ".join(map(str, content["seeds"]))}),
        written=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
    )
    with atomic_write(result.directory / REPORT) as temporary:
        temporary.write_text(page, **TEXT)
    return result.directory / REPORT


def _plots(result, probabilities, classes, auc):
    """Return {name: (figure, text)}; of two classes, described by the AUC of the page."""
    if probabilities.ndim == 2:
        return _multiclass_plots(result.labels, probabilities, classes)
    from scipy.special import logit

    metrics = binary_metrics(result.labels, logit(np.clip(probabilities, 1e-12, 1 - 1e-12)))
    metrics["auc"] = auc  # its interval is by groups
    figures = {"roc": plots.roc_curve, "calibration": plots.reliability_diagram}
    return {name: plot(result.labels, probabilities, metrics) for name, plot in figures.items()}


def _multiclass_plots(labels, probabilities, classes):
    from sklearn.metrics import confusion_matrix

    predicted, highest = predicted_classes(probabilities), probabilities.max(axis=1)
    correct = predicted == labels
    metrics = {
        "confusion": confusion_matrix(labels, predicted, labels=range(len(classes))),
        "calibration_error": calibration_error(reliability_bins(correct, highest)),
    }
    return {
        "confusion": plots.confusion_matrix(metrics, classes),
        "calibration": plots.reliability_diagram(correct, highest, metrics, "right answers"),
    }


def _mistake(result, probabilities, loader, index):
    name, probability, answer = result.names[index], probabilities[index], None
    if probabilities.ndim == 2:
        answer, probability = loader.classes[probability.argmax()], probability.max()
    return {
        "name": name,
        "label": loader.classes[result.labels[index]],
        "answer": answer,  # of three classes or more; of two, the probability of the positive one says it
        "probability": probability,
        "photo": thumbnail(loader.load_image(name), THUMBNAIL),
    }
