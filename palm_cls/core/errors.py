"""Errors that the user can mend, and the words of those that libraries raise."""

import difflib
import errno
import re


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a directory, an option.

    The message is one or two plain lines: the file, what was expected, what to do next. The tools print it without a
    traceback and leave with exit status 2.
    """


class RunError(RuntimeError):
    """A run that had to stop, though nothing it was given was wrong in itself: a loss that is not finite, a directory
    in use. The message is as InputError's; the tools leave with exit status 1.
    """


MAX_LENGTH = 300  # characters of a file's own words that a message repeats


def shorten(text):
    """`text`, which a file may have chosen, as part of a message: one line, not long, without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(text)[: MAX_LENGTH + 1])
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + "..."


# How the libraries put it that memory is short; what else is short reads the same (threads, address space).
OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted|out of memory|bad_alloc|insufficient memory|can ?not allocate memory|ALLOC_FAILED"
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)


MISSING_LIBRARY = re.compile(
    r"Cannot load (\w+) shared library|dynamic library \(([^)]+)\)|(\S+\.so[.\d]*): cannot open shared object"
)


def error_reason(error):
    """The words of an exception, of paddle's without the stack of its C++ and the place in its source: one line."""
    text = str(error).rpartition("Error Message Summary:")[2].strip("\n -")
    text = re.split(r"\n\s*\[|\n\s*Please check|\(at \S+:\d+\)|\s+Suggestions:", text)[0]
    text = re.sub(r"^\s*(\(\w+\)|\w+Error:)\s*", "", text)
    return shorten(" ".join(text.split())) or type(error).__name__


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


def missing_package_error(package, error, install):
    """The InputError for an optional package whose import raised `error`; install: what installs it."""
    absent = isinstance(error, ModuleNotFoundError) and error.name == package
    what = "is not installed" if absent else f"cannot be imported ({shorten(error)})"
    return InputError(f"{package} {what}: {install}")
