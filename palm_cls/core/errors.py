"""Errors that the user can correct, and readable messages of those that libraries raise."""

import difflib
import errno
import re


class InputError(ValueError):
    """Unusable input of the user: a file, a directory, an option.

    The message is one or two plain lines: the file, what was expected, what to do next. The tools print it without a
    traceback and exit with status 2.
    """


class RunError(RuntimeError):
    """A run that had to stop though its input was valid.

    Examples: a loss that is not finite, a directory in use. The message is as InputError's; the tools exit with status
    1.
    """


MAX_LENGTH = 300  # characters of a file's content in a message


def shorten(text):
    """Cut text to one line of MAX_LENGTH characters, without control characters, for messages."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(text)[: MAX_LENGTH + 1])
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + "..."


# What libraries say when memory is short; shortage of threads or address space reads the same.
OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted|out of memory|bad_alloc|insufficient memory|can ?not allocate memory|ALLOC_FAILED"
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
MISSING_LIBRARY = re.compile(
    r"Cannot load (\w+) shared library|dynamic library \(([^)]+)\)|(\S+\.so[.\d]*): cannot open shared object"
)


def error_reason(error):
    """Return an exception's message in one line, without paddle's C++ stack and source location."""
    text = str(error).rpartition("Error Message Summary:")[2].strip("\n -")
    text = re.split(r"\n\s*\[|\n\s*Please check|\(at \S+:\d+\)|\s+Suggestions:", text)[0]
    text = re.sub(r"^\s*(\(\w+\)|\w+Error:)\s*", "", text)
    return shorten(" ".join(text.split())) or type(error).__name__


def is_out_of_memory(error):
    """Whether an exception of any library reports exhausted memory, of host or GPU."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def missing_library(error):
    """Return the library that an exception reports as not loadable ("cudnn", "libcudart.so.11.0"), or None."""
    match = MISSING_LIBRARY.search(str(error))
    return match and next(filter(None, match.groups()))


def did_you_mean(word, words):
    """Suggest the most similar of `words`: "; did you mean alexnet?", or ""."""
    similar = difflib.get_close_matches(str(word).casefold(), words, 1)
    return f"; did you mean {similar[0]}?" if similar else ""


def missing_package_error(package, error, install):
    """Build the InputError for an optional package that cannot be imported.

    Args:
        package: its name.
        error: the exception of its import.
        install: the command that installs it.
    """
    absent = isinstance(error, ModuleNotFoundError) and error.name == package
    problem = "is not installed" if absent else f"cannot be imported ({shorten(error)})"
    return InputError(f"{package} {problem}: {install}")
