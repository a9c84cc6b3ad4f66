"""The AUC of three classes or more among a run's scalars."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import LOG_COLUMNS
from palm_cls.eval.evaluate import Predictions
from palm_cls.training.visualdl import FILE, FOLDER, Scalars

pytest.importorskip("visualdl", reason="needs VisualDL: python -m pip install visualdl")


@pytest.mark.parametrize("present", [3, 2])
def test_it_is_the_mean_of_each_class_against_all_others(tmp_path, present):
    """Without an image of one of the classes there is none."""
    from visualdl import LogReader

    rng = np.random.default_rng(0)
    labels, logits = np.arange(30)[:, None] % present, rng.normal(size=(30, 3)).astype("float32")
    writer = Scalars(tmp_path, run_dir.TrainState(seed=0))
    writer.epoch({"epoch": 0, **dict.fromkeys(LOG_COLUMNS, 0.5)}, Predictions(None, labels, logits))
    writer.close()
    reader = LogReader(file_path=str(tmp_path / FOLDER / FILE))
    assert ("epoch/valid_auc" in reader.get_tags()["scalar"]) == (present == 3)
    if present == 3:
        (record,) = reader.get_data("scalar", "epoch/valid_auc")
        expected = roc_auc_score(labels[:, 0], softmax(logits.astype("float64"), axis=1), multi_class="ovr")
        assert record.value == pytest.approx(expected, rel=1e-6)
