"""ImageNet weights of the networks in `palm_cls.models.imagenet`, as paddle's own library offers them."""

from pathlib import Path

from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.core.console import log
from palm_cls.core.errors import InputError, RunError
from palm_cls.core.files import download_file, file_digest
from palm_cls.models.layers import classifier_layers

from paddle.utils.download import WEIGHTS_HOME
from paddle.vision.models.googlenet import model_urls as googlenet_urls
from paddle.vision.models.resnet import model_urls as resnet_urls
from paddle.vision.models.vgg import model_urls as vgg_urls

MOST_BYTES = 1 << 30  # of a file that is fetched; that of VGG-16 has 550 million
WEIGHTS = {  # name: (URL, MD5)
    "vgg16": vgg_urls["vgg16"],
    "googlenet": googlenet_urls["googlenet"],
    "resnet50": resnet_urls["resnet50"],
}


def load_pretrained(model, name):
    """Read the library's ImageNet weights of the network `name` into `model`, all but those of its last layer.

    They were trained on RGB images less ImageNet's mean over its deviation, not on the lesson's. The first time they
    are fetched to where paddle keeps such files. Raises InputError, and changes nothing, where there are none for
    this network, where they cannot be had, or are not its own.
    """
    if name not in WEIGHTS:
        raise InputError(f"model {name!r} has no ImageNet weights; {', '.join(WEIGHTS)} have")
    path = _fetched(*WEIGHTS[name])
    heads = classifier_layers(model)
    expected = {key: value for key, value in model.state_dict().items() if key.rpartition(".")[0] not in heads}
    found = read_state(path)
    wrong = [key for key, value in expected.items() if getattr(found.get(key), "shape", None) != tuple(value.shape)]
    if wrong:
        raise InputError(f"{path}: not the weights of {name}; missing, or of another shape: {', '.join(wrong[:5])}")
    model.set_state_dict({**model.state_dict(), **{key: found[key] for key in expected}})
    log(f"{name} begins with ImageNet's weights, but for the last layer ({', '.join(heads)}), which is new.")


def _fetched(url, md5):
    """Path of a file of paddle's library; it is fetched unless it is there already."""
    path = Path(WEIGHTS_HOME, url.rpartition("/")[2])
    if not path.is_file():
        try:
            download_file(url, md5, path, max_bytes=MOST_BYTES)
        except RunError as error:  # what was asked for is not to be had here
            raise InputError(str(error)) from None
    if file_digest(path, algorithm="md5") != md5:
        raise InputError(f"{path}: damaged, or another file; delete it, and it is fetched anew")
    return path
