"""The lesson's loss."""

from palm_cls.core.device import paddle

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
    """
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, labels, reduction=reduction)
    # Not F.binary_cross_entropy_with_logits: in paddle 3.3.1 its gradient is off by -1 where a logit is exactly 0.
    losses = labels * F.softplus(-logits) + (1 - labels) * F.softplus(logits)
    return losses if reduction == "none" else losses.mean()


def training_loss(outputs, labels):
    """Compute the loss of what a network returns in training mode.

    Args:
        outputs: Logits [N, num_classes], or a tuple of the logits and those of auxiliary heads.
        labels: As for `cross_entropy`.

    Returns:
        (loss, logits), float32 [] and [N, num_classes]: the `cross_entropy` of the logits plus 0.3 times that of each
        auxiliary head, and the logits.
    """
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = cross_entropy(logits, labels)
    for others in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * cross_entropy(others, labels)
    return loss, logits
