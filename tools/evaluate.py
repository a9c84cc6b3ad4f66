"""Evaluate trained weights on the validation images.

python tools/evaluate.py --weights output/alexnet
"""

import os

from _cli import (
    Parser,
    add_data_option,
    add_runtime_options,
    add_views_option,
    add_weights_options,
    configure_runtime,
    fraction,
    path,
    positive_int,
    run,
    share,
)


def parse_args():
    parser = Parser(description="Evaluate trained weights on the validation images.")
    add_weights_options(parser)
    add_data_option(parser, download=True, first="that of the weights' run, ")
    add = parser.add_argument
    add("--split", choices=("valid", "test"), default="valid", help="validation or test images (default: valid)")
    add("--valid-csv", type=path, metavar="FILE", help="labels of the images (default: those of the data set)")
    ordered = "the classes have an order, as grades do: add a weighted kappa (default: as for train.py)"
    add("--ordered", action="store_true", default=None, help=ordered)
    add("--batch-size", type=positive_int, default=10, metavar="N", help="images at a time (default: %(default)s)")
    views = parser.add_mutually_exclusive_group()
    crops = "average over corners and centre of 256 pixels and their mirror images"
    views.add_argument("--ten-crop", action="store_true", help=crops)
    add_views_option(views)
    add("--threshold", type=fraction, metavar="T", help="positive above this probability (default: 0.5)")
    add("--sensitivity", type=share, metavar="S", help="use the threshold that reaches this in --threshold-from")
    add("--threshold-from", type=path, metavar="FILE", help="the evaluation.json of other images, for --sensitivity")
    add("--json", type=path, metavar="FILE", help="file of the metrics (default: evaluation.json in the run)")
    add("--csv", type=path, metavar="FILE", help="file with a row per image (default: predictions.csv in the run)")
    add_runtime_options(parser)
    args = parser.parse_args()
    if (args.sensitivity is None) != (args.threshold_from is None):
        parser.error("--sensitivity S and --threshold-from FILE go together")
    if args.split == "test" and args.valid_csv:
        parser.error("--split test or --valid-csv, not both")
    if args.sensitivity is not None and args.threshold is not None:
        parser.error("--threshold or --sensitivity, not both")
    return args


def main():
    args = parse_args()
    configure_runtime(vars(args))

    from palm_cls.data.data_root import DEMO_DISCLAIMER
    from palm_cls.eval.assess import assess, check_threshold_source, disclaimer_for, threshold_from, write_evaluation
    from palm_cls.eval.metrics_text import format_metrics

    threshold = 0.5 if args.threshold is None else args.threshold
    if args.threshold_from:
        threshold = threshold_from(args.threshold_from, args.sensitivity)
    result = assess(
        args.weights,
        args.model,
        args.data,
        args.batch_size,
        args.device,
        cache=args.cache,
        threshold=threshold,
        download=args.download,
        ten_crop=args.ten_crop,
        views=args.views,
        split=args.split,
        valid_csv=args.valid_csv,
        ordered=args.ordered,
    )
    if args.threshold_from:
        check_threshold_source(args.threshold_from, result)
    remark = DEMO_DISCLAIMER if result.demo else ""
    views = f", {result.views} views of each" if result.views > 1 else ""
    images = f"{len(result.predictions.labels)} of {result.num_listed} images{views}"
    print(f"{result.model}, {result.weights}: {images} {remark}".rstrip())
    if classes := describe_classes(result):
        print(classes)
    print(format_metrics(result.metrics))
    files = files_to_write(args, result)
    write_evaluation(result, *files)
    print(f"written: {', '.join(files)}\n{disclaimer_for(result.model)}".rstrip())
    return 0


def describe_classes(result):
    """Say which of two classes is the positive one, and which order the kappa is of; "" for the lesson's classes."""
    from palm_cls.data.labels import CLASSES

    if len(result.classes) == 2 and list(result.classes) != CLASSES:
        return f"the positive class is {result.classes[1]}, the other {result.classes[0]}"
    return f"kappa is of the order {', '.join(result.classes)}" if "kappa" in result.metrics else ""


def files_to_write(args, result):
    """Return the names of the JSON and the CSV file, by default beside the weights.

    Their names contain that of the weights, unless those are a run's best, that of the data set, unless it is the
    run's own, and "test" for the test images.
    """
    from palm_cls.checkpoints.run_files import EVALUATION, PREDICTIONS

    folder, name = os.path.split(result.weights)
    prefix = "" if name == "best.pdparams" else f"{os.path.splitext(name)[0]}."
    prefix += f"{result.other_dataset}." if result.other_dataset else ""
    prefix += "test." if args.split == "test" else ""
    return (
        args.json or os.path.join(folder, prefix + EVALUATION),
        args.csv or os.path.join(folder, prefix + PREDICTIONS),
    )


if __name__ == "__main__":
    run(main)
