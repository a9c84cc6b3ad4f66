"""Save and load weights: `NAME.pdparams`, and the optimizer's state beside them in `NAME.pdopt`.

Both are what `paddle.save` writes, and plain `paddle.load` reads them. Parameters go by their structured names
(`conv1.weight`), velocities too (`conv1.weight.velocity`).
"""

from pathlib import Path

from palm_cls.checkpoints.file_checks import check_weights_format, is_export, no_weights_error
from palm_cls.checkpoints.matching import read_matching
from palm_cls.checkpoints.metadata import adopt_image_size, read_metadata
from palm_cls.checkpoints.optimizer_state import load_optimizer_state, optimizer_state
from palm_cls.checkpoints.state_file import write_state
from palm_cls.core.console import log
from palm_cls.core.deprecation import renamed_arguments
from palm_cls.models.layers import classifier_layers


@renamed_arguments(about="metadata")
def save(path, model, optimizer=None, metadata=None):
    """Write the weights of `model` to `path`.pdparams and the state of `optimizer` to `path`.pdopt.

    Each file is written whole or not at all.

    Args:
        path: file name without suffix, as in the lesson ("output/lenet/best").
        model: the network.
        optimizer: its optimizer; without one there is no `.pdopt`.
        metadata: what to store with the weights, a dict that JSON can hold, at most 64 kB.

    Returns:
        {file name: sha256 of its content}.
    """
    states = {f"{path}.pdparams": (model.state_dict(), metadata)}
    if optimizer is not None:
        states[f"{path}.pdopt"] = (optimizer_state(model, optimizer), None)
    return {Path(file).name: write_state(file, *state) for file, state in states.items()}


@renamed_arguments(new_head="skip_head")
def load(path, model, optimizer=None, skip_head=False):
    """Read weights into `model`, and its velocities into `optimizer`.

    Nothing that the files contain is run. Checkpoints of PaddlePaddle 1.6 are read, too.

    Args:
        path: a `.pdparams` file, with or without suffix; a run's directory, for its best epoch; or torch's
            `state_dict` as .npz or .safetensors, if the network names torch's layers (`torch_layers`). The weights may
            lie in a dictionary with other things ({"model": ...}), their names may share a prefix (`_layers.`,
            `module.`), and they may be of another floating-point type, bfloat16 included.
        model: the network.
        optimizer: also read `.pdopt` beside the weights into this one.
        skip_head: leave the last layer as it is, to start from weights for other classes.

    Raises:
        InputError: a file is missing or unreadable, or names and shapes are not those of `model`, which then stays as
            it was.
    """
    weights = resolve_weights(path)
    state = read_matching(weights, model, skip_head)
    if optimizer is not None:
        load_optimizer_state(weights.with_suffix(".pdopt"), model, optimizer)
    model.set_state_dict(state)
    adopt_image_size(model, read_metadata(weights))
    if skip_head:
        layers = ", ".join(classifier_layers(model))
        log(f"{weights}: loaded, except for the last layer ({layers}), which stays as it was.")


def resolve_weights(path):
    """Return the file of weights that `path` means.

    Args:
        path: a file, with or without `.pdparams`; or a run's directory, for its best epoch.

    Raises:
        InputError: there is none, or its first bytes are of another format.
    """
    path = Path(path)
    if not is_export(path):
        for file in (path / "best.pdparams" if path.is_dir() else path, Path(f"{path}.pdparams")):
            if file.is_file():
                check_weights_format(file)
                return file
    raise no_weights_error(path)
