"""Two small networks for grey images of 28x28 pixels and ten classes.

Both return logits. Shapes beside the layers are those of one image, [channels, height, width].
"""

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from palm_cls.models import Conv2D


class LeNetFashion(nn.Layer):
    """LeNet with sigmoid and mean pooling: float32 [N, 1, 28, 28] -> logits float32 [N, 10].

    All weights start Xavier uniform, biases zero.
    """

    def __init__(self):
        super().__init__()
        self.input_shape = (1, 28, 28)
        xavier = nn.initializer.XavierUniform()
        self.conv1 = nn.Conv2D(1, 6, kernel_size=5, padding=2, weight_attr=xavier)  # 6 x 28 x 28
        self.pool1 = nn.AvgPool2D(kernel_size=2, stride=2)  # 6 x 14 x 14
        self.conv2 = nn.Conv2D(6, 16, kernel_size=5, weight_attr=xavier)  # 16 x 10 x 10
        self.pool2 = nn.AvgPool2D(kernel_size=2, stride=2)  # 16 x 5 x 5
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool1(F.sigmoid(self.conv1(x)))
        x = self.pool2(F.sigmoid(self.conv2(x)))
        x = paddle.flatten(x, start_axis=1)
        x = F.sigmoid(self.fc1(x))
        x = F.sigmoid(self.fc2(x))
        return self.fc3(x)


class CNNMnist(nn.Layer):
    """Two convolutions and two fully connected layers with ReLU: float32 [N, 1, 28, 28] -> logits float32 [N, 10]."""

    def __init__(self):
        super().__init__()
        self.input_shape = (1, 28, 28)
        self.conv1 = Conv2D(1, 16, kernel_size=3, padding=1)  # 16 x 28 x 28
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)  # 16 x 14 x 14
        self.conv2 = Conv2D(16, 32, kernel_size=3, padding=1)  # 32 x 14 x 14
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)  # 32 x 7 x 7
        self.fc1 = nn.Linear(32 * 7 * 7, 128)
        self.drop = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = paddle.flatten(x, start_axis=1)
        return self.fc2(self.drop(F.relu(self.fc1(x))))
