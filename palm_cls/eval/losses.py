"""The lesson's loss."""

from palm_cls.core.device import paddle

F = paddle.nn.functional

AUXILIARY_WEIGHT = 0.3  # of the loss of an auxiliary head, in the paper of GoogLeNet


def cross_entropy(logits, labels, reduction="mean"):
    """The lesson's loss: sigmoid cross-entropy for one class, softmax cross-entropy for more.

    logits: float32 [N, num_classes]; labels: [N, 1], float32 0 or 1 for one class, int64 class numbers for more.
    Returns the mean over the batch, float32 [], or with reduction "none" the samples' losses, float32 [N, 1].
    """
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, labels, reduction=reduction)
    # Not F.binary_cross_entropy_with_logits: in paddle 3.3.1 its gradient is off by -1 where a logit is exactly 0.
    losses = labels * F.softplus(-logits) + (1 - labels) * F.softplus(logits)
    return losses if reduction == "none" else losses.mean()


def training_loss(outputs, labels):
    """What a network gives in training as (loss, logits), float32 [] and [N, num_classes].

    outputs: logits, or a tuple of them, whose first are the network's answer and whose others come from auxiliary
    heads. The loss is the `cross_entropy` of the answer, and 0.3 of that of each auxiliary head.
    """
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = cross_entropy(logits, labels)
    for others in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * cross_entropy(others, labels)
    return loss, logits
