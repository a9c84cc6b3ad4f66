"""LeNet and AlexNet as the course wrote them.

Both return logits: a probability is their sigmoid (one class) or softmax (more). Shapes beside the layers are those of
one image, [channels, height, width]. Weights start as in the course, which are paddle's defaults: convolutions normal
with variance 2 / fan-in, fully connected layers Xavier uniform, biases zero.
"""

import contextlib
from collections import namedtuple

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from palm_cls.messages import aligned

ACTIVATIONS = {"sigmoid": F.sigmoid, "relu": F.relu}


class Conv2D(nn.Conv2D):
    """nn.Conv2D to the bit, and faster on the CPU: paddle adds a bias of shape [1, C, 1, 1] slowly, [C, 1, 1] fast.

    attributes: weight_attr and bias_attr, as nn.Conv2D takes them; a bias there must be.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, **attributes):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, **attributes)

    def forward(self, x):
        features = F.conv2d(x, self.weight, stride=self._stride, padding=self._padding, groups=self._groups)
        return features + self.bias.reshape([-1, 1, 1])


class LeNet(nn.Layer):
    """The course's LeNet: three convolutions, two poolings, two fully connected layers.

    Takes float32 [N, in_channels, image_size, image_size], returns logits float32 [N, num_classes]. The course uses it
    for digits, LeNet(num_classes=10, in_channels=1, image_size=28), and for fundus images, LeNet(num_classes=1).
    activation: the course's "sigmoid", or "relu". Raises ValueError for any other, and for fewer than 28 pixels.
    After LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).
    """

    def __init__(self, num_classes=1, in_channels=3, image_size=224, activation="sigmoid"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
        if image_size < 28:
            raise ValueError(f"image_size {image_size} is too small: the convolutions need at least 28 pixels")
        self.input_shape = (in_channels, image_size, image_size)
        self.activation = ACTIVATIONS[activation]
        side = ((image_size - 4) // 2 - 4) // 2 - 3  # of the last feature map
        # fmt: off
        #                                                          3 x 224 x 224    1 x 28 x 28
        self.conv1 = Conv2D(in_channels, 6, kernel_size=5)       # 6 x 220 x 220    6 x 24 x 24
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)       # 6 x 110 x 110    6 x 12 x 12
        self.conv2 = Conv2D(6, 16, kernel_size=5)                # 16 x 106 x 106   16 x 8 x 8
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)       # 16 x 53 x 53     16 x 4 x 4
        self.conv3 = Conv2D(16, 120, kernel_size=4)              # 120 x 50 x 50    120 x 1 x 1
        self.fc1 = nn.Linear(120 * side * side, 64)              # 300000 -> 64     120 -> 64
        # fmt: on
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.pool1(self.activation(self.conv1(x)))
        x = self.pool2(self.activation(self.conv2(x)))
        x = self.activation(self.conv3(x))
        x = paddle.flatten(x, start_axis=1)
        x = self.activation(self.fc1(x))
        return self.fc2(x)


class AlexNet(nn.Layer):
    """The course's AlexNet: five convolutions, three poolings, three fully connected layers, ReLU, dropout.

    Takes float32 [N, 3, 224, 224], returns logits float32 [N, num_classes]. Its dropout is that of PaddlePaddle 1.6:
    training multiplies by the mask, evaluation by 0.5. After Krizhevsky et al., ImageNet classification with deep
    convolutional neural networks, NIPS 2012.
    """

    def __init__(self, num_classes=1):
        super().__init__()
        self.input_shape = (3, 224, 224)
        # fmt: off
        self.conv1 = Conv2D(3, 96, kernel_size=11, stride=4, padding=5)     # 96 x 56 x 56
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)                  # 96 x 28 x 28
        self.conv2 = Conv2D(96, 256, kernel_size=5, padding=2)              # 256 x 28 x 28
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)                  # 256 x 14 x 14
        self.conv3 = Conv2D(256, 384, kernel_size=3, padding=1)             # 384 x 14 x 14
        self.conv4 = Conv2D(384, 384, kernel_size=3, padding=1)             # 384 x 14 x 14
        self.conv5 = Conv2D(384, 256, kernel_size=3, padding=1)             # 256 x 14 x 14
        self.pool5 = nn.MaxPool2D(kernel_size=2, stride=2)                  # 256 x 7 x 7
        # fmt: on
        self.fc1 = nn.Linear(256 * 7 * 7, 4096)
        self.drop1 = nn.Dropout(0.5, mode="downscale_in_infer")
        self.fc2 = nn.Linear(4096, 4096)
        self.drop2 = nn.Dropout(0.5, mode="downscale_in_infer")
        self.fc3 = nn.Linear(4096, num_classes)

    def forward(self, x):
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool5(F.relu(self.conv5(x)))
        x = paddle.flatten(x, start_axis=1)
        x = self.drop1(F.relu(self.fc1(x)))
        x = self.drop2(F.relu(self.fc2(x)))
        return self.fc3(x)


@contextlib.contextmanager
def evaluating(model):
    """For a while a network is in evaluation mode; then each of its layers is in its own mode again."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


# name: str; output_shape: list of int with the batch first; weight_shape, bias_shape: list of int, or None
LayerRow = namedtuple("LayerRow", ("name", "output_shape", "weight_shape", "bias_shape"))


def layer_table(model, batch_size=10):
    """The lesson's table of layers: a list of LayerRow in forward order.

    It comes from one forward pass of a batch of zeros in evaluation mode; the network stays as it was. A layer that
    consists of others is left out for them; one that is used several times has as many rows.
    """
    rows = []

    def note(name, layer, output):
        parameters = [getattr(layer, kind, None) for kind in ("weight", "bias")]
        shapes = [None if parameter is None else list(parameter.shape) for parameter in parameters]
        rows.append(LayerRow(name, list(output.shape), *shapes))

    hooks = [
        layer.register_forward_post_hook(lambda layer, inputs, output, name=name: note(name, layer, output))
        for name, layer in model.named_sublayers()
        if not layer.sublayers()
    ]
    try:
        with evaluating(model), paddle.no_grad():
            model(paddle.zeros([batch_size, *model.input_shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def head_layers(model):
    """Names of the layers that give the logits: those that the network tells as `heads`, else its last nn.Linear."""
    linears = [name for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)]
    return tuple(getattr(model, "heads", linears[-1:]))


def parameter_count(model):
    """Number of trainable parameters."""
    return sum(int(parameter.size) for parameter in model.parameters() if not parameter.stop_gradient)


def format_summary(model):
    """The table of a network's layers and the number of its parameters, as text (str) for people.

    model: one of ours, or any paddle.nn.Layer that tells the shape of an image as `input_shape`, (channels, height,
    width). Shapes of outputs are those of a batch of ten; see `layer_table`.
    """
    heads = ("layer", "output shape", "weight shape", "bias shape")
    rows = [heads, *([row.name, *("" if s is None else str(s) for s in row[1:])] for row in layer_table(model))]
    return "\n".join([*aligned(rows), f"parameters: {parameter_count(model):,}"])
