"""What every tool shares: it runs from a clone without installation, and errors end in a plain line or two."""

import argparse
import math
import os
import signal
import sys

# The clone's palm_cls, before any installed one.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from _errors import explain_error  # noqa: E402  only now can they be found

from palm_cls.core import environment
from palm_cls.core.console import command_line
from palm_cls.core.errors import did_you_mean

MAX_SEEDS = 1000  # in a range, so that a typing error does not fill the memory with numbers


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with exit status 2; for a misspelt choice they name the nearest."""

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if not (suggestion := did_you_mean(value, action.choices)):
                raise
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{suggestion}") from error

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help shows the options)\n")


def run(main):
    """Call `main()` and exit with its status.

    Errors that the user can mend are printed without a traceback, see `_errors.explain_error`.

    Args:
        main: Function without arguments that returns the exit status.
    """
    _prepare_process()
    try:
        status = main()
    except BrokenPipeError:  # whoever read the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains on exit
        status = 1
    except (Exception, KeyboardInterrupt) as error:
        prog = os.path.basename(sys.argv[0])
        explained = explain_error(error, "--resume" if prog == "train.py" else "run this again")
        if explained is None:
            raise
        message, status = explained
        print(f"{prog}: {message}", file=sys.stderr)
    sys.exit(status)


def _prepare_process():
    for stream in (sys.stdout, sys.stderr):  # lines appear at once in a pipe, too, and every name can be printed
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if os.environ.get("MPLBACKEND", "").startswith("module://"):
        del os.environ["MPLBACKEND"]  # a notebook's, inherited by "!python ...": it draws in that process only
    for name in ("SIGTERM", "SIGHUP"):  # they exit as Python does, so that temporary files are removed
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def tool_command(name, *args):
    """Return the command line that runs another tool from the current directory.

    Args:
        name: Name of the tool, without suffix.
        args: Its arguments.
    """
    return command_line("python", os.path.join(os.path.dirname(sys.argv[0]), f"{name}.py"), *args)


def add_weights_options(parser, exported=False):
    """Add --weights and --model.

    Args:
        parser: The Parser.
        exported: Whether the tool takes exported networks, too.
    """
    from palm_cls.recipes import RECIPES

    weights = f"a run (its best epoch){', .pdparams file or export' if exported else ', or a .pdparams file'}"
    parser.add_argument("--weights", type=path, required=True, metavar="PATH", help=weights)
    parser.add_argument("--model", choices=RECIPES, help="the recipe (default: the one that the weights name)")


def add_data_option(parser, download=False, first=""):
    """Add --data.

    Args:
        parser: The Parser.
        download: Whether the tool takes the recipes on MNIST, too, and so --download.
        first: Where the tool looks before the usual places, in words that end in a comma.
    """
    add = parser.add_argument
    places = f"else {first}$PALM_DATA, data/palm, /home/aistudio/work/palm, or the demo set"
    other = "; for MNIST and Fashion-MNIST data/mnist, data/fashion-mnist" if download else ""
    add("--data", type=path, metavar="DIR", help=f"directory of the data set ({places}{other})")
    if download:
        add("--download", action="store_true", help="download the files of MNIST or Fashion-MNIST that are missing")


def add_label_options(parser):
    """Add the options of what labels mean: --train-csv, --classes, --positive.

    Args:
        parser: The Parser.
    """
    add = parser.add_argument
    labels = "labels of the training images, .csv or .xlsx (default: by their names or folders)"
    add("--train-csv", type=path, metavar="FILE", help=labels)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--classes", type=names, metavar="LIST", help="names of the classes in order, as none,mild,severe"
    )
    positive = "the class that is positive, of two (default: the last by name)"
    either.add_argument("--positive", metavar="NAME", help=positive)


def add_training_options(parser):
    """Add the options of how a recipe is trained, which train.py and crossvalidate.py share.

    Args:
        parser: The Parser, for which argparse.SUPPRESS is the default of every option.
    """
    from palm_cls.recipes import AUGMENTATIONS

    add = parser.add_argument
    add_label_options(parser)
    weighting = "give the losses of all classes the same weight in total (default: of all images)"
    add("--class-weights", choices=("balanced",), help=weighting)
    add("--skip-bad", action="store_true", help="skip and list the training images that cannot be decoded")
    add("--epochs", type=positive_int, metavar="N", help="passes over the training images (default: the recipe's)")
    batch = "images in a step, over all processes (default: the recipe's)"
    add("--batch-size", type=positive_int, metavar="N", help=batch)
    rate = "learning rate (default: the recipe's)"
    add("--lr", dest="learning_rate", type=positive_float, metavar="X", help=rate)
    add("--momentum", type=fraction, metavar="X", help="momentum; 0 is plain SGD (default: the recipe's)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--shuffle", action="store_true", help="shuffle the training images every epoch")
    unshuffled = "keep the order of their names or file (default: the recipe's choice)"
    order.add_argument("--no-shuffle", dest="shuffle", action="store_false", help=unshuffled)
    augmentation = "augmentation of the training images (default: the recipe's)"
    add("--augment", dest="augmentation", choices=("none", *AUGMENTATIONS), help=augmentation)
    start = parser.add_mutually_exclusive_group()
    weights = "start from these weights: a .pdparams file, or a run (its best epoch)"
    start.add_argument("--weights", type=path, metavar="PATH", help=weights)
    pretrained = "start from ImageNet weights, which paddle downloads: vgg16, googlenet, resnet50"
    start.add_argument("--pretrained", action="store_true", help=pretrained)
    add("--new-head", action="store_true", help="leave out the last layer of --weights, which are for other classes")
    add("--save-every", type=positive_int, metavar="N", help="save a checkpoint every N steps, besides every epoch")


def time_written(files):
    """Return when the first of these files that exists was written, which changes with a new run; or None."""
    return next((os.stat(file).st_mtime_ns for file in files if os.path.isfile(file)), None)


def add_views_option(parser):
    """Add --views."""
    views = "average over so many views of each photograph: 8 are its four turns and their mirror images"
    parser.add_argument("--views", type=int, choices=(1, 8), default=1, help=f"{views} (default: 1)")


def add_runtime_options(parser, cache=True):
    """Add the options of every tool that runs a network: --device, --threads, --stock.

    Args:
        parser: The Parser.
        cache: Whether the tool keeps resized images on disk, and so takes --no-cache.
    """
    add = parser.add_argument
    add("--device", metavar="NAME", help="cpu, gpu, gpu:1, ... (default: the GPU if there is one)")
    add("--threads", type=positive_int, metavar="N", help="threads of the network (default: all available cores)")
    add("--stock", action="store_true", help="keep Paddle's default speed settings")
    if cache:
        add("--no-cache", dest="cache", action="store_false", help="decode the images every epoch, keep none on disk")


def configure_runtime(options):
    """Remove --threads and --stock from the options and apply them, before paddle is imported.

    Args:
        options: {option: value}.
    """
    threads, stock = options.pop("threads", None), options.pop("stock", False)
    if stock:
        environment.restore()
        os.environ["PALM_STOCK"] = "1"
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif environment.world_size() > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]  # set by no user: the launcher has imported paddle, which sets it


def path(text):
    """An argparse type: a path."""
    if not text:  # of an unset variable in a shell
        raise argparse.ArgumentTypeError("an empty path")
    return text


def names(text):
    """An argparse type: names, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return names


