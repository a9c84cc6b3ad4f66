"""VGG-16, GoogLeNet and ResNet-50 as paddle's own library has them, and the ImageNet weights that it offers.

All take float32 [N, 3, 224, 224] and return logits float32 [N, num_classes]; how they start is the library's. What else
is told of them here: `input_shape`, and where a Grad-CAM should look (`cam_layer`), for in none of them that is simply
the last convolution.
"""

from pathlib import Path

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
from paddle.utils.download import WEIGHTS_HOME
from paddle.vision import models as library
from paddle.vision.models.googlenet import model_urls as googlenet_urls
from paddle.vision.models.resnet import model_urls as resnet_urls
from paddle.vision.models.vgg import model_urls as vgg_urls

from palm_cls.files import fetch, file_digest
from palm_cls.messages import InputError, RunError, notice
from palm_cls.models import head_layers
from palm_cls.statefile import read_state

MOST_BYTES = 1 << 30  # of a file that is fetched; that of VGG-16 has 550 million
WEIGHTS = {  # name: (URL, MD5)
    "vgg16": vgg_urls["vgg16"],
    "googlenet": googlenet_urls["googlenet"],
    "resnet50": resnet_urls["resnet50"],
}


def vgg16(num_classes=1):
    """VGG-16: thirteen convolutions 3 x 3, three fully connected layers; 134,264,641 parameters at one class.

    After K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015.
    """
    model = library.vgg16(num_classes=num_classes)
    model.input_shape = (3, 224, 224)
    model.cam_layer = "features.29"  # 512 x 14 x 14, the ReLU behind the last convolution
    return model


def resnet50(num_classes=1):
    """ResNet-50: blocks of three convolutions and a way around them; 23,510,081 parameters at one class.

    After K. He et al., Deep residual learning for image recognition, CVPR 2016.
    """
    model = library.resnet50(num_classes=num_classes)
    model.input_shape = (3, 224, 224)
    model.cam_layer = "layer4"  # 2048 x 7 x 7, the sum that ends the last block
    return model


class GoogLeNet(library.GoogLeNet):
    """GoogLeNet: nine blocks of parallel convolutions; 8,463,811 parameters at one class, with its auxiliary heads.

    In training it returns a tuple, the logits and those of the two auxiliary heads, all float32 [N, num_classes], for
    `palm_cls.validation.training_loss`; in evaluation the logits only. After C. Szegedy et al., Going deeper with
    convolutions, CVPR 2015, but with the library's deviations: no bias and no normalisation in any convolution, and
    ReLU behind the blocks only.
    """

    heads = ("_fc_out", "_out1", "_out2")
    cam_layer = "_ince5b"  # 1024 x 6 x 6, all branches of the last block

    def __init__(self, num_classes=1):
        super().__init__(num_classes=num_classes)
        self.input_shape = (3, 224, 224)

    def forward(self, x):
        logits, *auxiliary = library.GoogLeNet.forward(self, x)  # super() does not survive paddle 2.6's conversion
        return (logits, *auxiliary) if self.training else logits


def load_pretrained(model, name):
    """Read the library's ImageNet weights of the network `name` into `model`, all but those of its last layer.

    They were trained on RGB images less ImageNet's mean over its deviation, not on the lesson's. The first time they
    are fetched to where paddle keeps such files. Raises InputError, and changes nothing, where there are none for
    this network, where they cannot be had, or are not its own.
    """
    if name not in WEIGHTS:
        raise InputError(f"model {name!r} has no ImageNet weights; {', '.join(WEIGHTS)} have")
    path = _fetched(*WEIGHTS[name])
    heads = head_layers(model)
    expected = {key: value for key, value in model.state_dict().items() if key.rpartition(".")[0] not in heads}
    found = read_state(path)
    wrong = [key for key, value in expected.items() if getattr(found.get(key), "shape", None) != tuple(value.shape)]
    if wrong:
        raise InputError(f"{path}: not the weights of {name}; missing, or of another shape: {', '.join(wrong[:5])}")
    model.set_state_dict({**model.state_dict(), **{key: found[key] for key in expected}})
    notice(f"{name} begins with ImageNet's weights, but for the last layer ({', '.join(heads)}), which is new.")


def _fetched(url, md5):
    """Path of a file of paddle's library; it is fetched unless it is there already."""
    path = Path(WEIGHTS_HOME, url.rpartition("/")[2])
    if not path.is_file():
        try:
            fetch(url, md5, path, most=MOST_BYTES)
        except RunError as error:  # what was asked for is not to be had here
            raise InputError(str(error)) from None
    if file_digest(path, algorithm="md5") != md5:
        raise InputError(f"{path}: damaged, or another file; delete it, and it is fetched anew")
    return path
