"""Matplotlib without a screen, and its figures as PNG files."""

import contextlib
import os
import sys
import warnings

from palm_cls.core.files import TEXT, atomic_write


def import_matplotlib():
    """Return matplotlib with its `figure`: without pyplot, no screen and no backend matters.

    Matplotlib refuses to be imported if MPLBACKEND names a backend that is not installed, as "!python ..." inherits it
    from a notebook. Here such a value is ignored.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.figure
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # as matplotlib does itself when imported
    return matplotlib


def escape_text(text):
    """`text` as matplotlib can draw it: bytes that are not UTF-8 escaped, and no "$", which would begin a formula."""
    return text.encode(**TEXT).decode("utf-8").replace("$", r"\$")


def write_png(figure, path, **options):
    """Write a matplotlib figure to the Path as PNG, whole or not at all; directories are made as needed.

    options: what `savefig` takes besides.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, ignore_missing_glyphs():
        figure.savefig(temporary, format="png", **options)


@contextlib.contextmanager
def ignore_missing_glyphs():
    """For a while matplotlib is silent about letters of a name that its font does not have; boxes stand there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield
