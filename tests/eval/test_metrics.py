import json
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from helpers import PROJECT
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from palm_cls.core.errors import InputError
from palm_cls.eval import auc as auc_module
from palm_cls.eval.auc import paired_auc_difference
from palm_cls.eval.metrics import (
    binary_metrics,
    calibration_error,
    mcnemar,
    positive_probabilities,
    reliability_bins,
    summarize,
    threshold_for_sensitivity,
)
from palm_cls.eval.metrics_text import format_metrics

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")

# Scores with many ties, as (label, score) of an image; eighths and their probabilities tie exactly.
tied = st.lists(st.tuples(st.integers(0, 1), st.integers(-24, 24).map(lambda n: n / 8)), min_size=1, max_size=30)
# Probabilities with ties, zeros, ones and the smallest numbers there are.
probable = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 5e-324, 0.25, 0.5, 1.0]) | st.floats(0, 1)),
    min_size=1,
    max_size=30,
)


def columns(images):
    return tuple(np.array(column) for column in zip(*images))


def cohort(images=400, seed=1, separation=1.5):
    """Labels, and logits that follow them: int64 and float64 [images]."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(images) < 0.45).astype("int64")
    return labels, generator.normal(separation * labels - separation / 2)


def test_importing_it_is_light():
    heavy = "('paddle', 'cv2', 'sklearn', 'scipy')"
    code = f"import palm_cls.eval.multiclass_metrics, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --- one logit -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(tied, st.sampled_from([0.25, 0.5, 0.8]))
def test_metrics_are_scikit_learns(images, threshold):
    labels, logits = columns(images)
    found = binary_metrics(labels, logits, threshold=threshold)
    probabilities = 1 / (1 + np.exp(-logits))
    predicted = (probabilities > threshold).astype(int)

    def value(name):
        return found[name] and found[name]["value"]

    def share(score, relevant, **options):
        return score(labels, predicted, **options) if relevant.any() else None

    def same(got, expected):
        return got is expected is None or got == pytest.approx(expected, abs=1e-12)

    assert (found["images"], found["positive"], found["threshold"]) == (len(labels), labels.sum(), threshold)
    assert same(value("accuracy"), sk.accuracy_score(labels, predicted))
    assert same(value("sensitivity"), share(sk.recall_score, labels == 1))
    assert same(value("specificity"), share(sk.recall_score, labels == 0, pos_label=0))
    assert same(value("ppv"), share(sk.precision_score, predicted == 1))
    assert same(value("npv"), share(sk.precision_score, predicted == 0, pos_label=0))
    assert same(found["loss"], sk.log_loss(labels, probabilities, labels=[0, 1]))
    assert same(found["brier"], np.mean((probabilities - labels) ** 2))
    both = 0 < labels.sum() < len(labels)
    assert same(value("auc"), sk.roc_auc_score(labels, logits) if both else None)
    assert same(found["average_precision"], sk.average_precision_score(labels, logits) if labels.any() else None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(max_examples=30, deadline=None)
@given(tied)
def test_intervals_contain_their_values(images):
    found = binary_metrics(*columns(images))
    for name in (*PROPORTIONS, "auc"):
        if found[name] is not None:
            assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1


@settings(max_examples=30, deadline=None)
@given(tied)
def test_the_auc_alone_is_that_of_the_metrics(images):
    labels, logits = columns(images)
    measured = binary_metrics(labels, logits)["auc"]
    assert auc_module.auc(labels[:, None], logits[:, None]) == (measured and measured["value"])


@settings(max_examples=20, deadline=None)
@given(tied, st.randoms(use_true_random=True))
def test_the_order_of_the_images_does_not_matter(images, random):
    shuffled = random.sample(images, len(images))
    found, again = binary_metrics(*columns(images)), binary_metrics(*columns(shuffled))
    for name in ("loss", "average_precision", "brier", "calibration_error"):  # sums, in another order
        assert found.pop(name) == pytest.approx(again.pop(name), abs=1e-12)
    assert found == again


# Table I of R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998):
# method 3, the score method without continuity correction.
@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(part, whole, low, high):
    labels, logits = np.ones(whole, int), np.where(np.arange(whole) < part, 1.0, -1.0)
    sensitivity = binary_metrics(labels, logits)["sensitivity"]
    assert sensitivity["value"] == part / whole
    assert (round(sensitivity["low"], 4), round(sensitivity["high"], 4)) == (low, high)


def test_a_probability_at_the_threshold_is_not_above_it():
    labels = [1, 1, 0, 0]
    assert binary_metrics(labels, [0.0, 1e-3, 0.0, -1.0])["confusion"] == {"tp": 1, "fp": 0, "fn": 1, "tn": 2}
    just_above = np.array([1e-9, 1e-3, 0, -1])
    assert binary_metrics(labels, just_above)["confusion"]["tp"] == 2
    assert (
        binary_metrics(labels, just_above.astype("float32"))["confusion"]["tp"] == 1
    )  # as the lesson has it, in float32


def test_the_loss_stands_large_logits():
    assert binary_metrics([1, 0, 1, 0], [-1000.0, 1000.0, 1000.0, -1000.0])["loss"] == 500
    assert binary_metrics([1, 0], np.array([40, -40], "float32"))["loss"] == pytest.approx(math.exp(-40), rel=1e-5)


def test_ranks_are_of_the_logits_where_probabilities_round_to_one():
    found = binary_metrics([0, 1, 1], [40.0, 50.0, 60.0])
    assert (found["auc"]["value"], found["average_precision"]) == (1, 1)


def test_perfect_separation():
    found = binary_metrics([0, 0, 1, 1, 1], [-3.0, -2.0, 2.0, 3.0, 4.0])
    assert found["auc"] == {"value": 1, "low": 1, "high": 1}
    assert all(found[name]["value"] == found[name]["high"] == 1 for name in PROPORTIONS)
    assert 0 < found["accuracy"]["low"] < 1
    assert found["average_precision"] == 1
    assert binary_metrics([1, 1, 0], [-3.0, -2.0, 2.0])["auc"]["value"] == 0


def test_all_the_same_score():
    found = binary_metrics([0, 1, 1, 0, 1], np.full(5, -0.7))
    assert found["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert found["average_precision"] == pytest.approx(3 / 5)
    assert found["ppv"] is None
    assert found["confusion"] == {"tp": 0, "fp": 0, "fn": 3, "tn": 2}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("label", "logit"), [*product((0, 1), (-1.0, 0.0, 1.0))])
@pytest.mark.parametrize("images", [1, 3])
def test_one_class_and_a_single_image(label, logit, images):
    found = binary_metrics(np.full(images, label), np.full(images, logit))
    called = logit > 0
    undefined = {"auc", "specificity" if label else "sensitivity", "npv" if called else "ppv"}
    undefined |= set() if label else {"average_precision"}
    assert {name for name, value in found.items() if value is None} == undefined
    assert found["accuracy"]["value"] == (called == label)
    json.dumps(found, allow_nan=False)


def test_columns_of_the_readers_and_lists_are_taken():
    labels, logits = cohort(30)
    found = binary_metrics(labels.astype("float32")[:, None], logits[:, None])  # as the readers give them
    assert found == binary_metrics(labels.tolist(), logits.tolist()) == binary_metrics(labels == 1, logits)


@pytest.mark.parametrize(
    ("labels", "logits", "words"),
    [
        ([], [], "no images"),
        ([0, 1], [0.5], "of the same images"),
        ([0, 2], [0.5, 0.5], "labels are 0 or 1"),
        ([0, math.nan], [0.5, 0.5], "labels are 0 or 1"),
        ([0, 1], [0.5, math.nan], "1 of 2 scores"),
        ([0, 1], [math.inf, math.nan], "2 of 2 scores"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], "one number for each image"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, logits, words):
    with pytest.raises(InputError, match=words):
        binary_metrics(labels, logits)


# --- the negatives ---------------------------------------------------------------------------------------------------


def test_normal_and_highly_myopic_negatives():
    names = ["N0001.jpg", "P0001.jpg", "H0001.jpg", "N0002.jpg", "H0002.jpg", "N0003.jpg"]
    negatives = binary_metrics([0, 1, 0, 0, 0, 0], [-1.0, 1.0, 1.0, -1.0, -1.0, 1.0], names)["negatives"]
    assert (negatives["N"]["value"], negatives["H"]["value"]) == (2 / 3, 1 / 2)
    wilson = stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert (negatives["N"]["low"], negatives["N"]["high"]) == (wilson.low, wilson.high)
    only_normal = binary_metrics([0, 1], [-1.0, 1.0], ["N0001.jpg", "P0001.jpg"])["negatives"]
    assert (only_normal["N"]["value"], only_normal["H"]) == (1, None)


@pytest.mark.parametrize(
    "names", [None, ["V1.jpg", "N2.jpg", "P3.jpg"], ["N1.jpg", "", "P3.jpg"], ["n1.jpg", "N2.jpg", "P3.jpg"]]
)
def test_negatives_only_where_all_names_have_the_letter(names):
    assert "negatives" not in binary_metrics([0, 0, 1], [0.5, -0.5, 0.5], names)


def test_negatives_without_a_negative_or_with_too_few_names():
    assert "negatives" not in binary_metrics([1, 1], [0.5, -0.5], ["N1.jpg", "N2.jpg"])
    with pytest.raises(InputError, match="of the same images"):
        binary_metrics([0, 1], [0.5, -0.5], ["N1.jpg"])


# --- AUC -------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(tied, st.data())
def test_the_auc_of_a_draw_is_scikit_learns_with_weights(images, data):
    labels, scores = columns(images)
    assume(0 < labels.sum() < len(labels))
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(labels), max_size=len(labels))))
    positives, negatives = weights[labels == 1], weights[labels == 0]
    assume(positives.any() and negatives.any())
    auc = auc_module._auc_of_draws(scores[labels == 1], scores[labels == 0])(positives[None], negatives[None])[0]
    assert auc == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)


def placements(labels, scores):
    """For each positive the share of negatives that it beats, for each negative that of positives that beat it."""
    difference = scores[labels == 1][:, None] - scores[labels == 0]
    wins = (difference > 0) + (difference == 0) / 2
    return wins.mean(axis=1), wins.mean(axis=0)


def delong_error(of_positives, of_negatives):
    """DeLong, DeLong & Clarke-Pearson (Biometrics 44, 1988): the standard error from the placements."""
    return math.sqrt(of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives))


def test_the_bootstrap_is_as_wide_as_delong():
    labels, logits = cohort()
    auc = binary_metrics(labels, logits)["auc"]
    width = 2 * 1.96 * delong_error(*placements(labels, logits))
    assert auc["high"] - auc["low"] == pytest.approx(width, rel=0.1)
    assert auc["value"] == pytest.approx((auc["low"] + auc["high"]) / 2, abs=width / 10)


def test_the_bootstrap_is_scipys():
    labels, logits = cohort(60, separation=1)
    logits = np.round(logits, 1)  # with ties

    def statistic(positives, negatives):
        return np.mean((positives[:, None] > negatives) + (positives[:, None] == negatives) / 2)

    samples = logits[labels == 1], logits[labels == 0]
    scipys = stats.bootstrap(
        samples, statistic, n_resamples=5000, vectorized=False, method="percentile", random_state=0
    )
    auc = binary_metrics(labels, logits)["auc"]
    assert auc["low"] == pytest.approx(scipys.confidence_interval.low, abs=0.015)
    assert auc["high"] == pytest.approx(scipys.confidence_interval.high, abs=0.015)


def test_the_seed_decides_about_the_interval_only():
    labels, logits = cohort(50)
    first, again, other = (binary_metrics(labels, logits, seed=seed)["auc"] for seed in (0, 0, 1))
    assert first == again != other
    assert first["value"] == other["value"]


def test_large_sets_are_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr(auc_module, "BLOCK", 1000)
    draws = list(auc_module._draws((30, 20), seed=0))
    assert [len(positives) for positives, _ in draws] == [20] * 100
    positives, negatives = (np.concatenate(of_class) for of_class in zip(*draws))
    assert (positives.shape, negatives.shape) == ((2000, 30), (2000, 20))
    assert set(positives.sum(axis=1)) == {30}
    assert set(negatives.sum(axis=1)) == {20}
    assert len(np.unique(positives, axis=0)) == 2000  # no block repeats another
    monkeypatch.setattr(auc_module, "BLOCK", 1)
    assert sum(len(positives) for positives, _ in auc_module._draws((3, 2), seed=0)) == 2000


def test_a_paired_difference_is_delongs():
    labels, first = cohort(separation=2)
    second = first + np.random.default_rng(5).normal(size=len(first))
    found = paired_auc_difference(labels, first, second)
    assert found["value"] == pytest.approx(
        sk.roc_auc_score(labels, first) - sk.roc_auc_score(labels, second), abs=1e-12
    )
    pairs = zip(placements(labels, first), placements(labels, second))
    width = 2 * 1.96 * delong_error(*(of_first - of_second for of_first, of_second in pairs))
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.1)
    unpaired = [delong_error(*placements(labels, scores)) for scores in (first, second)]
    assert width < 0.8 * 2 * 1.96 * math.hypot(*unpaired)  # so the test distinguishes paired from unpaired


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20),
    st.randoms(use_true_random=True),
)
def test_paired_differences(images, random):
    labels, first, second = columns(images)
    found = paired_auc_difference(labels, first, second)
    assert found == paired_auc_difference(*columns(random.sample(images, len(images))))
    if labels.all() or not labels.any():
        assert found is None
        return
    assert found["low"] <= found["value"] <= found["high"]
    assert paired_auc_difference(labels, first, first * 2 + 1) == {"value": 0, "low": 0, "high": 0}
    assert paired_auc_difference(labels, second, first)["value"] == -found["value"]


# --- probabilities ---------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(probable, st.floats(0, 1, exclude_min=True), st.sampled_from(["float32", "float64"]))
def test_the_threshold_reaches_the_sensitivity_and_no_larger_one_does(images, sensitivity, dtype):
    labels, probabilities = columns(images)
    assume(labels.any())
    probabilities = probabilities.astype(dtype)
    threshold = threshold_for_sensitivity(labels, probabilities, sensitivity)
    positives = probabilities[labels == 1]
    assert (positives > threshold).mean() >= sensitivity
    assert (positives.astype("float64") > threshold).mean() >= sensitivity
    larger = probabilities[probabilities > threshold]
    assert all((positives > other).mean() < sensitivity for other in larger)
    assert (positives > np.nextafter(threshold, np.inf, dtype=dtype)).mean() < sensitivity


@settings(max_examples=20, deadline=None)
@given(tied, st.sampled_from([0.07, 0.5, 0.9, 0.95, 1.0]), st.sampled_from(["float32", "float64"]))
def test_the_threshold_means_the_same_to_the_metrics(images, sensitivity, dtype):
    labels, logits = columns(images)
    assume(labels.any())
    logits = logits.astype(dtype)
    threshold = threshold_for_sensitivity(labels, positive_probabilities(logits), sensitivity)
    assert binary_metrics(labels, logits, threshold=threshold)["sensitivity"]["value"] >= sensitivity


def test_thresholds_by_hand():
    labels, probabilities = [1, 1, 1, 1, 0], np.array([0.9, 0.7, 0.7, 0.2, 0.8])
    for sensitivity, below in ((0.25, 0.9), (0.26, 0.7), (0.75, 0.7), (0.76, 0.2), (1, 0.2)):
        assert threshold_for_sensitivity(labels, probabilities, sensitivity) == np.nextafter(below, 0)
    hundred = np.arange(100) / 100
    assert threshold_for_sensitivity(np.ones(100), hundred, 0.07) == np.nextafter(0.93, 0)  # 0.07 * 100 is above 7
    assert threshold_for_sensitivity([1, 0], [0.0, 0.5], 1) < 0


@pytest.mark.parametrize(
    ("labels", "sensitivity", "words"),
    [
        ([0, 0], 0.9, "none of the 2 images is positive"),
        ([0, 1], 0, "above 0"),
        ([0, 1], 1.1, "at most 1"),
        ([0, 1], math.nan, "nan"),
    ],
)
def test_thresholds_that_there_are_not(labels, sensitivity, words):
    with pytest.raises(InputError, match=words) as caught:
        threshold_for_sensitivity(labels, [0.1, 0.2], sensitivity)
    assert "\n" not in str(caught.value)


def test_logits_are_no_probabilities():
    for function in (reliability_bins, lambda *arguments: threshold_for_sensitivity(*arguments, 0.9)):
        with pytest.raises(InputError, match="from 0 to 1"):
            function([0, 1], [-0.5, 0.5])


def test_the_calibration_error_by_hand():
    # Bins (0, 0.1]: probabilities 0.05 and 0.1, one of two positive; (0.7, 0.8]: 0.75; (0.9, 1]: 0.95 and 1.
    labels, probabilities = [1, 0, 1, 1, 0], [0.05, 0.1, 0.75, 0.95, 1.0]
    diagram = reliability_bins(labels, probabilities)
    assert [bin["images"] for bin in diagram] == [2, 1, 2]
    assert [bin["positive"] for bin in diagram] == [0.5, 1, 0.5]
    assert [bin["probability"] for bin in diagram] == pytest.approx([0.075, 0.75, 0.975])
    expected = (2 * 0.425 + 1 * 0.25 + 2 * 0.475) / 5
    assert calibration_error(diagram) == pytest.approx(expected)
    logits = np.log([0.05 / 0.95, 0.09 / 0.91, 0.75 / 0.25, 0.95 / 0.05, 1e9])
    expected = (2 * 0.43 + 1 * 0.25 + 2 * 0.475) / 5
    assert binary_metrics(labels, logits)["calibration_error"] == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(probable, st.integers(1, 12))
def test_the_diagram_is_scikit_learns(images, bins):
    labels, probabilities = columns(images)
    diagram = reliability_bins(labels, probabilities, bins)
    if 0 < labels.sum() < len(labels):
        positive, mean = calibration_curve(labels, probabilities, n_bins=bins)
        assert [bin["positive"] for bin in diagram] == pytest.approx(positive.tolist(), abs=1e-12)
        assert [bin["probability"] for bin in diagram] == pytest.approx(mean.tolist(), abs=1e-12)
    assert sum(bin["images"] for bin in diagram) == len(labels)
    assert 0 <= calibration_error(diagram) <= 1


# --- comparisons, several runs ---------------------------------------------------------------------------------------


# The two examples of Fagerland, Lydersen & Laake, The McNemar test for binary matched-pairs data, BMC Medical Research
# Methodology 13:91 (2013), with the exact P values that they give: 0.070 and 0.052.
@pytest.mark.parametrize(
    ("counts", "published", "exact"),
    [
        ((1, 1, 7, 12), 0.070, 2 * (1 + 8) / 2**8),
        ((59, 6, 16, 80), 0.052, 2 * sum(math.comb(22, k) for k in range(7)) / 2**22),
    ],
)
def test_mcnemars_published_examples(counts, published, exact):
    first = np.repeat([1, 1, 0, 0], counts)
    second = np.repeat([1, 0, 1, 0], counts)
    found = mcnemar(np.ones_like(first), first, second)
    assert (found["only_first_right"], found["only_second_right"]) == counts[1:3]
    assert found["p"] == pytest.approx(exact, rel=1e-9)
    assert round(found["p"], 3) == published
    assert mcnemar(np.ones_like(first), second, first)["p"] == found["p"]


def test_mcnemar_of_more_classes_and_of_the_same():
    assert mcnemar([0, 1, 2, 2], [0, 1, 1, 2], [0, 1, 0, 1]) == {
        "only_first_right": 1,
        "only_second_right": 0,
        "p": 1.0,
    }
    same = mcnemar([0, 1], [0, 0], [0, 0])
    assert same == {"only_first_right": 0, "only_second_right": 0, "p": 1.0}
    with pytest.raises(InputError, match="of the same images"):
        mcnemar([0, 1], [0, 1], [0])


def test_summaries_by_hand():
    found = summarize(np.array([0.905, 0.925, 0.955]))
    assert found == pytest.approx(
        {"mean": 0.9283333333333333, "sd": 0.0251661147842358, "low": 0.905, "high": 0.955, "n": 3}
    )
    assert summarize([0.5]) == {"mean": 0.5, "sd": None, "low": 0.5, "high": 0.5, "n": 1}
    assert summarize([0.1] * 3) == {"mean": 0.1, "sd": 0, "low": 0.1, "high": 0.1, "n": 3}
    assert summarize([0.0, 5e-324])["sd"] == 0
    assert summarize([None, 0.5, None])["n"] == 1  # a measure that one of the runs does not define
    assert summarize([None]) == summarize([]) == {"mean": None, "sd": None, "low": None, "high": None, "n": 0}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_the_mean_is_within_the_range(values):
    found = summarize(values)
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-9)
    assert found["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)


# --- for people ------------------------------------------------------------------------------------------------------


def test_lines_for_people():
    measures = {
        "images": 400,
        "accuracy": {"value": 0.925, "low": 0.88, "high": 0.954},
        "ppv": None,
        "calibration_error": 0.03125,
        "confusion": {"tp": 190, "fp": 3},
        "negatives": {"N": {"value": 1.0, "low": 0.97, "high": 1.0}, "H": None},
    }
    assert format_metrics(measures).splitlines() == [
        "images              400",
        "accuracy            0.9250  (0.8800 to 0.9540)",
        "ppv                 undefined",
        "calibration error   0.0312",
        "confusion tp        190",
        "confusion fp        3",
        "specificity on N    1.0000  (0.9700 to 1.0000)",
        "specificity on H    undefined",
    ]


def test_everything_can_be_shown():
    labels, logits = cohort(20)
    shown = format_metrics(binary_metrics(labels, logits, ["N1.jpg"] * 20)).splitlines()
    assert {line[19] for line in shown} == {" "}
    assert all(line[:19].strip() and line[20:] == line[20:].strip() != "" for line in shown)
    assert format_metrics(mcnemar([0], [0], [1])).splitlines()[-1] == "p                   1.0000"
