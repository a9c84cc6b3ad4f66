"""The lesson's loss and accuracy, and `evaluation`: trained weights on images that they were not trained on."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from palm_cls.checkpoints.weights import load
from palm_cls.core.device import paddle
from palm_cls.data.base_loader import as_loader
from palm_cls.eval.engine import predictor
from palm_cls.eval.losses import cross_entropy
from palm_cls.eval.metrics import is_positive


@dataclass(frozen=True)
class Predictions:
    """Logits of a network for all images of a loader, in its order."""

    names: list  # of str, or None if the loader has no names
    labels: np.ndarray  # [N, 1], as the loader yields them
    logits: np.ndarray  # float32 [N, num_classes]


def predicted_classes(logits):
    """Return int64 [N] for logits [N, num_classes]; of one class, by `is_positive`."""
    if logits.shape[1] == 1:
        return is_positive(paddle.nn.functional.sigmoid(logits)).astype("int64").flatten().numpy()
    return np.argmax(logits.numpy(), axis=1)


def count_correct(logits, labels):
    """Count the images whose predicted class is their label; tensors [N, num_classes] and [N, 1]."""
    return int((predicted_classes(logits) == labels.numpy().flatten()).sum())


def compute_metrics(logits, labels):
    """Compute {"images", "loss", "accuracy"}; every image has the same weight, whatever the batches were."""
    logits, labels = paddle.to_tensor(logits), paddle.to_tensor(labels)
    losses = cross_entropy(logits, labels, reduction="none").numpy()
    accuracy = count_correct(logits, labels) / len(losses)
    return {"images": len(losses), "loss": float(losses.mean(dtype="float64")), "accuracy": accuracy}


def evaluate(model, loader):
    """Compute the metrics of a network on all images of a loader."""
    predictions = predict_all(model, loader)
    return compute_metrics(predictions.logits, predictions.labels)


def predict_all(model, loader):
    """Predict all images of a loader in evaluation mode, and restore the mode."""
    loader = as_loader(loader)
    loader.check_fits(model)
    batches = tqdm(loader(), "validation", loader.num_batches, leave=False, disable=None)
    with predictor(model, loader.num_samples or 0) as predict:
        logits, labels = zip(*((predict(imgs), labels) for imgs, labels in batches))
    return Predictions(loader.order, np.concatenate(labels), np.concatenate(logits))


def evaluation(model, params_file_path, loader, remark=""):
    """Load weights, evaluate them on a loader, print and return loss and accuracy.

    Args:
        model: A network that the weights fit, else InputError; it receives them.
        params_file_path: A `.pdparams` file, also without its suffix, or a run directory.
        loader: As `valid_data_loader` returns it.
        remark: Text after the printed result.

    Returns:
        {"images", "loss", "accuracy"}: the mean cross-entropy in nats and a share of 1, over all images.
    """
    load(params_file_path, model)
    print("start evaluation .......")
    result = evaluate(model, loader)
    print(f"loss={result['loss']}, acc={result['accuracy']} {remark}".rstrip())
    return result
