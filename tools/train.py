"""Train a network as the lesson does: on the fundus images, or on MNIST or Fashion-MNIST.

python tools/train.py --model lenet
"""

import argparse
import os

from _cli import (
    Parser,
    add_data_option,
    add_runtime_options,
    add_training_options,
    configure_runtime,
    path,
    positive_fraction,
    run,
    seed,
    seeds,
    time_written,
    tool_command,
)

from palm_cls.checkpoints.run_files import SEEDS, SETTINGS
from palm_cls.core import environment
from palm_cls.core.console import command_line, log
from palm_cls.recipes import RECIPES, format_recipes

DEFAULT = "lenet"


def parse_args():
    parser = Parser(
        description="Train a network as the lesson does: on the fundus images, or on MNIST or Fashion-MNIST.",
        argument_default=argparse.SUPPRESS,  # train_recipe has the defaults
    )
    add = parser.add_argument
    add("--list", action="store_true", default=False, help="print all recipes in full and exit")
    add("--model", dest="name", choices=RECIPES, help=f"the recipe: a network and its training (default: {DEFAULT})")
    add_data_option(parser, download=True)
    add_training_options(parser)
    labels = "labels of the validation images, .csv or .xlsx (default: those of the data set)"
    add("--valid-csv", type=path, metavar="FILE", help=labels)
    part = "validate on this share of images that are not divided yet (default: 0.2)"
    add("--valid-fraction", type=positive_fraction, metavar="F", help=part)
    ordered = "the classes have an order, as grades do: evaluations add a weighted kappa"
    add("--ordered", action="store_true", help=ordered)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--seed", type=seed, metavar="N", help="seed of all random numbers (default: 0)")
    either.add_argument("--seeds", type=seeds, metavar="LIST", help="a run per seed: 0-4 or 0,3,7; in DIR/seed-N")
    add_runtime_options(parser)
    add("--output", type=path, metavar="DIR", help="directory of the run (default: output/MODEL)")
    resume = "resume the run in DIR (default: the directory of a new run)"
    add("--resume", type=path, nargs="?", metavar="DIR", help=resume)
    add("--no-report", dest="report", action="store_false", help="write no report.html at the end")
    add("--visualdl", action="store_true", help="also write the curves for VisualDL (an optional package)")
    add("--summary", action="store_true", default=False, help="print the table of layers and exit")
    add("--figure", type=path, metavar="FILE.png", help="with --summary: draw the layers as boxes into this file, too")
    options = vars(parser.parse_args())
    if "figure" in options and not options["summary"]:
        parser.error("--figure goes with --summary")
    return parser, options


def main():
    parser, options = parse_args()
    configure_runtime(options)
    if print_info(options):
        return 0

    if options.get("augmentation") == "none":
        options["augmentation"] = None
    resume = "resume" in options
    if resume and options["resume"] and "output" in options:
        parser.error("--resume DIR or --output DIR, not both")
    default = os.path.join("output", options.get("name", DEFAULT))
    output = options.pop("resume", None) or options.pop("output", default)
    several = "seeds" in options or (resume and os.path.isfile(os.path.join(output, SEEDS)))
    files = [os.path.join(output, name) for name in (SETTINGS, SEEDS)]
    earlier = time_written(files)
    try:
        trained = (train_several if several else train_one)(output, resume, options)
    except (KeyboardInterrupt, SystemExit, OSError):  # SystemExit: of a signal, see `_cli.run`; OSError: a full disk
        if resume or time_written(files) != earlier:
            log(f"Resume with: {resume_command(output)}")
        raise
    if environment.rank() > 0:
        return 0  # process 0 prints
    (print_seeds_summary if several else print_summary)(trained)
    if trained.recipe.hint:
        print(trained.recipe.hint)
    return 0


def print_info(options):
    """Print what --list or --summary requests; returns whether one of them was given."""
    listing, summary, figure = options.pop("list"), options.pop("summary"), options.pop("figure", None)
    if listing:
        print(format_recipes())
    elif summary:
        print_network(options.get("name", DEFAULT), figure)
    return listing or summary


def print_network(name, figure):
    """Print a recipe's table of layers, and draw them into the file `figure` if it is not None."""
    from palm_cls.models.summary import format_summary
    from palm_cls.recipes import build_model

    model = build_model(name)
    print(format_summary(model))
    if figure:
        from palm_cls.data.samples import show_or_write
        from palm_cls.models.summary_figure import network_figure

        print(f"figure: {show_or_write(network_figure(model, name), figure)}")


def train_one(output, resume, options):
    from palm_cls.training.experiment import resume_recipe, train_recipe

    if resume:
        return resume_recipe(output, **options)
    return train_recipe(**{"name": DEFAULT, **options}, output=output)


def train_several(output, resume, options):
    from palm_cls.training.multi_seed import resume_seeds, train_seeds

    if resume:
        return resume_seeds(output, **options)
    return train_seeds(**{"name": DEFAULT, **options}, output=output)


def resume_command(output):
    """Return the command line that resumes a run, in as many processes."""
    command = tool_command("train", "--resume", output)
    if environment.world_size() == 1:
        return command
    machines = environment.world_size() // environment.local_world_size()
    options = ["--nproc_per_node", environment.local_world_size()]
    if machines > 1:
        options += ["--master", "HOST:PORT", "--nnodes", machines]  # the same on every machine
    if "PADDLE_LOG_DIR" in os.environ:
        options += ["--log_dir", os.environ["PADDLE_LOG_DIR"]]
    return command.replace("python", f"python {command_line('-m', 'paddle.distributed.launch', *options)}", 1)


def print_summary(trained):
    from palm_cls.checkpoints.run_files import best_record

    last, best = trained.history[-1], best_record(trained.history)
    print(
        f"last epoch {last['epoch']}: accuracy {last['valid_accuracy']:.4f}; "
        f"best epoch {best['epoch']}: accuracy {best['valid_accuracy']:.4f}; "
        f"on {last['valid_images']} validation images {trained.dataset.disclaimer}".rstrip()
    )
    if trained.report:
        print(f"Its report, for a browser: {trained.report}")
    print(f"The run lies in {trained.output}. Evaluate its best epoch:")
    print(f"    {tool_command('evaluate', '--weights', trained.output)}")


def print_seeds_summary(trained):
    from palm_cls.eval.compare import format_spread

    histories = list(trained.histories.values())
    images, remark = histories[0][-1]["valid_images"], trained.dataset.disclaimer
    print(f"seeds {', '.join(map(str, trained.histories))}: accuracy on {images} validation images {remark}".rstrip())
    print(format_spread(histories))
    print(f"The runs lie in {trained.output}. Compare them, epoch by epoch:")
    print(f"    {tool_command('compare', trained.output)}")


if __name__ == "__main__":
    run(main)
