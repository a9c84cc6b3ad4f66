"""What a path that should be weights is instead, for messages that name it."""

from pathlib import Path

from palm_cls.core.errors import InputError
from palm_cls.core.formats import ACTIONS, EMPTY, HEAD_SIZE, PROGRAM, WEIGHTS_OF_EXPORT, ZIP, detect_format

ONNX, EXPORT_METADATA = ".onnx", "about.json"  # mark an exported network: the suffix, or a file in its directory


def is_export(path):
    """Whether `path` is an exported network (see `palm_cls.deploy.exported_model`) rather than weights."""
    return Path(path).suffix == ONNX or Path(path, EXPORT_METADATA).is_file()


def check_weights_format(path):
    """Raise InputError if the first bytes of the file are of a format that holds no weights."""
    with path.open("rb") as file:
        found = detect_format(file.read(HEAD_SIZE))
    if found is None or (found == ZIP and path.suffix == ".npz"):
        return
    action = ACTIONS.get(found, "expected a .pdparams file")
    if found == EMPTY:
        action += " (paddle.save(model) leaves one; write paddle.save(model.state_dict(), PATH))"
    raise InputError(f"{path}: {found}, not weights; {action}")


def no_weights_error(path):
    """The InputError for a path that leads to no file of weights; it says what is there instead."""
    if is_export(path):
        return InputError(f"{path}: an exported network, not weights; {WEIGHTS_OF_EXPORT}")
    if any(path.glob("*.pdiparams")) or Path(f"{path}.pdiparams").is_file():
        return InputError(f"{path}: {PROGRAM}, not weights; {WEIGHTS_OF_EXPORT}")
    if runs := sorted(path.glob("seed-*/best.pdparams")):
        return InputError(f"{path}: runs with several seeds; give one of them, as {runs[0].parent}")
    return InputError(f"{path}: no weights there; expected a run directory with best.pdparams, or a .pdparams file")
