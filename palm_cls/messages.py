"""What the user is told: errors that can be mended, notices, tables."""

import contextlib
import difflib
import errno
import functools
import os
import re
import sys

from palm_cls import machine


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a directory, an option.

    The message is one or two plain lines: the file, what was expected, what to do next. The tools print it without a
    traceback and leave with exit status 2.
    """


class RunError(RuntimeError):
    """A run that had to stop, though nothing it was given was wrong in itself: a loss that is not finite, a directory
    in use. The message is as InputError's; the tools leave with exit status 1.
    """


CAVEAT = "This is a teaching model, not a medical device."  # with every result that somebody might take for advice
DEMO_WARNING = "Its weights were trained on the demo set (drawn images): its predictions tell nothing about eyes."
SHOWN = 300  # characters of a file's own words that a message repeats


def excerpt(text):
    """`text`, which a file may have chosen, as part of a message: one line, not long, without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(text)[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


# How the libraries put it that memory is short; what else is short reads the same (threads, address space).
OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted|out of memory|bad_alloc|insufficient memory|can ?not allocate memory|ALLOC_FAILED"
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
MISSING_LIBRARY = re.compile(
    r"Cannot load (\w+) shared library|dynamic library \(([^)]+)\)|(\S+\.so[.\d]*): cannot open shared object"
)


def reason_of(error):
    """The words of an exception, of paddle's without the stack of its C++ and the place in its source: one line."""
    text = str(error).rpartition("Error Message Summary:")[2].strip("\n -")
    text = re.split(r"\n\s*\[|\n\s*Please check|\(at \S+:\d+\)|\s+Suggestions:", text)[0]
    text = re.sub(r"^\s*(\(\w+\)|\w+Error:)\s*", "", text)
    return excerpt(" ".join(text.split())) or type(error).__name__


def is_out_of_memory(error):
    """Whether an exception says that memory, of the host or a GPU, does not suffice: each library has its own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def missing_library(error):
    """The library that an exception says cannot be loaded ("cudnn", "libcudart.so.11.0"), or None."""
    found = MISSING_LIBRARY.search(str(error))
    return found and next(filter(None, found.groups()))


def did_you_mean(word, words):
    """ "; did you mean alexnet?", for the one of the `words` that is most like `word`; "" where none is."""
    like = difflib.get_close_matches(str(word).casefold(), words, 1)
    return f"; did you mean {like[0]}?" if like else ""


def not_importable(package, error, install):
    """The InputError for an optional package whose import raised `error`; install: what installs it."""
    absent = isinstance(error, ModuleNotFoundError) and error.name == package
    what = "is not installed" if absent else f"cannot be imported ({excerpt(error)})"
    return InputError(f"{package} {what}: {install}")


def notice(text):
    """Say `text` on standard error (of processes that train together, the first): standard output is for results.

    A notice that nobody can read any more, as of a closed terminal, is no error.
    """
    if machine.rank() == 0:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


@functools.cache
def notice_once(text):
    """Say `text` the first time only, however often it comes up in this process."""
    notice(text)


def aligned(rows):
    """Rows of cells (str) as lines in which the columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def command_line(*words):
    """The words of a command as the user's shell takes them, quoted where they must be."""
    import subprocess

    words = [str(word) for word in words]
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(_quoted, words))


def _quoted(word):
    import shlex

    if not re.search("[\ud800-\udfff]", word):
        return shlex.quote(word)
    # Bytes that are not UTF-8, which no terminal shows: as numbers, which bash and zsh read.
    letters = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\{byte:03o}" for byte in os.fsencode(word))
    return f"$'{''.join(letters)}'"
