"""Cross-validate a recipe on the training images: every image predicted by a network trained without it.

python tools/crossvalidate.py --model palm --folds 5 --seeds 0-2
"""

import argparse
import os

from _cli import (
    Parser,
    add_data_option,
    add_runtime_options,
    add_training_options,
    configure_runtime,
    fold_count,
    path,
    run,
    seeds,
    time_written,
    tool_command,
)

from palm_cls.checkpoints.run_files import CROSSVALIDATION
from palm_cls.core.console import log
from palm_cls.recipes import RECIPES

RESUMED = {"seeds", "data", "device", "cache"}  # options that go with --resume


def parse_args():
    parser = Parser(
        description="Cross-validate a recipe on the training images: every image predicted by a network trained "
        "without it.",
        argument_default=argparse.SUPPRESS,  # crossvalidate has the defaults
    )
    add = parser.add_argument
    photos = [name for name, recipe in RECIPES.items() if recipe.dataset == "palm"]
    add("--model", dest="name", choices=photos, help="the recipe")
    add("--folds", type=fold_count, metavar="N", help="number of folds (default: 5)")
    add("--seeds", type=seeds, metavar="LIST", help="run all folds with each seed: 0-2 or 0,3,7 (default: 0)")
    add("--no-groups", dest="groups", action="store_false", help="let images that belong together be divided")
    add_data_option(parser)
    add_training_options(parser)
    add_runtime_options(parser)
    add("--output", type=path, metavar="DIR", help="directory of the runs (default: output/MODEL-folds)")
    add("--resume", type=path, metavar="DIR", help="finish the cross-validation in DIR, perhaps with more --seeds")
    options = vars(parser.parse_args())
    check_options(parser, options)
    return options


def check_options(parser, options):
    given = set(options) - {"threads", "stock"}  # which have defaults
    if "resume" not in options:
        if "name" not in options:
            parser.error("--model NAME is required")
    elif unfit := sorted(given - RESUMED - {"resume"}):
        option = {"name": "model", "learning_rate": "lr", "groups": "no-groups"}.get(unfit[0], unfit[0])
        parser.error(f"--{option.replace('_', '-')}: a cross-validation goes on only as it began; leave it out")


def main():
    options = parse_args()
    configure_runtime(options)

    from palm_cls.eval.crossvalidation import format_comparison
    from palm_cls.training.crossvalidation import crossvalidate, resume_crossvalidation

    if options.get("augmentation") == "none":
        options["augmentation"] = None
    directory = options.pop("resume", None)
    output = directory or options.pop("output", None) or os.path.join("output", f"{options['name']}-folds")
    files = [os.path.join(output, CROSSVALIDATION)]
    earlier = time_written(files)
    try:
        result = resume_crossvalidation(output, **options) if directory else crossvalidate(output=output, **options)
    except (KeyboardInterrupt, SystemExit, OSError):
        if directory or time_written(files) != earlier:
            log(f"Resume with: {tool_command('crossvalidate', '--resume', output)}")
        raise
    print(format_comparison([result]))
    print(f"Its report, for a browser: {os.path.join(output, 'report.html')}")
    return 0


if __name__ == "__main__":
    run(main)
