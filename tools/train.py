"""Train a network on the fundus images, as the lesson does.

python tools/train.py --model lenet
"""

import argparse

from _cli import (
    Parser,
    add_data_option,
    add_device_option,
    fraction,
    path,
    positive_float,
    positive_int,
    run,
    seed,
    tool_command,
)

from palm_cls.zoo import RECIPES, Recipe


def parse_args():
    parser = Parser(
        description="Train a network on the fundus images, as the lesson does.",
        argument_default=argparse.SUPPRESS,  # what is not given is left to train_recipe
    )
    add = parser.add_argument
    add("--model", dest="name", choices=RECIPES, default="lenet", help="the network (default: %(default)s)")
    add_data_option(parser)
    add(
        "--train-csv",
        type=path,
        metavar="FILE",
        help="labels of the training images, .csv or .xlsx (else: their names)",
    )
    add("--skip-bad", action="store_true", help="pass over training images that do not decode, and tell their names")
    add("--epochs", type=positive_int, metavar="N", help=f"passes over the training images (default: {Recipe.epochs})")
    add("--batch-size", type=positive_int, metavar="N", help=f"images in a step (default: {Recipe.batch_size})")
    add(
        "--lr",
        dest="learning_rate",
        type=positive_float,
        metavar="X",
        help=f"learning rate (default: {Recipe.learning_rate})",
    )
    add("--momentum", type=fraction, metavar="X", help=f"of the optimizer (default: {Recipe.momentum})")
    add("--seed", type=seed, metavar="N", help="of all random numbers (default: 0)")
    add("--weights", type=path, metavar="PATH", help="start from these: a .pdparams file, or a run (its best epoch)")
    add_device_option(parser)
    add("--output", type=path, metavar="DIR", help="where the run goes (default: output/MODEL)")
    add("--summary", action="store_true", default=False, help="print the table of layers, and stop")
    return parser.parse_args()


def main():
    options = vars(parse_args())
    if options.pop("summary"):
        from palm_cls.models import format_summary
        from palm_cls.zoo import build_model

        print(format_summary(build_model(options["name"])))
        return 0

    from palm_cls.training import train_recipe

    trained = train_recipe(**options)
    tell_results(trained)
    tell_next_steps(trained.output, options)
    return 0


def tell_results(trained):
    from palm_cls.runs import best_record

    last, best = trained.history[-1], best_record(trained.history)
    print(
        f"last epoch {last['epoch']}: accuracy {last['valid_accuracy']:.4f}; "
        f"best epoch {best['epoch']}: accuracy {best['valid_accuracy']:.4f}; "
        f"on {last['valid_images']} validation images {trained.dataset.remark}".rstrip()
    )


def tell_next_steps(output, options):
    data = ("--data", options["data"]) if "data" in options else ()
    print(f"The run lies in {output}. Evaluate its best epoch:")
    print(f"    {tool_command('evaluate', '--weights', output, *data)}")
    if RECIPES[options["name"]].advice:
        print(RECIPES[options["name"]].advice)


if __name__ == "__main__":
    run(main)
