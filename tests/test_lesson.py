"""The lesson's results on the real images: what it claims, within what a run may vary."""

import csv

import pytest


@pytest.mark.slow
def test_alexnet_learns_the_real_images(tool, real_palm, tmp_path):
    done = tool("train", "--model", "alexnet", "--data", real_palm, "--epochs", 3, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "log.csv").open() as file:
        accuracies = [float(row["valid_accuracy"]) for row in csv.DictReader(file)]
    assert max(accuracies) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("model", "low", "high"), [("lenet", 0.4, 0.6), ("lenet-relu", 0.8, 1.0)])
def test_lenet_converges_with_relu_and_not_with_sigmoid(tool, real_palm, tmp_path, model, low, high):
    done = tool("train", "--model", model, "--data", real_palm, "--epochs", 2, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "log.csv").open() as file:
        accuracies = [float(row["valid_accuracy"]) for row in csv.DictReader(file)]
    assert low <= max(accuracies) <= high
