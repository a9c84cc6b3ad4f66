"""VGG-16, GoogLeNet and ResNet-50 of paddle's own library.

Input float32 [N, 3, 224, 224], output logits float32 [N, num_classes]; initial weights are the library's. Added here
are `input_shape` and `cam_layer`, the layer for Grad-CAM, which in none of them is the last convolution.
"""

from palm_cls.core.device import paddle

library = paddle.vision.models


def vgg16(num_classes=1):
    """VGG-16: thirteen convolutions 3 x 3, three fully connected layers; 134,264,641 parameters at one class.

    K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015.

    Args:
        num_classes: number of logits.
    """
    model = library.vgg16(num_classes=num_classes)
    model.input_shape = (3, 224, 224)
    model.cam_layer = "features.29"  # 512 x 14 x 14, the ReLU after the last convolution
    return model


def resnet50(num_classes=1):
    """ResNet-50: blocks of three convolutions and a shortcut; 23,510,081 parameters at one class.

    K. He et al., Deep residual learning for image recognition, CVPR 2016.

    Args:
        num_classes: number of logits.
    """
    model = library.resnet50(num_classes=num_classes)
    model.input_shape = (3, 224, 224)
    model.cam_layer = "layer4"  # 2048 x 7 x 7, the sum that ends the last block
    return model


class GoogLeNet(library.GoogLeNet):
    """GoogLeNet: nine blocks of parallel convolutions; 8,463,811 parameters at one class, with its auxiliary heads.

    In training the output is a tuple for `palm_cls.eval.losses.training_loss`: the logits and those of two auxiliary
    heads, each float32 [N, num_classes]. In evaluation it is the logits only. C. Szegedy et al., Going deeper with
    convolutions, CVPR 2015; the library deviates from it: no bias and no normalisation in any convolution, and ReLU
    after the blocks only.

    Args:
        num_classes: number of logits.
    """

    classifier_layers = ("_fc_out", "_out1", "_out2")
    cam_layer = "_ince5b"  # 1024 x 6 x 6, all branches of the last block
    auxiliary_layers = (
        *("_pool_o1", "_conv_o1", "_fc_o1", "_drop_o1", "_out1"),
        *("_pool_o2", "_conv_o2", "_fc_o2", "_drop_o2", "_out2"),
    )

    def __init__(self, num_classes=1):
        super().__init__(num_classes=num_classes)
        self.input_shape = (3, 224, 224)

    def forward(self, x):
        logits, *auxiliary = library.GoogLeNet.forward(self, x)  # super() does not survive paddle 2.6's conversion
        return (logits, *auxiliary) if self.training else logits
