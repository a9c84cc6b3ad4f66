"""Other AlexNets: the paper's, torchvision's, and one written for Keras.

Input float32 [N, 3, 224, 224], output logits float32 [N, num_classes]; their sigmoid (one class) or softmax (more) are
probabilities. Shapes beside the layers are those of one image, [channels, height, width]. Dropout scales up in
training, which is paddle's default; the course's AlexNet scales down in evaluation.
"""

from palm_cls.core.device import paddle
from palm_cls.models.layers import Conv2D

import paddle.nn as nn
import paddle.nn.functional as F


class LocalResponseNorm(nn.Layer):
    """Local response normalisation: divide each value by a norm over neighbouring channels.

    Input and output [N, C, H, W]: a / (k + alpha * sum of a^2)^beta, the sum over the channel, size // 2 before it and
    size // 2 after it. Krizhevsky et al., NIPS 2012, section 3.3. (paddle's F.local_response_norm uses the mean instead
    of the sum, and takes ten times as long.)

    Args:
        size: number of channels in the sum.
        k, alpha: constants of the formula.
        beta: 0.5 or 0.75.

    Raises:
        ValueError: another beta.
    """

    def __init__(self, size, k, alpha, beta):
        super().__init__()
        if beta not in (0.5, 0.75):
            raise ValueError(f"beta {beta} is neither 0.5 nor 0.75")
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x):
        band = paddle.ones([x.shape[1], x.shape[1]], x.dtype).triu(-(self.size // 2)).tril(self.size // 2)  # C x C
        sums = paddle.matmul(band, paddle.flatten(x * x, start_axis=2))  # C x HW
        root = paddle.rsqrt(self.k + self.alpha * sums.reshape([-1, *x.shape[1:]]))
        return x * (root if self.beta == 0.5 else root * paddle.sqrt(root))  # paddle's power is slow


class AlexNetPaper(nn.Layer):
    """AlexNet of the paper: local response normalisation, overlapping pooling, convolutions in two groups.

    Each group stayed on one of the paper's two GPUs. Initial weights are normal with standard deviation 0.01, biases 1
    in the convolutions 2, 4, 5 and the hidden fully connected layers, 0 elsewhere. 60,965,224 parameters at the paper's
    1000 classes, 56,872,321 at one. Krizhevsky et al., ImageNet classification with deep convolutional neural networks,
    NIPS 2012. The paper does not mention the padding of 2 pixels, without which 224 pixels do not give 55.

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes=1):
        super().__init__()
        self.input_shape = (3, 224, 224)
        zeros = {"weight_attr": nn.initializer.Normal(0.0, 0.01)}
        ones = {**zeros, "bias_attr": nn.initializer.Constant(1.0)}
        # fmt: off
        self.conv1 = Conv2D(3, 96, kernel_size=11, stride=4, padding=2, **zeros)        # 96 x 55 x 55
        self.norm1 = LocalResponseNorm(5, k=2, alpha=1e-4, beta=0.75)                   # 96 x 55 x 55
        self.pool1 = nn.MaxPool2D(kernel_size=3, stride=2)                              # 96 x 27 x 27
        self.conv2 = Conv2D(96, 256, kernel_size=5, padding=2, groups=2, **ones)        # 256 x 27 x 27
        self.norm2 = LocalResponseNorm(5, k=2, alpha=1e-4, beta=0.75)                   # 256 x 27 x 27
        self.pool2 = nn.MaxPool2D(kernel_size=3, stride=2)                              # 256 x 13 x 13
        self.conv3 = Conv2D(256, 384, kernel_size=3, padding=1, **zeros)                # 384 x 13 x 13
        self.conv4 = Conv2D(384, 384, kernel_size=3, padding=1, groups=2, **ones)       # 384 x 13 x 13
        self.conv5 = Conv2D(384, 256, kernel_size=3, padding=1, groups=2, **ones)       # 256 x 13 x 13
        self.pool5 = nn.MaxPool2D(kernel_size=3, stride=2)                              # 256 x 6 x 6
        # fmt: on
        self.fc1 = nn.Linear(256 * 6 * 6, 4096, **ones)
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(4096, 4096, **ones)
        self.drop2 = nn.Dropout(0.5)
        self.fc3 = nn.Linear(4096, num_classes, **zeros)

    def forward(self, x):
        x = self.pool1(self.norm1(F.relu(self.conv1(x))))
        x = self.pool2(self.norm2(F.relu(self.conv2(x))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool5(F.relu(self.conv5(x)))
        x = paddle.flatten(x, start_axis=1)
        x = self.drop1(F.relu(self.fc1(x)))
        x = self.drop2(F.relu(self.fc2(x)))
        return self.fc3(x)


def _torch_initializers(fan_in):
    """torch's defaults: weights and biases uniform within 1 / sqrt(fan-in)."""
    uniform = nn.initializer.Uniform(-(fan_in**-0.5), fan_in**-0.5)
    return {"weight_attr": uniform, "bias_attr": uniform}


class AlexNetTorchvision(nn.Layer):
    """AlexNet of torchvision: narrower first convolutions, overlapping pooling, no normalisation.

    `palm_cls.load` reads torchvision's own weights into it. Initial weights and biases are torch's, uniform within
    1 / sqrt(fan-in). 61,100,840 parameters at ImageNet's 1000 classes, 57,007,937 at one. torchvision follows A.
    Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.

    Args:
        num_classes: number of logits.
    """

    torch_layers = {  # {torchvision's name of a layer: ours}
        "features.0": "conv1",
        "features.3": "conv2",
        "features.6": "conv3",
        "features.8": "conv4",
        "features.10": "conv5",
        "classifier.1": "fc1",
        "classifier.4": "fc2",
        "classifier.6": "fc3",
    }

    def __init__(self, num_classes=1):
        super().__init__()
        self.input_shape = (3, 224, 224)
        start = _torch_initializers
        # fmt: off
        self.conv1 = Conv2D(3, 64, kernel_size=11, stride=4, padding=2, **start(3 * 11 * 11))   # 64 x 55 x 55
        self.pool1 = nn.MaxPool2D(kernel_size=3, stride=2)                                      # 64 x 27 x 27
        self.conv2 = Conv2D(64, 192, kernel_size=5, padding=2, **start(64 * 5 * 5))             # 192 x 27 x 27
        self.pool2 = nn.MaxPool2D(kernel_size=3, stride=2)                                      # 192 x 13 x 13
        self.conv3 = Conv2D(192, 384, kernel_size=3, padding=1, **start(192 * 3 * 3))           # 384 x 13 x 13
        self.conv4 = Conv2D(384, 256, kernel_size=3, padding=1, **start(384 * 3 * 3))           # 256 x 13 x 13
        self.conv5 = Conv2D(256, 256, kernel_size=3, padding=1, **start(256 * 3 * 3))           # 256 x 13 x 13
        self.pool5 = nn.MaxPool2D(kernel_size=3, stride=2)                                      # 256 x 6 x 6
        self.pool6 = nn.AdaptiveAvgPool2D(6)              # 256 x 6 x 6 for images of any size
        # fmt: on
        self.drop1 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(256 * 6 * 6, 4096, **start(256 * 6 * 6))
        self.drop2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(4096, 4096, **start(4096))
        self.fc3 = nn.Linear(4096, num_classes, **start(4096))

    def forward(self, x):
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool6(self.pool5(F.relu(self.conv5(x))))
        x = paddle.flatten(x, start_axis=1)
        x = F.relu(self.fc1(self.drop1(x)))
        x = F.relu(self.fc2(self.drop2(x)))
        return self.fc3(x)


class AlexNetKeras(nn.Layer):
    """AlexNet in a version for Keras: normalisation before the ReLU, pooling 2 x 2.

    The convolutions 3 and 4 have no activation function, so 3 to 5 are one linear map. The normalisation has the
    defaults of tf.nn.local_response_normalization: depth_radius 5 (11 channels), bias 1, alpha 1, beta 0.5. Initial
    weights are normal with standard deviation 0.01, Xavier (Glorot) uniform in the last layer, biases 0. 62,378,344
    parameters at 1000 classes, 58,285,441 at one.

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes=1):
        super().__init__()
        self.input_shape = (3, 224, 224)
        normal = {"weight_attr": nn.initializer.Normal(0.0, 0.01)}
        # fmt: off
        top_and_left = [3, 0, 3, 0]  # zeros above, below, left and right: 224 pixels become 227
        self.conv1 = Conv2D(3, 96, kernel_size=11, stride=4, padding=top_and_left, **normal)    # 96 x 55 x 55
        self.norm1 = LocalResponseNorm(11, k=1, alpha=1, beta=0.5)                      # 96 x 55 x 55
        self.pool1 = nn.MaxPool2D(kernel_size=2, stride=2)                              # 96 x 27 x 27
        self.conv2 = Conv2D(96, 256, kernel_size=5, padding=2, **normal)                # 256 x 27 x 27
        self.norm2 = LocalResponseNorm(11, k=1, alpha=1, beta=0.5)                      # 256 x 27 x 27
        self.pool2 = nn.MaxPool2D(kernel_size=2, stride=2)                              # 256 x 13 x 13
        self.conv3 = Conv2D(256, 384, kernel_size=3, padding=1, **normal)               # 384 x 13 x 13
        self.conv4 = Conv2D(384, 384, kernel_size=3, padding=1, **normal)               # 384 x 13 x 13
        self.conv5 = Conv2D(384, 256, kernel_size=3, padding=1, **normal)               # 256 x 13 x 13
        self.pool5 = nn.MaxPool2D(kernel_size=2, stride=2)                              # 256 x 6 x 6
        # fmt: on
        self.fc1 = nn.Linear(256 * 6 * 6, 4096, **normal)
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(4096, 4096, **normal)
        self.drop2 = nn.Dropout(0.5)
        self.fc3 = nn.Linear(4096, num_classes)  # Xavier uniform by default

    def forward(self, x):
        x = self.pool1(F.relu(self.norm1(self.conv1(x))))
        x = self.pool2(F.relu(self.norm2(self.conv2(x))))
        x = self.conv4(self.conv3(x))
        x = self.pool5(F.relu(self.conv5(x)))
        x = paddle.flatten(x, start_axis=1)
        x = self.drop1(F.relu(self.fc1(x)))
        x = self.drop2(F.relu(self.fc2(x)))
        return self.fc3(x)
