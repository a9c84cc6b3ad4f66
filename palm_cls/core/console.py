"""Log lines on standard error, tables as text, commands quoted for a shell."""

import contextlib
import functools
import os
import re
import sys
import unicodedata

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


def text_width(text):
    """Count the letters of a text, a wide one, such as a Chinese one, twice, as a terminal does."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "FW" for letter in text)


def format_table(rows, left=None, min_width=0):
    """Lay out rows of cells as lines of text with aligned columns.

    Args:
        rows: Lists of str, all equally long.
        left: Number of columns, from the first, that are aligned to the left, by default all; others to the right.
        min_width: Of every column.

    Returns:
        A list of str.
    """
    widths = [max(min_width, *map(text_width, column)) for column in zip(*rows)]
    justify = [str.ljust if left is None or index < left else str.rjust for index in range(len(widths))]
    columns = list(zip(justify, widths))
    lines = []
    for row in rows:
        cells = [just(cell, width + len(cell) - text_width(cell)) for (just, width), cell in zip(columns, row)]
        lines.append("  ".join(cells).rstrip())
    return lines


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
