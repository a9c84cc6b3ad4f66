"""Small networks for images of 28 x 28 pixels: LeNet of a textbook, and a modern convolutional network.

Both return logits; their softmax are probabilities. Shapes beside the layers are those of one image, [channels, height,
width].
"""

from palm_cls.core.device import paddle
from palm_cls.models.layers import Conv2D

import paddle.nn as nn
import paddle.nn.functional as F


class LeNetFashion(nn.Layer):
    """LeNet that "Dive into Deep Learning" trains on Fashion-MNIST: sigmoid, average pooling, 61,706 parameters.

    Input float32 [N, 1, 28, 28], output logits float32 [N, num_classes]. Initial weights are Xavier uniform, biases
    zero, as in the book's MXNet and TensorFlow code. (Its PyTorch code keeps torch's default for biases, uniform within
    1 / sqrt(fan-in); its Paddle code creates an initialiser without applying it.) A. Zhang et al., Dive into Deep
    Learning, section 7.6, which follows LeCun et al., Proc. IEEE 86 (1998).

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes=10):
        super().__init__()
        self.input_shape = (1, 28, 28)
        xavier = nn.initializer.XavierUniform()  # the default of nn.Linear
        # fmt: off
        self.conv1 = Conv2D(1, 6, kernel_size=5, padding=2, weight_attr=xavier)     # 6 x 28 x 28
        self.pool1 = nn.AvgPool2D(kernel_size=2, stride=2)                          # 6 x 14 x 14
        self.conv2 = Conv2D(6, 16, kernel_size=5, weight_attr=xavier)               # 16 x 10 x 10
        self.pool2 = nn.AvgPool2D(kernel_size=2, stride=2)                          # 16 x 5 x 5
        # fmt: on
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):
        x = self.pool1(F.sigmoid(self.conv1(x)))
        x = self.pool2(F.sigmoid(self.conv2(x)))
        x = paddle.flatten(x, start_axis=1)
        x = F.sigmoid(self.fc1(x))
        x = F.sigmoid(self.fc2(x))
        return self.fc3(x)


class CNNMnist(nn.Layer):
    """The usual convolutional network of MNIST tutorials: ReLU, maximum pooling, dropout, 206,922 parameters.

    Input float32 [N, 1, 28, 28], output logits float32 [N, num_classes]. Initial weights are paddle's defaults.

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes=10):
        super().__init__()
        self.input_shape = (1, 28, 28)
        # fmt: off
        self.conv1 = Conv2D(1, 16, kernel_size=3, padding=1)      # 16 x 28 x 28
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)        # 16 x 14 x 14
        self.conv2 = Conv2D(16, 32, kernel_size=3, padding=1)     # 32 x 14 x 14
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)        # 32 x 7 x 7
        # fmt: on
        self.fc1 = nn.Linear(32 * 7 * 7, 128)
        self.drop = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x):
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = paddle.flatten(x, start_axis=1)
        x = self.drop(F.relu(self.fc1(x)))
        return self.fc2(x)
