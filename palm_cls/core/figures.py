"""Matplotlib without a screen, and its figures as PNG files."""

import contextlib
import os
import sys
import warnings

from palm_cls.core.console import text_width
from palm_cls.core.files import TEXT, atomic_write

# Font families with Chinese letters, under Linux, Windows and macOS, as matplotlib names them.
CJK_FONTS = (
    *("Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "Arial Unicode MS"),
)


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
    _add_cjk_font(matplotlib)
    return matplotlib


def import_pyplot():
    """Import matplotlib.pyplot, whose figures a screen or a notebook shows."""
    import_matplotlib()
    import matplotlib.pyplot

    return matplotlib.pyplot


def _add_cjk_font(matplotlib):
    """Let matplotlib take the letters that its font lacks, such as Chinese ones, from an installed font."""
    families = matplotlib.rcParams["font.family"]  # each may lend letters; of "font.sans-serif" only the first may
    if set(CJK_FONTS).isdisjoint(families):
        installed = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
        matplotlib.rcParams["font.family"] = [*families, *[name for name in CJK_FONTS if name in installed][:1]]


def escape_text(text):
    """Escape text for matplotlib: bytes that are not UTF-8, and "$", which would begin a formula."""
    return text.encode(**TEXT).decode("utf-8").replace("$", r"\$")


def cut_text(text, length):
    """Cut a text to so many letters, of which a wide one counts twice, and escape it for matplotlib."""
    length = length * len(text) // max(1, text_width(text))
    return escape_text(text if len(text) <= length else f"{text[: max(0, length - 3)]}...")


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
