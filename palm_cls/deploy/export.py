"""Export trained networks for other programs: `export_network`, which `tools/export.py` calls.

`palm_cls.deploy.exported_model` lists the files. Their metadata are those of the weights (see
`palm_cls.checkpoints.metadata.read_metadata`) and

    preprocessing    how to prepare an image
    output           what the logits mean
    note             the disclaimer, for networks of photographs
    versions         of the software that made the export
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from palm_cls.checkpoints.run_dir import versions
from palm_cls.checkpoints.weights import resolve_weights
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, RunError, shorten
from palm_cls.core.files import atomic_directory, atomic_write, check_absent, file_digest, write_json
from palm_cls.data.array_loader import normalize_gray
from palm_cls.data.images import IMAGE_SIZE, normalize, pixel_lut, resize, shrink
from palm_cls.data.labels import CLASSES
from palm_cls.data.synthetic import draw_fundus
from palm_cls.deploy.exported_model import EXPORT_METADATA, IS_PADDLE_2, ONNX, PROGRAM, load_onnx
from palm_cls.deploy.predict import load_recipe_model
from palm_cls.deploy.prediction_files import prediction_note
from palm_cls.eval.assess import class_names
from palm_cls.eval.engine import TOLERANCE, find_program, load_predictor, max_relative_error, predict, save_program

OPSET = 13  # of ONNX, from 2020: every runtime of today has it, and the recipes need no later one
CONVERTER = '"paddle2onnx<2" "onnx<1.18"' if IS_PADDLE_2 else '"paddle2onnx>=2"'  # for this paddle and its NumPy
CHECK_INPUTS = "NHPP"  # kinds of `palm_cls.data.synthetic.draw_fundus` on which an export is checked


@dataclass(frozen=True)
class ExportResult:
    """An exported network.

    Attributes:
        path: Path of the file or directory.
        metadata: The metadata stored in it, a dict.
        max_relative_error: Difference of its logits from the network's, see `palm_cls.eval.engine.max_relative_error`.
    """

    path: Path
    metadata: dict
    max_relative_error: float


@dataclass(frozen=True)
class ExportFormat:
    """How a network is exported.

    Attributes:
        suffix: Suffix of the file or directory.
        create: Context manager that gives a temporary path and renames it in the end.
        write: Function (model, shape of an image, metadata, path).
        load: Function path -> (function imgs -> logits).
    """

    suffix: str
    create: Callable
    write: Callable
    load: Callable


def export_network(weights, form, name=None, output=None):
    """Export a trained network, and check the export on four images in its own runtime.

    Args:
        weights: A run directory (its best epoch) or a `.pdparams` file, of any recipe.
        form: "paddle", for Paddle Inference, or "onnx", which requires further packages.
        name: The recipe, if the weights do not name it.
        output: A new directory, or for ONNX a new file; by default beside the weights with their name.

    Returns:
        An ExportResult.

    Raises:
        RunError: Its logits are not the network's, or the conversion failed; nothing is left behind.
        InputError: Something is missing, does not fit, or exists already.
    """
    form, weights = FORMATS[form], resolve_weights(weights)
    target = Path(output or weights.with_suffix(form.suffix))
    if (target.suffix == ONNX) != (form.suffix == ONNX):
        raise InputError(f"{target}: the name of an ONNX file ends in {ONNX}, and no other; give another --output")
    check_absent([target])
    if form.suffix == ONNX:
        _check_converter()
    name, model, metadata = load_recipe_model(weights, name)
    model.eval()
    spec = metadata["input"]
    imgs = _check_images(spec)
    expected = predict(model, imgs)
    metadata = {**metadata, **_model_card(name, spec, metadata, expected.shape[1])}
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with form.create(target) as temporary:
            form.write(model, imgs.shape[1:], metadata, temporary)
            difference = _max_difference(form.load(temporary), imgs, expected)
            if not difference <= TOLERANCE:
                raise RunError(f"{target}: not written: its logits are off by {difference:.1e} of the largest")
    except (OSError, RunError):
        raise
    except Exception as error:  # of types that the libraries choose
        raise RunError(f"{target}: not written: this network could not be exported ({shorten(error)})") from error
    return ExportResult(target, metadata, difference)


def _max_difference(logits_of, imgs, expected):
    """Compare the logits of all images together, and of one alone, with the expected ones."""
    found = np.concatenate([logits_of(imgs), logits_of(imgs[:1])])
    return max_relative_error(found, np.concatenate([expected, expected[:1]]))


def _check_images(spec):
    """Make drawn photographs, or else noise, as the network takes them: float32 [4, C, H, W]."""
    rng, table = np.random.default_rng(0), pixel_lut(spec["range"])
    if spec["channels"] == "grey":
        return normalize_gray(rng.integers(0, 256, (len(CHECK_INPUTS), spec["size"], spec["size"]), "uint8"), table)
    photos = [resize(draw_fundus(kind, rng)[0]) for kind in CHECK_INPUTS]
    return np.stack([normalize(shrink(photo, spec["size"]), table=table) for photo in photos])


def _model_card(name, spec, metadata, num_logits):
    """Return the metadata that an export has besides those of its weights."""
    low, high, size = *spec["range"], spec["size"]
    image, channels, note = f"Grey of 8 bits, 0 for the background, {size} x {size} pixels", 1, {}
    if spec["channels"] == "BGR":
        steps = dict.fromkeys(f"to {pixels} x {pixels} pixels" for pixels in (IMAGE_SIZE, size))
        image = f"Blue, green, red of 8 bits, as cv2.imread decodes; stretched {', then '.join(steps)} by cv2.resize"
        channels, note = 3, {"note": prediction_note(metadata)}
    return {
        "model": name,
        "preprocessing": f"{image}; 0 to 255 become {low:g} to {high:g}; float32 [N, {channels}, {size}, {size}].",
        "output": _describe_output(num_logits, class_names(metadata, num_logits)),
        **note,
        "versions": versions(),
    }


def _describe_output(num_logits, classes):
    """Describe logits [N, num_logits]; `classes` are the names of the classes, or None."""
    if num_logits > 1:
        names = f", in this order: {', '.join(map(str, classes))}" if classes else ""
        return f"Logits, float32 [N, {num_logits}]: their softmax gives the probabilities of the classes{names}."
    name = "" if classes in (None, CLASSES) else f", {classes[1]}"
    return f"A logit, float32 [N, 1]: 1 / (1 + exp(-logit)) is the probability of class 1{name}; label 1 is above 0.5."


def _write_paddle(model, shape, metadata, directory):
    with tempfile.TemporaryDirectory() as plain:  # paddle does not take every name that `directory` may have
        program = save_program(model, Path(plain, PROGRAM), shape)
        for file in (program, program.with_suffix(".pdiparams")):
            shutil.copy(file, directory)
    files = {file.name: file_digest(file) for file in sorted(directory.iterdir())}
    write_json({**metadata, "files": files}, directory / EXPORT_METADATA)


def _write_onnx(model, shape, metadata, path):
    import onnx

    with tempfile.TemporaryDirectory() as directory:
        network = onnx.load_from_string(_to_onnx(save_program(model, Path(directory, PROGRAM), shape)))
    _name_inputs_outputs(network.graph)
    _drop_unused_constants(network.graph)
    onnx.helper.set_model_props(network, {key: _format_property(value) for key, value in metadata.items()})
    path.write_bytes(network.SerializeToString())


def _format_property(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _to_onnx(program):
    """Convert a program of Paddle Inference to ONNX, bytes; raises RuntimeError if that fails."""
    import paddle2onnx

    # By default version 2 optimizes by Polygraphy, which has pip install what it lacks.
    options = {} if IS_PADDLE_2 else {"optimize_tool": "None"}
    files, content = (str(program), str(program.with_suffix(".pdiparams"))), b""
    with _captured_stdout() as printed, contextlib.suppress(SystemExit):  # on failure version 2 exits, 1 returns b""
        content = paddle2onnx.export(*files, opset_version=OPSET, verbose=False, **options)
    if not content:
        raise RuntimeError(printed.getvalue() or "paddle2onnx gives nothing")
    return content


@contextlib.contextmanager
def _captured_stdout():
    """Suppress standard output, that of C++ too; gives what Python prints, an io.StringIO."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 1)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            yield printed
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _name_inputs_outputs(graph):
    """Name the output "logits" and the batch size N: each paddle names them differently."""
    from onnx.helper import make_node

    (images,), (logits,) = graph.input, graph.output
    graph.node.append(make_node("Identity", [logits.name], ["logits"]))
    logits.name = "logits"
    for value in (images, logits):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def _drop_unused_constants(graph):
    """Remove the constants that no node uses: onnxruntime warns of them."""
    used = {name for node in graph.node for name in node.input}
    for number in reversed(range(len(graph.node))):
        if graph.node[number].op_type == "Constant" and not used.intersection(graph.node[number].output):
            del graph.node[number]


def _check_converter():
    """Raise InputError unless the packages for ONNX are there, in versions for this paddle."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import paddle2onnx
    except Exception as error:  # paddle2onnx 2 raises ValueError under paddle 2
        problem = shorten(error)
    else:
        if paddle2onnx.__version__.startswith("1.") == IS_PADDLE_2:
            return
        problem = f"paddle2onnx {paddle2onnx.__version__} is for another PaddlePaddle than {paddle.__version__}"
    raise InputError(f"ONNX: {problem}\nInstall what this paddle needs: python -m pip install {CONVERTER} onnxruntime")


def _load_paddle(directory):
    return load_predictor(find_program(directory / PROGRAM))


FORMATS = {
    "paddle": ExportFormat(".paddle", atomic_directory, _write_paddle, _load_paddle),
    "onnx": ExportFormat(ONNX, atomic_write, _write_onnx, lambda path: load_onnx(path)[0]),
}
