"""A small network with its optimizer, and what is in a file of weights."""

import numpy as np

from palm_cls.models.lenet import LeNet

import paddle

ON_DEMO_SET = {  # metadata of the weights of a fundus recipe that was trained on the demo set, but for its name
    "input": {"size": 224, "channels": "BGR", "range": [-1.0, 1.0]},
    "classes": ["no pathological myopia", "pathological myopia"],
    "demo": True,
}


def network(seed):
    paddle.seed(seed)
    return LeNet(num_classes=2, in_channels=1, image_size=28)


def momentum(model):
    return paddle.optimizer.Momentum(0.01, 0.9, parameters=model.parameters())


def step(model, optimizer, seed):
    imgs = np.random.RandomState(seed).rand(4, 1, 28, 28).astype("float32")
    model(paddle.to_tensor(imgs)).square().mean().backward()
    optimizer.step()
    optimizer.clear_grad()


def weights(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
