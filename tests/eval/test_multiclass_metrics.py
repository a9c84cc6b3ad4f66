import json
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from palm_cls.core.errors import InputError
from palm_cls.eval import auc as auc_module
from palm_cls.eval.metrics import binary_metrics
from palm_cls.eval.metrics_text import format_metrics
from palm_cls.eval.multiclass_metrics import class_probabilities, multiclass_metrics

CLASSES = 4
SHARES = ("sensitivity", "specificity", "precision")

# (label, logits) of an image: few different logits, so that images, classes and predictions tie.
image = st.tuples(
    st.integers(0, CLASSES - 1), st.lists(st.integers(-5, 5), min_size=CLASSES, max_size=CLASSES).map(tuple)
)
image_lists = st.lists(image, min_size=1, max_size=20)


def columns(images):
    return tuple(np.array(column) for column in zip(*images))


def cohort(images=120, seed=1):
    """Labels of three classes, and logits with ties that follow them: int64 [images] and float64 [images, 3]."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, images)
    return labels, np.round(generator.normal(size=(images, 3)) + 1.2 * np.eye(3)[labels], 1)


def value(metric):
    return metric and metric["value"]


def intervals(found):
    """All metrics with an interval that are defined."""
    metrics = [found["accuracy"], found["auc"], found.get("kappa")]
    metrics += [row[name] for row in found["classes"] for name in (*SHARES, "auc")]
    return [metric for metric in metrics if metric is not None]


def test_three_classes_by_hand():
    labels = [0, 0, 1, 1, 1, 2]
    logits = np.log([[8, 1, 1], [1, 8, 1], [1, 8, 1], [1, 8, 1], [8, 1, 1], [8, 1, 1]])
    found = multiclass_metrics(labels, logits, ordered=True)
    assert found["confusion"] == [[1, 1, 0], [1, 2, 0], [1, 0, 0]]
    assert found["loss"] == pytest.approx(-(3 * math.log(0.8) + 3 * math.log(0.1)) / 6)
    wilson = stats.binomtest(3, 6).proportion_ci(method="wilson")
    assert found["accuracy"] == {"value": 0.5, "low": wilson.low, "high": wilson.high}
    assert found["brier"] == pytest.approx((3 * (0.04 + 0.01 + 0.01) + 3 * (0.64 + 0.81 + 0.01)) / 6)
    assert found["calibration_error"] == pytest.approx(0.3)  # sure by 0.8, right by 0.5
    table = [(*(value(row[name]) for name in (*SHARES, "auc")), row["f1"], row["support"]) for row in found["classes"]]
    assert table[0] == pytest.approx((1 / 2, 2 / 4, 1 / 3, 4 / 8, 2 / 5, 2))
    assert table[1] == pytest.approx((2 / 3, 2 / 3, 2 / 3, 6 / 9, 2 / 3, 3))
    assert table[2] == (0, 1, None, 0.5, 0, 1)  # no image was called so
    assert value(found["auc"]) == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)
    # Squared distances 1, 1, 4; by chance, of labels 2, 3, 1 and answers 3, 3, 0: (2*3*1 + 3*3*1 + 1*3*4 + 1*3*1) / 6.
    assert value(found["kappa"]) == pytest.approx(1 - 6 / 5)


def test_the_keys_and_their_order():
    labels, logits = cohort(30)
    names = ["none", "mild", "severe"]
    graded = ["images", "loss", "accuracy", "auc", "kappa", "brier", "calibration_error", "classes", "confusion"]
    assert list(multiclass_metrics(labels, logits, ordered=True)) == graded
    found = multiclass_metrics(labels, logits, names)
    assert list(found) == [key for key in graded if key != "kappa"]
    row = ["class", "name", *SHARES, "auc", "f1", "support"]
    assert [list(of_class) for of_class in found["classes"]] == [row] * 3
    assert [(of_class["class"], of_class["name"]) for of_class in found["classes"]] == list(enumerate(names))
    assert "name" not in multiclass_metrics(labels, logits, ["0", "1", "2"])["classes"][0]


# --- held to scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@settings(max_examples=20, deadline=None)
@given(image_lists)
def test_the_metrics_of_all_classes_are_scikit_learns(images):
    labels, logits = columns(images)
    found = multiclass_metrics(labels, logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert class_probabilities(logits) == pytest.approx(probabilities)
    predicted = logits.argmax(axis=1)
    assert found["images"] == len(labels)
    assert found["loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=range(CLASSES)))
    assert value(found["accuracy"]) == sk.accuracy_score(labels, predicted)
    assert found["confusion"] == sk.confusion_matrix(labels, predicted, labels=range(CLASSES)).tolist()
    assert found["brier"] == pytest.approx(np.mean(((probabilities - np.eye(CLASSES)[labels]) ** 2).sum(axis=1)))
    # Rounded, or sums in different orders break ties.
    expected = None
    if len(set(labels)) == CLASSES:
        expected = sk.roc_auc_score(labels, probabilities.round(12), multi_class="ovr", average="macro")
    assert value(found["auc"]) == (expected if expected is None else pytest.approx(expected, abs=1e-12))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(max_examples=20, deadline=None)
@given(image_lists)
def test_the_table_of_classes_is_scikit_learns(images):
    labels, logits = columns(images)
    predicted = logits.argmax(axis=1)
    probabilities = class_probabilities(logits).round(12)
    table = zip(*sk.precision_recall_fscore_support(labels, predicted, labels=range(CLASSES), zero_division=0))
    confusion = sk.confusion_matrix(labels, predicted, labels=range(CLASSES))
    rows = multiclass_metrics(labels, logits)["classes"]
    for number, (row, (precision, recall, f1, support)) in enumerate(zip(rows, table)):
        own = labels == number
        negatives = np.delete(confusion, number, axis=0)
        assert (row["support"], row["f1"]) == (support, pytest.approx(f1))
        assert value(row["sensitivity"]) == (pytest.approx(recall) if own.any() else None)
        assert value(row["precision"]) == (pytest.approx(precision) if (predicted == number).any() else None)
        specificity = None if own.all() else 1 - negatives[:, number].sum() / negatives.sum()
        assert value(row["specificity"]) == (pytest.approx(specificity) if specificity is not None else None)
        both = own.any() and not own.all()
        auc = pytest.approx(sk.roc_auc_score(own, probabilities[:, number]), abs=1e-12) if both else None
        assert value(row["auc"]) == auc


@settings(max_examples=20, deadline=None)
@given(image_lists)
def test_kappa_is_scikit_learns(images):
    labels, logits = columns(images)
    predicted = logits.argmax(axis=1)
    kappa = value(multiclass_metrics(labels, logits, ordered=True)["kappa"])
    if len({*labels, *predicted}) == 1:
        assert kappa is None
    else:
        expected = sk.cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(CLASSES))
        assert kappa == pytest.approx(expected, abs=1e-12)


# --- intervals -------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(image_lists)
def test_intervals_contain_their_values(images):
    for metric in intervals(multiclass_metrics(*columns(images), ordered=True)):
        assert -1 <= metric["low"] <= metric["value"] <= metric["high"] <= 1


@settings(max_examples=20, deadline=None)
@given(image_lists, st.randoms(use_true_random=True))
def test_the_order_of_the_images_does_not_matter(images, random):
    shuffled = random.sample(images, len(images))
    found, again = (multiclass_metrics(*columns(rows), ordered=True) for rows in (images, shuffled))
    for name in ("loss", "brier", "calibration_error"):  # sums, in another order
        assert found.pop(name) == pytest.approx(again.pop(name), abs=1e-12)
    assert found == again


def test_the_seed_decides_about_the_bootstraps_only():
    labels, logits = cohort(50)
    first, again, other = (multiclass_metrics(labels, logits, ordered=True, seed=seed) for seed in (0, 0, 1))
    assert first == again
    for name in ("auc", "kappa"):
        assert first[name] != other[name]
        assert first[name]["value"] == other[name]["value"]
    assert first["accuracy"] == other["accuracy"]


def percentiles(values):
    return np.percentile(values, (2.5, 97.5))


def assert_interval(metric, expected, tolerance=0.1):
    """The ends of an interval are the expected, but for a part of its width."""
    width = expected[1] - expected[0]
    assert [metric["low"], metric["high"]] == pytest.approx(list(expected), abs=tolerance * width)


def test_the_intervals_of_the_aucs_are_those_of_a_slow_bootstrap():
    labels, logits = cohort()
    odds = [logits[:, i] - np.log(np.exp(np.delete(logits, i, axis=1)).sum(axis=1)) for i in range(3)]
    odds = [scores.round(9) for scores in odds]  # for ties
    wins = [np.greater.outer(scores, scores) + np.equal.outer(scores, scores) / 2 for scores in odds]
    generator = np.random.default_rng(5)
    aucs = []
    for _ in range(2000):
        drawn = [generator.choice(np.flatnonzero(labels == i), (labels == i).sum()) for i in range(3)]
        others = [np.concatenate(drawn[:i] + drawn[i + 1 :]) for i in range(3)]
        aucs.append([wins[i][np.ix_(drawn[i], others[i])].mean() for i in range(3)])
    found = multiclass_metrics(labels, logits)
    for number, of_class in enumerate(np.transpose(aucs)):
        assert_interval(found["classes"][number]["auc"], percentiles(of_class))
    assert_interval(found["auc"], percentiles(np.mean(aucs, axis=1)))


def test_the_interval_of_kappa_is_that_of_a_slow_bootstrap():
    labels, logits = cohort()
    predicted = logits.argmax(axis=1)
    generator = np.random.default_rng(5)
    kappas = []
    for _ in range(2000):
        drawn = generator.integers(0, len(labels), len(labels))
        true, called = labels[drawn], predicted[drawn]
        kappas.append(1 - ((true - called) ** 2).mean() / (np.subtract.outer(true, called) ** 2).mean())
    assert_interval(multiclass_metrics(labels, logits, ordered=True)["kappa"], percentiles(kappas))


def test_two_classes_are_as_for_one_logit():
    labels, logits = cohort(60)
    labels, logits = np.minimum(labels, 1), logits[:, :2]
    found = multiclass_metrics(labels, logits)
    binary = binary_metrics(labels, logits[:, 1] - logits[:, 0])
    assert found["loss"] == pytest.approx(binary["loss"])
    assert found["brier"] == pytest.approx(2 * binary["brier"])
    first, second = (row["auc"] for row in found["classes"])
    assert first == second == found["auc"] == pytest.approx(first)  # of the same draws
    assert second["value"] == binary["auc"]["value"]
    assert_interval(second, (binary["auc"]["low"], binary["auc"]["high"]))


def test_smaller_blocks_where_copies_are_held(monkeypatch):
    monkeypatch.setattr(auc_module, "BLOCK", 1000)
    blocks = list(auc_module._draws((30, 15, 5), seed=0, copies=2))
    assert {tuple(len(draws) for draws in block) for block in blocks} == {(10, 10, 10)}
    assert len(blocks) == 200
    labels, logits = cohort(50)
    in_blocks = multiclass_metrics(labels, logits)["auc"]
    monkeypatch.undo()
    assert_interval(in_blocks, [multiclass_metrics(labels, logits)["auc"][end] for end in ("low", "high")])


# --- undefined, extreme, refused -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_without_images_of_a_class():
    labels, logits = cohort(30)
    found = multiclass_metrics(np.where(labels == 1, 0, labels), logits, ordered=True)
    assert found["auc"] is None
    assert [row["auc"] is None for row in found["classes"]] == [False, True, False]
    missing = found["classes"][1]
    assert (missing["sensitivity"], missing["f1"], missing["support"]) == (None, 0, 0)
    assert value(missing["precision"]) == 0
    assert value(found["kappa"]) is not None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [1, 3])
def test_one_class_only(images):
    found = multiclass_metrics([1] * images, [[0.0, 1.0, 0.0]] * images, ordered=True)
    assert (found["auc"], found["kappa"]) == (None, None)
    assert [row["auc"] for row in found["classes"]] == [None] * 3
    assert [value(row["specificity"]) for row in found["classes"]] == [1, None, 1]
    wrong = multiclass_metrics([1] * images, [[1.0, 0.0, 0.0]] * images, ordered=True)
    assert wrong["kappa"] == {"value": 0, "low": 0, "high": 0}


def test_perfect_separation():
    labels = np.arange(9) % 3
    found = multiclass_metrics(labels, 5 * np.eye(3)[labels], ordered=True)
    assert found["auc"] == found["kappa"] == {"value": 1, "low": 1, "high": 1}
    assert all(value(row[name]) == row["f1"] == 1 for row in found["classes"] for name in (*SHARES, "auc"))


def test_large_logits():
    assert multiclass_metrics([[2]], [[-1000.0, 0.0, 1000.0]])["loss"] == 0
    assert multiclass_metrics([0], [[-1000.0, 0.0, 1000.0]])["loss"] == 2000
    logits = [[40.0, 0.0, -1.0], [50.0, 0.0, -1.0], [0.0, 60.0, -1.0], [0.0, 0.0, 60.0]]
    found = multiclass_metrics([1, 0, 1, 2], logits)  # 40 and 50 both are a probability of 1
    assert value(found["classes"][0]["auc"]) == 1


def test_columns_of_the_loaders_and_lists_are_taken():
    labels, logits = cohort(30)
    found = multiclass_metrics(labels[:, None], logits)
    assert found == multiclass_metrics(labels.tolist(), logits.tolist())
    single = logits.astype("float32")
    assert multiclass_metrics(labels, single) == multiclass_metrics(labels, single.astype("float64"))
    assert class_probabilities(single).dtype == "float64"


@pytest.mark.parametrize(
    ("labels", "logits", "words"),
    [
        ([3], np.zeros((1, 3)), "from 0 to 2"),
        ([0.5], np.zeros((1, 3)), "from 0 to 2"),
        ([0], np.zeros(3), "a column for each class"),
        ([0], np.zeros((1, 1)), "a column for each class"),
        ([0], np.zeros((2, 3)), "of the same images"),
        ([0], [[0.0, math.nan, 0.0]], "1 of 3"),
        ([], np.zeros((0, 3)), "no images"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, logits, words):
    with pytest.raises(InputError, match=words):
        multiclass_metrics(labels, logits)


def test_a_name_for_each_class():
    with pytest.raises(InputError, match="2 class names for 3 logits"):
        multiclass_metrics([0], np.zeros((1, 3)), ["a", "b"])


# --- for people ------------------------------------------------------------------------------------------------------


def test_lines_for_people():
    logits = np.log([[8, 1, 1], [8, 1, 1], [1, 8, 1]])
    lines = format_metrics(multiclass_metrics([0, 0, 1], logits, ordered=True)).splitlines()
    assert lines == [
        "images              3",
        "loss                0.2231",
        "accuracy            1.0000  (0.4385 to 1.0000)",
        "auc                 undefined",
        "kappa               1.0000  (1.0000 to 1.0000)",
        "brier               0.0600",
        "calibration error   0.2000",
        "classes",
        "class          sensitivity          specificity            precision                  auc     f1  support",
        "    0  1.000 (0.342-1.000)  1.000 (0.207-1.000)  1.000 (0.342-1.000)  1.000 (1.000-1.000)  1.000        2",
        "    1  1.000 (0.207-1.000)  1.000 (0.342-1.000)  1.000 (0.207-1.000)  1.000 (1.000-1.000)  1.000        1",
        "    2            undefined  1.000 (0.439-1.000)            undefined            undefined  0.000        0",
        "confusion",
        "        2          0          0",
        "        0          1          0",
        "        0          0          0",
    ]


def test_chinese_names_are_aligned():
    found = multiclass_metrics([0, 1, 2], np.eye(3), ["正常", "mild 轻度", "severe"])
    lines = format_metrics(found).splitlines()
    table = lines[lines.index("classes") + 1 : lines.index("confusion")]
    starts = ["class  name", "0      正常 ", "1      mild 轻度  1.000", "2      severe "]
    assert [line[: len(start)] for line, start in zip(table, starts)] == starts
    assert len({sum(1 + (unicodedata.east_asian_width(letter) == "W") for letter in line) for line in table}) == 1
    assert all(letter.isprintable() for line in table for letter in line)
