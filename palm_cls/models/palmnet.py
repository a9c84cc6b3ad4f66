"""PalmNet: our network for fundus images, small enough to be trained from scratch on 400 of them."""

from palm_cls.core.device import paddle

import paddle.nn as nn
import paddle.nn.functional as F


class PalmNet(nn.Layer):
    """A small residual network: one convolution, four blocks of two, global average pooling; 693,625 parameters.

    Input float32 [N, 3, 112, 112], output logits float32 [N, num_classes]. A fully connected layer on the whole feature
    map, which has most of AlexNet's parameters, would memorise 400 images; this network averages over the map instead.
    K. He et al., Deep residual learning for image recognition, CVPR 2016.

    Args:
        num_classes: number of logits.
        image_size: pixels, height and width of the images; the parameters are the same for any.
    """

    def __init__(self, num_classes=1, image_size=112):
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        self.cam_layer = "block4"
        # fmt: off
        self.conv1 = nn.Conv2D(3, 24, kernel_size=7, stride=4, padding=3, bias_attr=False)  # 24 x 28 x 28
        self.norm1 = nn.BatchNorm2D(24)
        self.block1 = Block(24, 24, stride=1)                                               # 24 x 28 x 28
        self.block2 = Block(24, 48, stride=2)                                               # 48 x 14 x 14
        self.block3 = Block(48, 96, stride=2)                                               # 96 x 7 x 7
        self.block4 = Block(96, 192, stride=2)                                              # 192 x 4 x 4
        self.pool = nn.AdaptiveAvgPool2D(1)                                                 # 192 x 1 x 1
        # fmt: on
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(192, num_classes)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        x = paddle.flatten(self.pool(x), start_axis=1)
        return self.fc(self.drop(x))


class Block(nn.Layer):
    """Two convolutions 3 x 3 and a shortcut.

    Input float32 [N, in_channels, H, W], output [N, out_channels, H / stride, W / stride]. Batch normalisation follows
    each convolution, which therefore has no bias. If the shape changes, the shortcut is a convolution 1 x 1.

    Args:
        in_channels, out_channels: channels of input and output.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, out_channels, 3, stride, padding=1, bias_attr=False)
        self.norm1 = nn.BatchNorm2D(out_channels)
        self.conv2 = nn.Conv2D(out_channels, out_channels, 3, padding=1, bias_attr=False)
        self.norm2 = nn.BatchNorm2D(out_channels)
        self.around = nn.Identity()  # the shortcut; existing .pdparams files have its parameters under this name
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False)
            self.around = nn.Sequential(convolution, nn.BatchNorm2D(out_channels))

    def forward(self, x):
        features = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(features)) + self.around(x))
