"""LeNet of the course. Shapes beside the layers are those of one image, [channels, height, width]."""

from palm_cls.core.device import paddle
from palm_cls.models.layers import Conv2D

import paddle.nn as nn
import paddle.nn.functional as F

ACTIVATIONS = {"sigmoid": F.sigmoid, "relu": F.relu}


class LeNet(nn.Layer):
    """The course's LeNet: three convolutions, two poolings, two fully connected layers.

    Input float32 [N, in_channels, image_size, image_size], output logits float32 [N, num_classes]. The course uses it
    for digits, LeNet(num_classes=10, in_channels=1, image_size=28), and for fundus images, LeNet(num_classes=1).
    Initial weights: convolutions normal with variance 2 / fan-in, linear layers Xavier uniform, biases 0 (paddle's and
    the course's defaults). LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).

    Args:
        num_classes: number of logits; their sigmoid (one class) or softmax (more) are probabilities.
        in_channels, image_size: of the images, at least 28 x 28 pixels.
        activation: "sigmoid", as in the course, or "relu".

    Raises:
        ValueError: another activation, or a smaller image_size.
    """

    def __init__(self, num_classes=1, in_channels=3, image_size=224, activation="sigmoid"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
        if image_size < 28:
            raise ValueError(f"image_size {image_size} is too small: the convolutions need at least 28 pixels")
        self.input_shape = (in_channels, image_size, image_size)
        self.activation = ACTIVATIONS[activation]
        size = ((image_size - 4) // 2 - 4) // 2 - 3  # of the last feature map
        # fmt: off
        #                                                          3 x 224 x 224    1 x 28 x 28
        self.conv1 = Conv2D(in_channels, 6, kernel_size=5)       # 6 x 220 x 220    6 x 24 x 24
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)       # 6 x 110 x 110    6 x 12 x 12
        self.conv2 = Conv2D(6, 16, kernel_size=5)                # 16 x 106 x 106   16 x 8 x 8
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)       # 16 x 53 x 53     16 x 4 x 4
        self.conv3 = Conv2D(16, 120, kernel_size=4)              # 120 x 50 x 50    120 x 1 x 1
        self.fc1 = nn.Linear(120 * size * size, 64)              # 300000 -> 64     120 -> 64
        # fmt: on
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.pool1(self.activation(self.conv1(x)))
        x = self.pool2(self.activation(self.conv2(x)))
        x = self.activation(self.conv3(x))
        x = paddle.flatten(x, start_axis=1)
        x = self.activation(self.fc1(x))
        return self.fc2(x)
