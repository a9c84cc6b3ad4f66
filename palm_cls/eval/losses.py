"""The lesson's loss."""

from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError

F = paddle.nn.functional

AUXILIARY_WEIGHT = 0.3  # of the loss of an auxiliary head, in the paper of GoogLeNet


def cross_entropy(logits, labels, reduction="mean"):
    """Compute the lesson's loss: sigmoid cross-entropy for one class, softmax cross-entropy for more.

    Args:
        logits: float32 [N, num_classes].
        labels: [N, 1], float32 0 or 1 for one class, int64 class numbers for more.
        reduction: "mean", or "none" for the loss of each image.

    Returns:
        float32 [] in nats, or [N, 1] without reduction.

    Raises:
        InputError: the labels are of more classes than the network has logits for, or of two for several logits.
    """
    _check_labels(logits, labels)
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, labels, reduction=reduction)
    # Not F.binary_cross_entropy_with_logits: in paddle 3.3.1 its gradient is off by -1 where a logit is exactly 0.
    losses = labels * F.softplus(-logits) + (1 - labels) * F.softplus(logits)
    return losses if reduction == "none" else losses.mean()


def _check_labels(logits, labels):
    """Raise InputError unless labels are floats for one logit, and class numbers for more."""
    are_numbers, num_logits = "int" in str(labels.dtype), logits.shape[1]
    if are_numbers != (num_logits > 1):
        expected = "int64, the numbers of classes" if num_logits > 1 else "float32, 0 or 1: three classes take 3 logits"
        raise InputError(
            f"labels of {labels.dtype} for a network with {num_logits} logit{'s' if num_logits > 1 else ''}; expected "
            f"{expected}"
        )


def training_loss(outputs, labels, loss_weights=None):
    """Compute the loss of what a network returns in training mode.

    Args:
        outputs: Logits [N, num_classes], or a tuple of the logits and those of auxiliary heads.
        labels: As for `cross_entropy`.
        loss_weights: Factor of each class, by which the losses of its images are multiplied; None for 1.

    Returns:
        (loss, logits), float32 [] and [N, num_classes]: the `cross_entropy` of the logits plus 0.3 times that of each
        auxiliary head, and the logits.
    """
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = _mean_loss(logits, labels, loss_weights)
    for others in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * _mean_loss(others, labels, loss_weights)
    return loss, logits


def _mean_loss(logits, labels, loss_weights):
    if loss_weights is None:
        return cross_entropy(logits, labels)
    weights = paddle.to_tensor(loss_weights, "float32")[labels.astype("int64")]
    return (weights * cross_entropy(logits, labels, reduction="none")).mean()
