"""The lesson's loss and accuracy, and `evaluation`: trained weights on images they were not trained on."""

from collections import namedtuple

import numpy as np
from tqdm import tqdm

from palm_cls.checkpoints.weights import load
from palm_cls.core.device import paddle
from palm_cls.eval.engine import logits_function
from palm_cls.eval.losses import cross_entropy

import paddle.nn.functional as F

# Of the images of a reader, in its order: names, list of str or None; labels, [N, 1], and logits, [N, num_classes], as
# the reader and the network gave them.
Predictions = namedtuple("Predictions", ("names", "labels", "logits"))


def predicted_classes(logits):
    """Classes int64 [N] for logits [N, num_classes]: with one class 1 where the probability is above (not at) 0.5."""
    if logits.shape[1] == 1:
        return (F.sigmoid(logits) > 0.5).astype("int64").flatten().numpy()
    return np.argmax(logits.numpy(), axis=1)


def measures(logits, labels):
    """{"images", "loss", "accuracy"} over all samples together, each weighing the same whatever the batches were."""
    logits, labels = paddle.to_tensor(logits), paddle.to_tensor(labels)
    losses = cross_entropy(logits, labels, reduction="none").numpy()
    hits = predicted_classes(logits) == labels.numpy().flatten()
    return {"images": len(hits), "loss": float(losses.mean(dtype="float64")), "accuracy": float(hits.mean())}


def evaluate(model, loader):
    """The `measures` of a network, in evaluation mode, on all images of a reader; its mode is put back afterwards."""
    predictions = predict_all(model, loader)
    return measures(predictions.logits, predictions.labels)


def predict_all(model, loader):
    """The Predictions of a network, in evaluation mode, for all images of a reader; its mode is put back afterwards."""
    batches = tqdm(loader(), "validation", getattr(loader, "num_batches", None), leave=False, disable=None)
    with logits_function(model, getattr(loader, "num_samples", 0)) as logits_of:
        results = [
            (_averaged(logits_of, imgs) if imgs.ndim == 5 else logits_of(imgs), labels) for imgs, labels in batches
        ]
    logits, labels = zip(*results)
    return Predictions(getattr(loader, "order", None), np.concatenate(labels), np.concatenate(logits))


def _averaged(logits_of, imgs):
    """The logits [N, num_classes] of the mean probabilities of the views of images, float32 [N, views, C, H, W]."""
    from scipy.special import log_expit, log_softmax, logsumexp

    logits = logits_of(imgs.reshape(-1, *imgs.shape[2:])).reshape(*imgs.shape[:2], -1).astype("float64")
    if logits.shape[2] > 1:
        return logsumexp(log_softmax(logits, axis=2), axis=1).astype("float32")
    return (logsumexp(log_expit(logits), axis=1) - logsumexp(log_expit(-logits), axis=1)).astype("float32")


def evaluation(model, params_file_path, loader, remark=""):
    """The lesson's function: load weights, evaluate on a reader, print and return {"images", "loss", "accuracy"}.

    model: a network as the weights are of, which takes them; params_file_path: a `.pdparams` file (its suffix may be
    left out, as in the lesson) or a run directory; loader: a reader, as `valid_data_loader` returns it; remark: text
    after the result. The loss is the mean cross-entropy in nats, the accuracy a share, both over all images together,
    whatever the batches. Raises InputError for weights that are missing, damaged, or of another network.
    """
    load(params_file_path, model)
    print("start evaluation .......")
    result = evaluate(model, loader)
    print(f"loss={result['loss']}, acc={result['accuracy']} {remark}".rstrip())
    return result
