"""AlexNet of the course. Shapes beside the layers are those of one image, [channels, height, width]."""

from palm_cls.core.device import paddle
from palm_cls.models.layers import Conv2D

import paddle.nn as nn
import paddle.nn.functional as F


class AlexNet(nn.Layer):
    """The course's AlexNet: five convolutions, three poolings, three fully connected layers, ReLU, dropout.

    Input float32 [N, 3, 224, 224], output logits float32 [N, num_classes]. Dropout is that of PaddlePaddle 1.6:
    training multiplies by the mask, evaluation by 0.5. Initial weights: convolutions normal with variance 2 / fan-in,
    linear layers Xavier uniform, biases 0 (paddle's and the course's defaults). Krizhevsky et al., ImageNet
    classification with deep convolutional neural networks, NIPS 2012.

    Args:
        num_classes: number of logits; their sigmoid (one class) or softmax (more) are probabilities.
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
