"""Trained networks for other programs than this one: `export_network`, which `tools/export.py` calls.

What is written is laid out in `palm_cls.deploy.exported_model`. Beside what the weights tell (see
`palm_cls.checkpoints.run_dir.describe`) it tells

    preprocessing    how an image becomes what the network takes
    output           what the network gives, and what follows from that
    note             what predictions are not, where they are of photographs
    versions         of what it was made with
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_dir import versions
from palm_cls.checkpoints.run_files import write_json
from palm_cls.checkpoints.weights import weights_file
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, RunError, excerpt
from palm_cls.core.files import file_digest, new_directory, refuse_existing, replacing
from palm_cls.data.array_loader import normalize_gray
from palm_cls.data.images import normalize, pixel_lut, resize
from palm_cls.data.synthetic import draw_fundus
from palm_cls.deploy.exported_model import ABOUT, IS_PADDLE_2, ONNX, PROGRAM, run_onnx
from palm_cls.deploy.predict import input_of, known_network, note_about
from palm_cls.eval.engine import TOLERANCE, deviation, find_program, predict, run_program, save_program

OPSET = 13  # of ONNX, from 2020: every runtime of today has it, and it has all that the recipes need
CONVERTER = '"paddle2onnx<2" "onnx<1.18"' if IS_PADDLE_2 else '"paddle2onnx>=2"'  # for this paddle and its NumPy
TRIED = "NHPP"  # the kinds of pictures that an exported network is tried on, see `palm_cls.data.synthetic.draw_fundus`

# path: Path; about: dict; deviation: of its logits from the network's, see `palm_cls.eval.engine.deviation`
Export = namedtuple("Export", ("path", "about", "deviation"))
# suffix: str; whole: the context that makes it appear whole; write: function (model, shape of an image, about, path);
# run: function of the path that gives the function imgs -> logits
Form = namedtuple("Form", ("suffix", "whole", "write", "run"))


def export_network(weights, form, name=None, output=None):
    """Write a trained network in a form for other programs, and return an Export.

    weights, name: as for `palm_cls.trained_network`, of any recipe; form: "paddle", for Paddle Inference, or "onnx",
    which needs further packages; output: a new directory, or for ONNX a new file, by default beside the weights with
    their name. It appears there when it has run on four images in its own runtime, together and one alone. Raises
    RunError, and leaves nothing behind, where its logits are not the network's; InputError for what is missing, does
    not fit or is in the way.
    """
    form, weights = FORMS[form], weights_file(weights)
    target = Path(output or weights.with_suffix(form.suffix))
    if (target.suffix == ONNX) != (form.suffix == ONNX):
        raise InputError(f"{target}: the name of an ONNX file ends in {ONNX}, and no other; give another --output")
    refuse_existing([target])
    if form.suffix == ONNX:
        _require_converter()
    name, model, about = known_network(weights, name)
    model.eval()
    imgs = _images_for(name)
    expected = predict(model, imgs)
    about = {**about, **_manual(name, about, expected.shape[1])}
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with form.whole(target) as temporary:
            form.write(model, imgs.shape[1:], about, temporary)
            logits_of = form.run(temporary)
            found = np.concatenate([logits_of(imgs), logits_of(imgs[:1])])
            off = deviation(found, np.concatenate([expected, expected[:1]]))
            if not off <= TOLERANCE:
                raise RunError(f"{target}: not written: its logits are off by {off:.1e} of the largest")
    except (OSError, RunError):
        raise
    except Exception as error:  # of kinds that the libraries choose
        raise RunError(f"{target}: not written: this network could not be exported ({excerpt(error)})") from error
    return Export(target, about, off)


def _images_for(name):
    """Four images as the network of a recipe takes them, float32 [4, C, H, W]: drawn photographs, or else noise."""
    made, rng = input_of(name), np.random.default_rng(0)
    table = pixel_lut(made["range"])
    if made["channels"] == "grey":
        return normalize_gray(rng.integers(0, 256, (len(TRIED), made["size"], made["size"]), "uint8"), table)
    return np.stack([normalize(resize(draw_fundus(kind, rng)[0], made["size"]), table=table) for kind in TRIED])


def _manual(name, about, logits):
    """What an export tells beside what the weights tell. logits: their number for an image."""
    made = input_of(name)
    low, high, size = *made["range"], made["size"]
    image, channels, note = f"Grey of 8 bits, 0 for the background, {size} x {size} pixels", 1, {}
    if made["channels"] == "BGR":
        image = f"Blue, green, red of 8 bits, as cv2.imread decodes; stretched to {size} x {size} pixels by cv2.resize"
        channels, note = 3, {"note": note_about(about)}
    output = f"Logits, float32 [N, {logits}]: their softmax gives the probabilities of the classes."
    if logits == 1:
        output = "A logit, float32 [N, 1]: 1 / (1 + exp(-logit)) is the probability of class 1; label 1 is above 0.5."
    return {
        "model": name,
        "input": made,
        "preprocessing": f"{image}; 0 to 255 become {low:g} to {high:g}; float32 [N, {channels}, {size}, {size}].",
        "output": output,
        **note,
        "versions": versions(),
    }


def _write_paddle(model, shape, about, directory):
    with tempfile.TemporaryDirectory() as plain:  # `directory` may have a name that paddle does not take
        program = save_program(model, Path(plain, PROGRAM), shape)
        for file in (program, program.with_suffix(".pdiparams")):
            shutil.copy(file, directory)
    files = {file.name: file_digest(file) for file in sorted(directory.iterdir())}
    write_json({**about, "files": files}, directory / ABOUT)


def _write_onnx(model, shape, about, path):
    import onnx

    with tempfile.TemporaryDirectory() as directory:
        network = onnx.load_from_string(_converted(save_program(model, Path(directory, PROGRAM), shape)))
    _name_ends(network.graph)
    _drop_unused(network.graph)
    onnx.helper.set_model_props(network, {key: _text(value) for key, value in about.items()})
    path.write_bytes(network.SerializeToString())


def _text(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _converted(program):
    """A program of Paddle Inference as ONNX, bytes; raises RuntimeError where it cannot be converted."""
    import paddle2onnx

    # Unless another tool is named, version 2 optimizes by Polygraphy, and has that install by pip what it lacks.
    options = {} if IS_PADDLE_2 else {"optimize_tool": "None"}
    files, content = (str(program), str(program.with_suffix(".pdiparams"))), b""
    with _silence() as told, contextlib.suppress(SystemExit):  # with which version 2 gives up; version 1 gives b""
        content = paddle2onnx.export(*files, opset_version=OPSET, verbose=False, **options)
    if not content:
        raise RuntimeError(told.getvalue() or "paddle2onnx gives nothing")
    return content


@contextlib.contextmanager
def _silence():
    """Keep what is printed off the screen, that of C++ too; gives what Python prints, an io.StringIO."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        with contextlib.redirect_stdout(io.StringIO()) as told:
            yield told
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _name_ends(graph):
    """Call the output "logits" and the size of the batch N, whichever paddle named them; the input is "images"."""
    from onnx.helper import make_node

    (images,), (logits,) = graph.input, graph.output
    graph.node.append(make_node("Identity", [logits.name], ["logits"]))
    logits.name = "logits"
    for value in (images, logits):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def _drop_unused(graph):
    """Take out the constants that nothing uses, of which onnxruntime would warn whoever loads the file."""
    used = {name for node in graph.node for name in node.input}
    for number in reversed(range(len(graph.node))):
        if graph.node[number].op_type == "Constant" and not used.intersection(graph.node[number].output):
            del graph.node[number]


def _require_converter():
    """Raise InputError unless there is what ONNX needs, in versions that take this paddle."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import paddle2onnx
    except Exception as error:  # paddle2onnx 2 raises ValueError under paddle 2
        lacking = excerpt(error)
    else:
        if paddle2onnx.__version__.startswith("1.") == IS_PADDLE_2:
            return
        lacking = f"paddle2onnx {paddle2onnx.__version__} is for another PaddlePaddle than {paddle.__version__}"
    raise InputError(f"ONNX: {lacking}\nInstall what this paddle needs: python -m pip install {CONVERTER} onnxruntime")


FORMS = {
    "paddle": Form(".paddle", new_directory, _write_paddle, lambda path: run_program(find_program(path / PROGRAM))),
    "onnx": Form(ONNX, replacing, _write_onnx, lambda path: run_onnx(path)[0]),
}