def positive_int(text):
    """An argparse type: a whole number from 1."""
    return _number(int, text, "a whole number from 1", lambda value: value >= 1)


def fold_count(text):
    """An argparse type: a number of folds."""
    return _number(int, text, "a whole number from 2", lambda value: value >= 2)


def port(text):
    """An argparse type: a TCP port."""
    return _number(int, text, "a port from 1 to 65535", lambda value: 1 <= value <= 65535)


def seed(text):
    """An argparse type: a seed that NumPy takes."""
    return _number(int, text, "a whole number from 0 to 4294967295", lambda value: 0 <= value < 2**32)


def seeds(text):
    """An argparse type: a list of seeds, each once, as 0-4 or 0,3,7 or 0-2,7."""
    numbers = [number for part in text.split(",") for number in _seed_range(part)]
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} has a seed twice")
    return numbers


def _seed_range(text):
    first, _, last = text.partition("-")
    first = seed(first)
    numbers = range(first, 1 + (seed(last) if "-" in text else first))
    if not 0 < len(numbers) <= MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of 1 to {MAX_SEEDS} seeds, from low to high")
    return numbers


def positive_float(text):
    """An argparse type: a finite number above 0."""
    return _number(float, text, "a number above 0", lambda value: 0 < value < math.inf)


def fraction(text):
    """An argparse type: a number from 0, below 1."""
    return _number(float, text, "a number from 0, below 1", lambda value: 0 <= value < 1)


def positive_fraction(text):
    """An argparse type: a number above 0, below 1."""
    return _number(float, text, "a number above 0, below 1", lambda value: 0 < value < 1)


def share(text):
    """An argparse type: a number above 0, at most 1."""
    return _number(float, text, "a number above 0, at most 1", lambda value: 0 < value <= 1)


def _number(kind, text, expected, fits):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value
