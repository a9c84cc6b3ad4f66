"""Evaluate trained weights on the validation images.

python tools/evaluate.py --weights output/alexnet
"""

import os

from _cli import Parser, add_data_option, add_runtime_options, fraction, path, positive_int, run, settle_runtime, share

from palm_cls.recipes import RECIPES


def parse_args():
    parser = Parser(description="Evaluate trained weights on the validation images.")
    add = parser.add_argument
    add("--weights", type=path, required=True, metavar="PATH", help="a run (its best epoch), or a .pdparams file")
    add("--model", choices=RECIPES, help="the network (default: the one that the weights tell)")
    add_data_option(parser, download=True, first="where the run of the weights had it, ")
    add("--batch-size", type=positive_int, default=10, metavar="N", help="images at a time (default: %(default)s)")
    add("--ten-crop", action="store_true", help="average over corners and centre of 256 pixels, and these mirrored")
    add("--threshold", type=fraction, metavar="T", help="positive is a probability above this (default: 0.5)")
    add("--sensitivity", type=share, metavar="S", help="take the threshold that reaches this, with --threshold-from")
    add("--threshold-from", type=path, metavar="FILE", help="the evaluation.json, of other images, to take it from")
    add("--json", type=path, metavar="FILE", help="write the measures there (default: evaluation.json in the run)")
    add("--csv", type=path, metavar="FILE", help="write a row an image there (default: predictions.csv in the run)")
    add_runtime_options(parser)
    args = parser.parse_args()
    if (args.sensitivity is None) != (args.threshold_from is None):
        parser.error("--sensitivity S and --threshold-from FILE go together")
    if args.sensitivity is not None and args.threshold is not None:
        parser.error("--threshold or --sensitivity, not both")
    return args


def main():
    args = parse_args()
    settle_runtime(vars(args))

    from palm_cls.data.palm import DEMO_DISCLAIMER
    from palm_cls.eval.assess import assess, caveat_of, refuse_threshold_from, threshold_from, write_assessment
    from palm_cls.eval.metrics import format_measures

    threshold = 0.5 if args.threshold is None else args.threshold
    if args.threshold_from:
        threshold = threshold_from(args.threshold_from, args.sensitivity)
    found = assess(
        args.weights,
        args.model,
        args.data,
        args.batch_size,
        args.device,
        args.cache,
        threshold,
        args.download,
        args.ten_crop,
    )
    if args.threshold_from:
        refuse_threshold_from(args.threshold_from, found)
    remark = DEMO_DISCLAIMER if found.demo else ""
    images = (
        f"{len(found.predictions.labels)} of {found.listed} images{', ten views of each' if found.ten_crop else ''}"
    )
    print(f"{found.model}, {found.weights}: {images} {remark}".rstrip())
    print(format_measures(found.measures))
    files = files_to_write(args, found)
    write_assessment(found, *files)
    print(f"written: {', '.join(files)}\n{caveat_of(found.model)}".rstrip())
    return 0


def files_to_write(args, found):
    """The JSON and the CSV: as asked for, else beside the weights.

    The name tells the weights, unless they are a run's best, and the images, unless they are those of the run.
    """
    from palm_cls.checkpoints.run_files import EVALUATION, PREDICTIONS

    folder, name = os.path.split(found.weights)
    prefix = "" if name == "best.pdparams" else f"{os.path.splitext(name)[0]}."
    prefix += f"{found.elsewhere}." if found.elsewhere else ""
    return (
        args.json or os.path.join(folder, prefix + EVALUATION),
        args.csv or os.path.join(folder, prefix + PREDICTIONS),
    )


if __name__ == "__main__":
    run(main)
