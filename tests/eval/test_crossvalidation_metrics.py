"""The results of a cross-validation, held to scikit-learn and to what is known of the bootstrap."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from palm_cls.checkpoints.run_files import CROSSVALIDATION, fold_directory
from palm_cls.core.errors import InputError
from palm_cls.core.files import write_json, write_table
from palm_cls.data.data_root import DEMO_DISCLAIMER
from palm_cls.data.labels import CLASSES
from palm_cls.eval.crossvalidation import format_comparison, measure, read_crossvalidation, write_results
from palm_cls.eval.crossvalidation_report import write_page
from palm_cls.eval.predictions_file import FOLD_TABLE, prediction_row

CONTENT = {
    "model": "palm",
    "data": "d",
    "epochs": 3,
    "batch_size": 16,
    "groups": None,
    "images_sha256": "0",
    "versions": {},
}


def made_up(directory, images=200, seeds=(0, 1), copies=1, skill=1.0, num_folds=2):
    """Write a cross-validation of before there were named classes; in its groups are images with equal predictions."""
    labels = np.arange(images) % 2
    means = np.stack([(2 * labels - 1) * skill] * 2)
    return write_made_up(directory, labels, means, seeds, copies, num_folds)


def write_made_up(directory, labels, means, seeds=(0,), copies=1, num_folds=2, **content):
    """Write a cross-validation whose logits scatter about `means`, float [2, N] or [2, N, C]."""
    directory.mkdir()
    write_json(
        {**CONTENT, "images_sha256": "0", "demo": False, "folds": num_folds, "seeds": list(seeds), **content},
        directory / CROSSVALIDATION,
    )
    rows = [
        {"imgName": f"{copy}-{number:04d}.jpg", "Label": label, "group": number, "fold": number // 2 % num_folds}
        for copy in range(copies)
        for number, label in enumerate(labels.tolist())
    ]
    write_table(rows, directory / FOLD_TABLE)
    for seed in seeds:
        logits = np.random.default_rng(seed).normal(means, 1.5).astype("float32")
        for fold in range(num_folds):
            target = fold_directory(directory, seed, fold)
            target.mkdir(parents=True)
            own = [row for row in rows if row["fold"] == fold]
            predictions = [prediction_row(row["imgName"], row["Label"], *logits[:, row["group"]]) for row in own]
            write_table(predictions, target / "held_out.csv")
    return read_crossvalidation(directory)


def test_metrics_are_those_of_scikit_learn_for_each_seed(tmp_path):
    result = made_up(tmp_path / "a")
    found = measure(result)
    for views in (1, 8):
        for number, logits in enumerate(result.logits[views].astype("float64")):
            metrics = {key: found[views][key]["seeds"][number] for key in ("accuracy", "auc", "loss")}
            assert metrics["accuracy"] == accuracy_score(result.labels, logits > 0)
            assert metrics["auc"] == pytest.approx(roc_auc_score(result.labels, logits), abs=1e-12)
            assert metrics["loss"] == pytest.approx(log_loss(result.labels, expit(logits)), rel=1e-6)
        for metric in found[views].values():
            assert metric["value"] == pytest.approx(np.mean(metric["seeds"]))
            assert metric["se_seeds"] == pytest.approx(np.std(metric["seeds"], ddof=1) / np.sqrt(2))
            assert metric["low"] < metric["value"] < metric["high"]


def test_the_standard_error_is_that_of_the_mean(tmp_path):
    result = made_up(tmp_path / "a", images=400, seeds=[0])
    found = measure(result)[1]
    accuracy = found["accuracy"]["value"]
    assert found["accuracy"]["se"] == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 400), rel=0.07)
    losses = np.logaddexp(0, np.where(result.labels, -1, 1) * result.logits[1][0])
    assert found["loss"]["se"] == pytest.approx(losses.std() / 20, rel=0.07)
    assert found["loss"]["se_seeds"] is None


def test_copies_in_a_group_make_nothing_surer(tmp_path):
    once, thrice = made_up(tmp_path / "a"), made_up(tmp_path / "b", copies=3)
    assert len(thrice.names) == 3 * len(once.names)
    for key, metric in measure(once)[1].items():
        other = measure(thrice)[1][key]
        assert [metric[name] for name in ("value", "se", "low")] == pytest.approx(
            [other[name] for name in ("value", "se", "low")]
        )


def test_the_better_comes_first_and_the_difference_is_paired(tmp_path):
    poor, good = made_up(tmp_path / "poor", skill=0.5), made_up(tmp_path / "good", skill=2.5)
    lines = format_comparison([poor, good]).splitlines()
    assert lines[0] == "2 folds of 200 images in 200 groups"
    assert [line.rpartition("good")[1] for line in lines[2:6]] == ["good", "good", "", ""]
    assert lines[1].split() == ["accuracy", "AUC", "log", "loss", "seeds"]
    (row,) = [line for line in lines[8:] if line.startswith(f"{tmp_path / 'poor'}, one view")]
    accuracy, auc, loss = (float(cell.split()[0]) for cell in row.split("  ")[1:] if cell.strip())
    metrics = [measure(result)[1] for result in (poor, good)]
    best = min(measure(good).values(), key=lambda metric: metric["loss"]["value"])
    assert accuracy == pytest.approx(metrics[0]["accuracy"]["value"] - best["accuracy"]["value"], abs=6e-5)
    assert auc < 0 < loss
    assert "same" not in format_comparison([good]).replace("on the same images", "")


def test_a_network_less_itself_is_nothing(tmp_path):
    lines = format_comparison([made_up(tmp_path / "a"), made_up(tmp_path / "b")]).splitlines()
    assert lines.count(next(line for line in lines if "+0.0000 ± 0.0000" in line)) == 1


def test_other_folds_are_not_compared(tmp_path):
    first = made_up(tmp_path / "a")
    others = {"names": made_up(tmp_path / "b", images=100), "folds": made_up(tmp_path / "c", num_folds=3)}
    others["groups"] = replace(first, groups=first.groups // 2)  # which the errors of both must be drawn by
    for what, other in others.items():
        with pytest.raises(InputError, match=f"a and .* have other {what}; only results on the same folds"):
            format_comparison([first, other])


def test_what_is_written_is_what_was_measured(tmp_path):
    result = made_up(tmp_path / "a")
    found = write_results(result)
    content = json.loads((tmp_path / "a" / "results.json").read_text())
    assert content["metrics"]["eight_views"]["auc"] == found[8]["auc"]
    header, *rows = (tmp_path / "a" / "predictions.csv").read_text().splitlines()
    assert header.split(",")[:5] == ["seed", "fold", "group", "imgName", "Label"]
    assert len(rows) == 2 * 200
    assert DEMO_DISCLAIMER not in format_comparison([result])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (FOLD_TABLE, "imgName,Label\nx,1\n", "folds.csv: damaged"),
        (FOLD_TABLE, "imgName,Label,group,fold\n", "folds.csv: damaged .*expected a row for each image"),
        (FOLD_TABLE, "imgName,Label,group,fold\na,1,0,0\n", "folds.csv: damaged .*2 folds from 0"),
        (FOLD_TABLE, None, "folds.csv: missing; finish the cross-validation by crossvalidate.py --resume"),
        (CROSSVALIDATION, None, "a: no cross-validation there"),
        (CROSSVALIDATION, '{"model": "palm", "folds": "2", "seeds": [0]}', "not the settings of a cross-validation"),
        ("seed-0/fold-0/held_out.csv", None, "held_out.csv: missing; finish the cross-validation"),
        ("seed-1/fold-1/held_out.csv", "imgName,Label,logit,logit_8_views\na,1,0,x\n", "held_out.csv: damaged"),
        ("seed-1/fold-1/held_out.csv", "imgName,Label,logit,logit_8_views\na,1,nan,0\n", "nan is not finite"),
        (
            "seed-1/fold-1/held_out.csv",
            "imgName,Label,logit,logit_8_views\na,1,0,0\n",
            "its images or labels are not those of fold 1 in folds.csv",
        ),
    ],
)
def test_what_is_damaged_or_missing_is_named(tmp_path, file, text, message):
    made_up(tmp_path / "a")
    if text is None:
        (tmp_path / "a" / file).unlink()
    else:
        (tmp_path / "a" / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_crossvalidation(tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [{"folds": True}, {"folds": 0}, {"seeds": []}, {"seeds": [0, 0]}, {"seeds": ["a"]}, {"data": 5}, {"epochs": "x"}],
    ids=str,
)
def test_settings_that_are_none_are_refused(tmp_path, change):
    made_up(tmp_path / "a")
    content = json.loads((tmp_path / "a" / CROSSVALIDATION).read_text())
    write_json({**content, **change}, tmp_path / "a" / CROSSVALIDATION)
    with pytest.raises(InputError, match="crossvalidation.json: not the settings of a cross-validation; start a new"):
        read_crossvalidation(tmp_path / "a")


def test_predictions_of_another_fold_do_not_replace_its_own(tmp_path):
    made_up(tmp_path / "a")
    first, second = (fold_directory(tmp_path / "a", 0, fold) / "held_out.csv" for fold in (0, 1))
    second.write_text(second.read_text() + first.read_text().partition("\n")[2])
    with pytest.raises(InputError, match="fold-1/held_out.csv: damaged .* not those of fold 1 in folds.csv"):
        read_crossvalidation(tmp_path / "a")


THREE = ["mild", "<none>", "重度"]


def three_classes(directory, skill=1.5, **options):
    labels = np.arange(120) % 3
    means = np.stack([skill * (labels[:, None] == np.arange(3))] * 2)
    return write_made_up(directory, labels, means, **{"seeds": [0, 1], "classes": THREE, **options})


def test_metrics_of_three_classes_are_those_of_scikit_learn(tmp_path):
    result = three_classes(tmp_path / "a")
    found = measure(result)
    for views in (1, 8):
        for number, logits in enumerate(result.logits[views].astype("float64")):
            metrics = {key: found[views][key]["seeds"][number] for key in ("accuracy", "auc", "loss")}
            probabilities = softmax(logits, axis=1)
            assert metrics["accuracy"] == accuracy_score(result.labels, logits.argmax(axis=1))
            expected = roc_auc_score(result.labels, probabilities, multi_class="ovr", average="macro")
            assert metrics["auc"] == pytest.approx(expected, abs=1e-12)
            assert metrics["loss"] == pytest.approx(log_loss(result.labels, probabilities), rel=1e-9)
        for metric in found[views].values():
            assert metric["low"] < metric["value"] < metric["high"]
            assert metric["se"] == pytest.approx((metric["high"] - metric["low"]) / (2 * 1.96), rel=0.15)


def test_three_classes_are_compared(tmp_path):
    good, poor = three_classes(tmp_path / "good", skill=3), three_classes(tmp_path / "poor")
    lines = format_comparison([poor, good]).splitlines()
    assert [line.split(",")[0] for line in lines[2:6]] == [
        str(tmp_path / name) for name in ("good",) * 2 + ("poor",) * 2
    ]
    other = replace(good, content={**good.content, "classes": ["x", *THREE[1:]]})
    with pytest.raises(InputError, match="good and .*good have other classes; only results on the same folds"):
        format_comparison([good, other])


def test_earlier_ones_have_the_classes_of_the_lesson(tmp_path):
    labels = np.arange(200) % 2
    earlier = made_up(tmp_path / "earlier")
    named = write_made_up(tmp_path / "named", labels, np.stack([2 * labels - 1] * 2), classes=CLASSES)
    assert earlier.classes == named.classes == CLASSES
    assert "named, one view" in format_comparison([earlier, named])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (FOLD_TABLE, "imgName,Label,group,fold\na,3,0,0\nb,0,1,1\n", "expected labels 0 to 2, and 2 folds from 0"),
        ("seed-0/fold-1/held_out.csv", "imgName,Label,logit,logit_8_views\na,1,0,0\n", "held_out.csv: damaged"),
    ],
)
def test_what_is_not_of_three_classes_is_named(tmp_path, file, text, message):
    three_classes(tmp_path / "a")
    (tmp_path / "a" / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_crossvalidation(tmp_path / "a")


class Photos:
    """Stands for the loader of the images; what they show does not matter here."""

    classes = ["<none>", "some"]

    def load_image(self, name):
        return np.full((60, 90, 3), 128, "uint8")


@pytest.mark.parametrize("skill", [0.5, 50.0])
def test_the_page(tmp_path, skill):
    result = made_up(tmp_path / "a", seeds=[0, 1, 2] if skill < 1 else [0], skill=skill)
    page = write_page(result, write_results(result), Photos()).read_text(encoding="utf-8")
    metric = measure(result)[1]["auc"]
    assert f"{metric['value']:.4f} ± {metric['se']:.4f}" in page
    assert ("<none>" in page, "&lt;none&gt;" in page) == (False, skill < 1)
    assert ("On none of these images." in page) == (skill > 1)
    assert page.count("data:image/jpeg") == (16 if skill < 1 else 0)
    assert ("over the seeds" in page) == (skill < 1)
    assert "area {value:.3f}, 95% interval {low:.3f} to {high:.3f}".format(**metric) in page  # by groups, as above
    assert {path.name for path in (tmp_path / "a" / "figures").iterdir()} == {"roc.png", "calibration.png"}


def test_the_page_of_three_classes(tmp_path):
    result, photos = three_classes(tmp_path / "a"), Photos()
    photos.classes = THREE
    page = write_page(result, write_results(result), photos).read_text(encoding="utf-8")
    probabilities = softmax(result.logits[1].astype("float64"), axis=2).mean(axis=0)
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != result.labels)
    worst = wrong[probabilities[wrong].max(axis=1).argmax()]
    label, answer = (
        THREE[number].replace("<none>", "&lt;none&gt;") for number in (result.labels[worst], predicted[worst])
    )
    caption = f"{result.names[worst]}: labelled {label}, called {answer}, probability {probabilities[worst].max():.3f}"
    assert caption in " ".join(page.split())
    assert f"On {len(wrong)} of 120 images" in page
    assert f"{120 - len(wrong)} of 120 images on the diagonal" in page
    assert "share of right answers" in page
    assert {path.name for path in (tmp_path / "a" / "figures").iterdir()} == {"confusion.png", "calibration.png"}
