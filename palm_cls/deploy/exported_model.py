"""Exported networks, as `palm_cls.deploy.export` writes them, run without the network's own code.

    best.onnx                   ONNX, with the metadata in its properties
    best.paddle/                for Paddle Inference:
        inference.json          the network; inference.pdmodel before paddle 3
        inference.pdiparams     its weights
        about.json              the metadata, with the checksums of the other two files

Nothing in them is run as code: they are graphs of the runtimes' own operations, and no others are loaded.
"""

import json
from pathlib import Path

import numpy as np

from palm_cls.checkpoints.file_checks import EXPORT_METADATA, ONNX
from palm_cls.core.device import num_threads, paddle
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import file_digest, read_json
from palm_cls.data.images import IMAGE_SIZE, INPUT_SPEC
from palm_cls.data.loader_factory import check_input_spec
from palm_cls.eval.engine import find_program, load_predictor
from palm_cls.recipes import stored_image_size, stored_num_classes

PROGRAM = "inference"  # without suffix
IS_PADDLE_2 = paddle.__version__.startswith("2.")


def load_exported_model(path, name=None):
    """Load an exported network for fundus images, to run on the CPU.

    Args:
        path: A `.onnx` file or a directory for Paddle Inference.
        name: The recipe that it must be of, or None.

    Returns:
        (function imgs -> logits, metadata). The function is as that of `palm_cls.eval.engine.predictor`, and has the
        `input_shape` of an image; for the metadata see `palm_cls.deploy.export`.

    Raises:
        InputError: It is no export or damaged, its input is not that of `transform_img`, or it cannot be run here.
    """
    path = Path(path)
    logits_of, metadata = (_load_onnx_export if path.suffix == ONNX else _load_paddle_export)(path)
    if "input" not in metadata:
        raise InputError(f"{path}: does not state which images it takes; expected what tools/export.py writes")
    size = stored_image_size(metadata, IMAGE_SIZE)
    check_input_spec(path, metadata["input"], {**INPUT_SPEC, "size": size})
    if name not in (None, metadata.get("model")):
        raise InputError(f"{path}: exported from {shorten(metadata.get('model'))}, not from {name}")
    logits_of.input_shape = (3, size, size)
    _check_output_shape(path, logits_of, stored_num_classes(metadata))
    return logits_of, metadata


def _check_output_shape(path, logits_of, num_classes):
    """Raise InputError unless a function returns logits [N, num_classes], of two classes also [N, 1], for any N."""
    numbers, expected = ((1, 2), "a logit or two") if num_classes == 2 else ((num_classes,), f"{num_classes} logits")
    for count in (1, 2):
        try:
            shape = logits_of(np.zeros((count, *logits_of.input_shape), "float32")).shape
        except Exception as error:
            raise InputError(f"{path}: cannot be run on photographs ({shorten(error)})") from error
        if shape not in [(count, number) for number in numbers]:
            raise InputError(f"{path}: gives {shorten(shape)} for {count} images; expected {expected} for each")


def _load_onnx_export(path):
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    import_onnxruntime()
    try:
        logits_of, properties = load_onnx(path)
    except Exception as error:  # onnxruntime has a dozen of its own
        raise InputError(f"{path}: onnxruntime cannot run it ({shorten(error)})") from error
    return logits_of, {key: _parse_property(value) for key, value in properties.items()}


def _parse_property(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # plain text
        return text


def import_onnxruntime():
    """Import and return onnxruntime; raises InputError if it is missing or cannot be imported."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"onnxruntime is needed ({shorten(error)}): python -m pip install onnxruntime") from error
    return onnxruntime


def load_onnx(path):
    """Load an ONNX file into onnxruntime, on the CPU.

    Args:
        path: Path of the file.

    Returns:
        (function imgs -> logits, properties), the properties a dict of str.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 4  # fatal errors only: others are raised, too
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda imgs: session.run(None, {images.name: imgs})[0], session.get_modelmeta().custom_metadata_map


def _load_paddle_export(directory):
    metadata = read_json(directory / EXPORT_METADATA, "that of an exported network")
    program = find_program(directory / PROGRAM)
    if program is None:
        raise InputError(f"{directory}: the exported network is missing; expected {PROGRAM}.json or {PROGRAM}.pdmodel")
    if program.suffix == ".json" and IS_PADDLE_2:  # which would end the process
        raise InputError(f"{program}: of PaddlePaddle 3, which PaddlePaddle {paddle.__version__} cannot run")
    _check_files(program, program.with_suffix(".pdiparams"), checksums=metadata.get("files"))
    try:
        return load_predictor(program), metadata
    except Exception as error:  # of types that C++ chooses
        raise InputError(f"{directory}: Paddle Inference cannot run it ({shorten(error)})") from error


def _check_files(*files, checksums):
    for file in files:
        if not file.is_file() or not isinstance(checksums, dict) or checksums.get(file.name) != file_digest(file):
            raise InputError(
                f"{file}: missing or damaged: its checksum is not that in {EXPORT_METADATA}; export it again"
            )
