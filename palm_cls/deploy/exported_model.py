"""Exported networks, as `palm_cls.deploy.export` writes them, run without the network's own code: `exported_network`.

    best.onnx                   ONNX, with what is known of the network in its metadata
    best.paddle/                for Paddle Inference:
        inference.json          the network; inference.pdmodel before paddle 3
        inference.pdiparams     its weights
        about.json              what is known of it, and the checksums of the other two

Nothing in them is run as code: they are graphs of the runtimes' own operations, and no others are loaded.
"""

import json
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.run_files import read_json
from palm_cls.checkpoints.weights import EXPORT_ABOUT as ABOUT
from palm_cls.checkpoints.weights import ONNX
from palm_cls.core.device import paddle, threads
from palm_cls.core.errors import InputError, excerpt
from palm_cls.core.files import file_digest
from palm_cls.data.images import INPUT_SPEC
from palm_cls.eval.engine import find_program, run_program

PROGRAM = "inference"  # without suffix
IS_PADDLE_2 = paddle.__version__.startswith("2.")


def exported_network(path, name=None):
    """An exported network for photographs, and what it tells of itself: (function imgs -> logits, about).

    The function is as `palm_cls.eval.engine.logits_function` gives it, on the CPU; about: see `palm_cls.deploy.export`;
    name: the recipe that it must be of. Raises InputError for what is no export or is damaged, takes other images than
    `transform_img` makes, or cannot be run here.
    """
    path = Path(path)
    logits_of, about = (_read_onnx if path.suffix == ONNX else _read_paddle)(path)
    if "input" not in about:
        raise InputError(f"{path}: does not tell which images it takes; expected what tools/export.py writes")
    if about["input"] != INPUT_SPEC:
        raise InputError(f"{path}: takes images as {excerpt(about['input'])}; here they are made as {INPUT_SPEC}")
    if name not in (None, about.get("model")):
        raise InputError(f"{path}: exported from {excerpt(about.get('model'))}, not from {name}")
    _try(path, logits_of)
    return logits_of, about


def _read_onnx(path):
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    require_onnxruntime()
    try:
        logits_of, metadata = run_onnx(path)
    except Exception as error:  # onnxruntime has a dozen of its own
        raise InputError(f"{path}: onnxruntime cannot run it ({excerpt(error)})") from error
    return logits_of, {key: _parsed(value) for key, value in metadata.items()}


def _parsed(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a text as it is
        return text


def require_onnxruntime():
    """The module, or InputError where it is not installed or cannot be imported."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"onnxruntime is needed ({excerpt(error)}): python -m pip install onnxruntime") from error
    return onnxruntime


def run_onnx(path):
    """An ONNX file in onnxruntime: a function imgs -> logits, as that of `exported_network`, and its metadata."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 4  # fatal errors: others are raised, too
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda imgs: session.run(None, {images.name: imgs})[0], session.get_modelmeta().custom_metadata_map


def _read_paddle(directory):
    about = read_json(directory / ABOUT, "that of an exported network")
    program = find_program(directory / PROGRAM)
    if program is None:
        raise InputError(f"{directory}: the exported network is missing; expected {PROGRAM}.json or {PROGRAM}.pdmodel")
    if program.suffix == ".json" and IS_PADDLE_2:  # which ends the process if it tries
        raise InputError(f"{program}: of PaddlePaddle 3, which PaddlePaddle {paddle.__version__} cannot run")
    _verify(program, program.with_suffix(".pdiparams"), sealed=about.get("files"))
    try:
        return run_program(program), about
    except Exception as error:  # of kinds that C++ chooses
        raise InputError(f"{directory}: Paddle Inference cannot run it ({excerpt(error)})") from error


def _verify(*files, sealed):
    for file in files:
        if not file.is_file() or not isinstance(sealed, dict) or sealed.get(file.name) != file_digest(file):
            raise InputError(f"{file}: missing or damaged: its checksum is not that in {ABOUT}; export it again")


def _try(path, logits_of):
    """Raise InputError unless a function gives logits for two classes, [N, 1] or [N, 2], whatever N is."""
    size = INPUT_SPEC["size"]
    for count in (1, 2):
        try:
            shape = logits_of(np.zeros((count, 3, size, size), "float32")).shape
        except Exception as error:
            raise InputError(f"{path}: cannot be run on photographs ({excerpt(error)})") from error
        if shape not in ((count, 1), (count, 2)):
            raise InputError(f"{path}: gives {excerpt(shape)} for {count} images; expected a logit or two for each")
