"""Matplotlib without a screen, and its figures as PNG files."""

import contextlib
import os
import sys
import warnings

from palm_cls.core.files import TEXT, atomic_write


def import_matplotlib():
    """Import matplotlib with its `figure`, which needs no screen and no backend.

    Matplotlib cannot be imported if MPLBACKEND names a backend that is not installed, as "!python ..." inherits it from
    a notebook. Here such a value is ignored.
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
    """Escape text for matplotlib: bytes that are not UTF-8, and "$", which would begin a formula."""
    return text.encode(**TEXT).decode("utf-8").replace("$", r"\$")


def write_png(figure, path, **options):
    """Write a matplotlib figure as PNG, whole or not at all.

    Args:
        figure: the figure.
        path: Path of the file; its directory is created if needed.
        options: further arguments of `savefig`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, ignore_missing_glyphs():
        figure.savefig(temporary, format="png", **options)


@contextlib.contextmanager
def ignore_missing_glyphs():
    """Silence matplotlib's warnings about letters that its font lacks; it draws boxes instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield
