"""Predict images with trained weights: the class of each and its probability.

python tools/predict.py --weights output/alexnet photos
"""

import argparse
import sys

from _cli import (
    Parser,
    add_runtime_options,
    add_views_option,
    add_weights_options,
    configure_runtime,
    fraction,
    path,
    positive_int,
    run,
)

OUTPUTS = (".csv", ".jsonl")


def parse_args():
    parser = Parser(description="Predict images with trained weights: the class of each and its probability.")
    add = parser.add_argument
    add("images", type=path, nargs="+", metavar="PATH", help='images, folders of them, patterns such as "photos/*.jpg"')
    add_weights_options(parser, exported=True)
    of_two = "of two classes, the last (label 1)"
    add("--output", type=output, metavar="FILE", help="a new .csv or .jsonl file (default: print CSV)")
    add("--threshold", type=fraction, default=0.5, metavar="T", help=f"{of_two} above this probability (default: 0.5)")
    add_views_option(parser)
    add("--batch-size", type=positive_int, default=10, metavar="N", help="images at a time (default: %(default)s)")
    add("--cam", type=path, metavar="DIR", help="draw the Grad-CAM over each image, and write DIR/NAME.cam.jpg")
    add("--cam-class", metavar="NAME", help="with --cam: what speaks for this class (default: the predicted one)")
    add_runtime_options(parser, cache=False)
    args = parser.parse_args()
    if args.cam_class is not None and not args.cam:
        parser.error("--cam-class NAME goes with --cam DIR")
    return args


def output(text):
    if not text.lower().endswith(OUTPUTS):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {', '.join(OUTPUTS)}")
    return text


def main():
    args = parse_args()
    configure_runtime(vars(args))

    from palm_cls.checkpoints.file_checks import is_export
    from palm_cls.core.console import DEMO_WARNING, DISCLAIMER, log
    from palm_cls.core.device import choose_device
    from palm_cls.core.errors import RunError
    from palm_cls.core.files import check_absent
    from palm_cls.data.classes import find_class
    from palm_cls.deploy.predict import find_classes, find_images, load_model, predict_images
    from palm_cls.deploy.prediction_files import overlay_paths, prediction_note, write_overlays
    from palm_cls.eval.metrics import check_threshold

    if is_export(args.weights):
        check_export_options(args)
    images = find_images(args.images)
    overlays = overlay_paths(args.cam, images) if args.cam else []
    check_absent([*([args.output] if args.output else []), *overlays])
    choose_device("cpu" if is_export(args.weights) else args.device)
    model, metadata = load_model(args.weights, args.model)
    classes = find_classes(args.weights, metadata)
    check_threshold(len(classes), args.threshold)
    cam_label = None if args.cam_class is None else find_class(args.cam_class, classes, "--cam-class")
    log(DISCLAIMER)
    if metadata.get("demo"):
        log(DEMO_WARNING)
    predictions = predict_images(model, images, args.batch_size, args.threshold, args.views)
    if args.cam:
        predictions = write_overlays(model, predictions, overlays, cam_label)
    num_errors = write_rows(predictions, images, args.output, prediction_note(metadata), classes)
    if num_errors:
        raise RunError(f"{num_errors} of {len(images)} images could not be predicted; their rows state why")
    return 0


def check_export_options(args):
    """Raise InputError for options of heat maps or a GPU, which exports do not support."""
    from palm_cls.core.errors import InputError

    if args.cam:
        raise InputError(f"--cam: {args.weights} is exported and gives no heat maps; take the weights it was made from")
    if args.device not in (None, "cpu"):
        raise InputError(f"--device {args.device}: {args.weights} is exported and runs on the CPU; leave --device out")


def write_rows(predictions, images, output, note, classes):
    """Write each prediction as soon as it is there; returns the number of errors."""
    from tqdm import tqdm

    from palm_cls.deploy.prediction_files import display_names, row_writer

    rows_show = output is None and sys.stdout.isatty()  # and a bar would be in their way
    with row_writer(output, note, classes) as write_row:
        bar = tqdm(predictions, "predicted", len(images), unit="image", leave=False, disable=rows_show or None)
        num_errors = 0
        for name, prediction in zip(display_names(images), bar):
            write_row(name, prediction)
            num_errors += prediction.error is not None
    return num_errors


if __name__ == "__main__":
    run(main)
