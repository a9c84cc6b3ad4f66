"""What every tool shares: it runs from a clone without installation, and errors end it in a plain line or two."""

import argparse
import math
import os
import signal
import sys

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
)  # the clone's palm_cls, before any installed one

from _errors import explain_error  # noqa: E402  only now can they be found

from palm_cls.core import environment
from palm_cls.core.console import command_line
from palm_cls.core.errors import did_you_mean

SEEDS_LIMIT = 1000  # in a range; a slip of the finger should not fill the memory with numbers


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with exit status 2; a misspelt choice gets the nearest one."""

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if not (meant := did_you_mean(value, action.choices)):
                raise
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant}") from error

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help shows the options)\n")


def run(main):
    """Call `main()` and leave with its exit status; what a user can cause ends in a message, not in a traceback."""
    for stream in (sys.stdout, sys.stderr):  # lines show at once in a pipe, too, and no name is unprintable
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if os.environ.get("MPLBACKEND", "").startswith("module://"):
        del os.environ["MPLBACKEND"]  # a notebook's, inherited by "!python ...": it draws in that process only
    for name in ("SIGTERM", "SIGHUP"):  # they end a tool in Python's way, so that temporary files are removed
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        status = main()
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        status = 1
    except (Exception, KeyboardInterrupt) as error:
        prog = os.path.basename(sys.argv[0])
        told = explain_error(error, "--resume" if prog == "train.py" else "run this again")
        if told is None:
            raise
        text, status = told
        print(f"{prog}: {text}", file=sys.stderr)
    sys.exit(status)


def tool_command(name, *args):
    """The command line that runs another tool, as the user must type it where this one was started."""
    return command_line("python", os.path.join(os.path.dirname(sys.argv[0]), f"{name}.py"), *args)


def add_data_option(parser, download=False, first=""):
    """The option --data. download: whether the tool takes any recipe, and so --download; first: looked at first."""
    add = parser.add_argument
    found = f"else {first}$PALM_DATA, data/palm, /home/aistudio/work/palm, or the demo set"
    other = "; for their recipes data/mnist, data/fashion-mnist" if download else ""
    add("--data", type=path, metavar="DIR", help=f"directory of the data set ({found}{other})")
    if download:
        add("--download", action="store_true", help="fetch MNIST or Fashion-MNIST to there, where files are missing")


def add_runtime_options(parser, cache=True):
    """The options of every tool that runs a network: --device; --threads and --stock, see `configure_runtime`.

    cache: whether the tool keeps resized images on disk, and so takes --no-cache.
    """
    add = parser.add_argument
    add("--device", metavar="NAME", help="cpu, gpu, gpu:1, ... (default: the GPU, where there is one)")
    add(
        "--threads",
        type=positive_int,
        metavar="N",
        help="for the network to compute with (default: all cores that may be used)",
    )
    add("--stock", action="store_true", help="leave PaddlePaddle's own speed settings as they come")
    if cache:
        add("--no-cache", dest="cache", action="store_false", help="decode the images every epoch, keep none on disk")


def configure_runtime(options):
    """Take --threads and --stock out of {option: value} and settle them, before paddle is imported."""
    threads, stock = options.pop("threads", None), options.pop("stock", False)
    if stock:
        environment.restore()
        os.environ["PALM_STOCK"] = "1"
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif environment.world_size() > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]  # nobody's wish: the launcher has imported paddle, which sets it


def path(text):
    """An argparse type: a path, which an unset variable in a shell is not."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return text


def positive_int(text):
    """An argparse type: a whole number from 1."""
    return _number(int, text, "a whole number from 1", lambda value: value >= 1)


def port(text):
    """An argparse type: a port of TCP."""
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
    if not 0 < len(numbers) <= SEEDS_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of 1 to {SEEDS_LIMIT} seeds, from low to high")
    return numbers


def positive_float(text):
    """An argparse type: a finite number above 0."""
    return _number(float, text, "a number above 0", lambda value: 0 < value < math.inf)


def fraction(text):
    """An argparse type: a number from 0, below 1."""
    return _number(float, text, "a number from 0, below 1", lambda value: 0 <= value < 1)


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
