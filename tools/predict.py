"""Predict images with trained weights: a probability and a label for each.

python tools/predict.py --weights output/alexnet photos
"""

import argparse
import sys

from _cli import Parser, add_runtime_options, configure_runtime, fraction, path, positive_int, run

from palm_cls.recipes import RECIPES

OUTPUTS = (".csv", ".jsonl")


def parse_args():
    parser = Parser(description="Predict images with trained weights: a probability and a label for each.")
    add = parser.add_argument
    add("images", type=path, nargs="+", metavar="PATH", help='images, folders of them, patterns such as "photos/*.jpg"')
    add("--weights", type=path, required=True, metavar="PATH", help="a run (its best epoch), .pdparams file or export")
    add("--model", choices=RECIPES, help="the network (default: the one that the weights tell)")
    add("--output", type=output, metavar="FILE", help="a new .csv or .jsonl file (default: print CSV)")
    add("--threshold", type=fraction, default=0.5, metavar="T", help="label 1 above this probability (default: 0.5)")
    add("--batch-size", type=positive_int, default=10, metavar="N", help="images at a time (default: %(default)s)")
    add("--cam", type=path, metavar="DIR", help="write each image there as NAME.cam.jpg, with its Grad-CAM over it")
    add_runtime_options(parser, cache=False)
    return parser.parse_args()


def output(text):
    if not text.lower().endswith(OUTPUTS):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {', '.join(OUTPUTS)}")
    return text


def main():
    args = parse_args()
    configure_runtime(vars(args))

    from palm_cls.core.console import DEMO_WARNING, DISCLAIMER, log
    from palm_cls.core.device import choose_device
    from palm_cls.core.errors import RunError
    from palm_cls.core.files import check_absent
    from palm_cls.deploy import predict

    if predict.is_export(args.weights):
        settle_export(args)
    images = predict.find_images(args.images)
    overlays = predict.overlay_paths(args.cam, images) if args.cam else []
    check_absent([*([args.output] if args.output else []), *overlays])
    choose_device(args.device)
    model, about = predict.load_model(args.weights, args.model)
    log(DISCLAIMER)
    if about.get("demo"):
        log(DEMO_WARNING)
    found = predict.predict_images(model, images, args.batch_size, args.threshold)
    if args.cam:
        found = predict.write_overlays(model, found, overlays)
    errors = write(found, images, args.output, predict.prediction_note(about))
    if errors:
        raise RunError(f"{errors} of {len(images)} images could not be predicted; their rows tell why")
    return 0


def settle_export(args):
    """An exported network runs on the CPU, and gives no heat maps."""
    from palm_cls.core.errors import InputError

    if args.cam:
        raise InputError(f"--cam: {args.weights} is exported and gives no heat maps; take the weights it was made from")
    if args.device not in (None, "cpu"):
        raise InputError(f"--device {args.device}: {args.weights} is exported and runs on the CPU; leave --device out")
    args.device = "cpu"


def write(found, images, output, note):
    """Write the rows as they come, each with the note; returns how many of them are errors."""
    from tqdm import tqdm

    from palm_cls.deploy.predict import display_names, row_writer

    rows_show = output is None and sys.stdout.isatty()  # and a bar would be in their way
    with row_writer(output, note) as write_row:
        bar = tqdm(found, "predicted", len(images), unit="image", leave=False, disable=rows_show or None)
        errors = 0
        for name, prediction in zip(display_names(images), bar):
            write_row(name, prediction)
            errors += prediction.error is not None
    return errors


if __name__ == "__main__":
    run(main)
