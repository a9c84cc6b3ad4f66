"""What the networks learn, within what a run may vary."""

import csv

import pytest

from palm_cls.data.demo_set import write_demo_set


def accuracies(tool, tmp_path, *args):
    """Validation accuracy after each epoch."""
    done = tool("train", *args, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "log.csv").open() as file:
        return [float(row["valid_accuracy"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_alexnet_learns_the_demo_set(tool, tmp_path):
    write_demo_set(tmp_path / "demo")
    assert max(accuracies(tool, tmp_path, "--model", "alexnet", "--data", tmp_path / "demo", "--epochs", 4)) >= 0.85


@pytest.mark.slow
def test_alexnet_learns_the_real_images(tool, real_palm, tmp_path):
    assert max(accuracies(tool, tmp_path, "--model", "alexnet", "--data", real_palm, "--epochs", 3)) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("model", "low", "high"), [("lenet", 0.4, 0.6), ("lenet-relu", 0.8, 1.0)])
def test_lenet_converges_with_relu_and_not_with_sigmoid(tool, real_palm, tmp_path, model, low, high):
    assert low <= max(accuracies(tool, tmp_path, "--model", model, "--data", real_palm, "--epochs", 2)) <= high
