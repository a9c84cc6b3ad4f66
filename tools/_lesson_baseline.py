"""The baseline of tools/bench.py: the lesson as written, with Paddle's defaults, and its networks in PyTorch.

Reader, training loop and validation are the lesson's, line by line; only the calls of PaddlePaddle 1.6 are replaced by
today's. This file imports nothing of palm_cls, which could make this side faster or slower.
"""

import random

import cv2
import numpy as np

# The arguments are those that paddle.nn and torch.nn have in common.
# fmt: off
LAYERS = {
    "lenet": (
        ("Conv2D", 3, 6, 5), ("Sigmoid",), ("MaxPool2D", 2, 2),
        ("Conv2D", 6, 16, 5), ("Sigmoid",), ("MaxPool2D", 2, 2),
        ("Conv2D", 16, 120, 4), ("Sigmoid",), ("Flatten",),
        ("Linear", 300000, 64), ("Sigmoid",),
        ("Linear", 64, 1),
    ),
    "alexnet": (
        ("Conv2D", 3, 96, 11, 4, 5), ("ReLU",), ("MaxPool2D", 2, 2),
        ("Conv2D", 96, 256, 5, 1, 2), ("ReLU",), ("MaxPool2D", 2, 2),
        ("Conv2D", 256, 384, 3, 1, 1), ("ReLU",),
        ("Conv2D", 384, 384, 3, 1, 1), ("ReLU",),
        ("Conv2D", 384, 256, 3, 1, 1), ("ReLU",), ("MaxPool2D", 2, 2), ("Flatten",),
        ("Linear", 12544, 4096), ("ReLU",), ("Dropout", 0.5),
        ("Linear", 4096, 4096), ("ReLU",), ("Dropout", 0.5),
        ("Linear", 4096, 1),
    ),
}
# fmt: on


def transform_img(img):
    img = cv2.resize(img, (224, 224))
    img = np.transpose(img, (2, 0, 1))
    img = img.astype("float32")
    img = img / 255.0
    img = img * 2.0 - 1.0
    return img  # noqa: RET504  the lesson's lines


def lesson_reader(samples, batch_size=10, mode="train"):
    """Make a reader as the lesson's data_loader and valid_data_loader, which differ in the source of the samples.

    Args:
        samples: [(path, label), ...].
        batch_size: Images in a batch.
        mode: "train" shuffles the samples.
    """

    def reader():
        if mode == "train":
            random.shuffle(samples)
        batch_imgs, batch_labels = [], []
        for path, label in samples:
            batch_imgs.append(transform_img(cv2.imread(path)))
            batch_labels.append(label)
            if len(batch_imgs) == batch_size:
                yield np.array(batch_imgs).astype("float32"), np.array(batch_labels).astype("float32").reshape(-1, 1)
                batch_imgs, batch_labels = [], []
        if batch_imgs:
            yield np.array(batch_imgs).astype("float32"), np.array(batch_labels).astype("float32").reshape(-1, 1)

    return reader


def lesson_network(name):
    """Build a network of LAYERS in Paddle, with the dropout of PaddlePaddle 1.6."""
    import paddle

    def layer(kind, *arguments):
        options = {"mode": "downscale_in_infer"} if kind == "Dropout" else {}
        return getattr(paddle.nn, kind)(*arguments, **options)

    return paddle.nn.Sequential(*[layer(*row) for row in LAYERS[name]])


def lesson_train(model, train_loader, valid_loader, epochs=5):
    """Train as the lesson's train(model) does; returns the last (accuracy, loss)."""
    import paddle
    import paddle.nn.functional as F

    print("start training ... ")
    model.train()
    opt = paddle.optimizer.Momentum(learning_rate=0.001, momentum=0.9, parameters=model.parameters())
    for epoch in range(epochs):
        for batch_id, (x_data, y_data) in enumerate(train_loader()):
            img = paddle.to_tensor(x_data)
            label = paddle.to_tensor(y_data)
            logits = model(img)
            avg_loss = F.binary_cross_entropy_with_logits(logits, label)
            if batch_id % 10 == 0:
                print(f"epoch: {epoch}, batch_id: {batch_id}, loss is: {avg_loss.numpy()}")
            avg_loss.backward()
            opt.step()
            opt.clear_grad()
        model.eval()
        accuracies, losses = [], []
        for x_data, y_data in valid_loader():
            img = paddle.to_tensor(x_data)
            label = paddle.to_tensor(y_data)
            logits = model(img)
            pred = F.sigmoid(logits)
            loss = F.binary_cross_entropy_with_logits(logits, label)
            pred = paddle.concat([pred * (-1.0) + 1.0, pred], axis=1)
            accuracies.append(paddle.metric.accuracy(pred, label.astype("int64")).numpy())
            losses.append(loss.numpy())
        print(f"[validation] accuracy/loss: {np.mean(accuracies)}/{np.mean(losses)}")
        model.train()
    return float(np.mean(accuracies)), float(np.mean(losses))


def torch_network(name):
    """Build a network of LAYERS in PyTorch.

    Its dropout doubles in training, where the lesson's halves in evaluation.
    """
    import torch

    return torch.nn.Sequential(
        *[getattr(torch.nn, kind.replace("2D", "2d"))(*arguments) for kind, *arguments in LAYERS[name]]
    )


def torch_train(model, train_loader, epochs=1):
    """Train with the lesson's loop in eager PyTorch, without validation."""
    import torch

    model.train()
    opt = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    loss_function = torch.nn.BCEWithLogitsLoss()
    for epoch in range(epochs):
        for batch_id, (x_data, y_data) in enumerate(train_loader()):
            loss = loss_function(model(torch.from_numpy(x_data)), torch.from_numpy(y_data))
            if batch_id % 10 == 0:
                print(f"epoch: {epoch}, batch_id: {batch_id}, loss is: {loss.item()}")
            loss.backward()
            opt.step()
            opt.zero_grad()
