"""ImageNet weights for the networks in `palm_cls.models.imagenet`, from paddle's own library."""

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

MAX_BYTES = 1 << 30  # of a download; VGG-16 takes 550 million
WEIGHTS = {  # name: (URL, MD5)
    "vgg16": vgg_urls["vgg16"],
    "googlenet": googlenet_urls["googlenet"],
    "resnet50": resnet_urls["resnet50"],
}


def load_pretrained(model, name):
    """Load ImageNet weights into a network, except for its last layer.

    They were trained on RGB images normalised with ImageNet's mean and deviation, not on the lesson's. The first call
    downloads them to where paddle keeps such files.

    Args:
        model: the network.
        name: its recipe, one of WEIGHTS.

    Raises:
        InputError: there are no weights for this network, they cannot be downloaded, or they do not match it. `model`
            is unchanged then.
    """
    if name not in WEIGHTS:
        raise InputError(f"model {name!r} has no ImageNet weights; {', '.join(WEIGHTS)} have")
    path = _download(*WEIGHTS[name])
    head = classifier_layers(model)
    expected = {key: value for key, value in model.state_dict().items() if key.rpartition(".")[0] not in head}
    state = read_state(path)
    wrong = [key for key, value in expected.items() if getattr(state.get(key), "shape", None) != tuple(value.shape)]
    if wrong:
        raise InputError(f"{path}: not the weights of {name}; missing or of another shape: {', '.join(wrong[:5])}")
    model.set_state_dict({**model.state_dict(), **{key: state[key] for key in expected}})
    log(f"{name} starts from ImageNet's weights, except for the last layer ({', '.join(head)}), which is new.")


def _download(url, md5):
    """Path of a file of paddle's library, downloaded unless it is there already."""
    path = Path(WEIGHTS_HOME, url.rpartition("/")[2])
    if not path.is_file():
        try:
            download_file(url, md5, path, max_bytes=MAX_BYTES)
        except RunError as error:  # the request cannot be met here
            raise InputError(str(error)) from None
    if file_digest(path, algorithm="md5") != md5:
        raise InputError(f"{path}: damaged, or another file; delete it, and it is downloaded again")
    return path
