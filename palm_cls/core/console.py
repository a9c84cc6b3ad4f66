"""Log lines on standard error, tables as text, commands quoted for a shell."""

import contextlib
import functools
import os
import re
import sys

from palm_cls.core import environment

DISCLAIMER = "This is a teaching model, not a medical device."  # with every result that might be taken for advice
DEMO_WARNING = "Its weights were trained on the demo set (drawn images): its predictions tell nothing about eyes."


def log(text):
    """Print a line on standard error, in rank 0 only; a closed terminal is no error."""
    if environment.rank() == 0:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


@functools.cache
def log_once(text):
    """Log a line the first time only that it occurs in this process."""
    log(text)


def format_table(rows):
    """Align the columns of a table.

    Args:
        rows: lists of cells (str), the heading among them, all of the same length.

    Returns:
        A list of lines (str), columns left-aligned and two spaces apart.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def command_line(*words):
    """Join the words of a command, quoted where the user's shell needs it."""
    import subprocess

    words = [str(word) for word in words]
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(_quote, words))


def _quote(word):
    import shlex

    if not re.search("[\ud800-\udfff]", word):
        return shlex.quote(word)
    # Bytes that are not UTF-8, which terminals do not show: as octal numbers, which bash and zsh read.
    letters = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\{byte:03o}" for byte in os.fsencode(word))
    return f"$'{''.join(letters)}'"
