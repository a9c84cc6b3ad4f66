"""Figures of a report: each as a PNG file, and as a drawing within the page."""

import io
import re
from html import escape

from palm_cls.core import figures
from palm_cls.eval import plots


def write_figure(folder, name, figure, text):
    """Write a figure to a folder as PNG and draw it as <svg>.

    Args:
        folder: Path.
        name: Of the figure, which the file and the ids of the drawing are named after.
        figure: A matplotlib Figure.
        text: A description for those who cannot see it.

    Returns:
        The <svg>, str.
    """
    figures.write_png(figure, folder / f"{name}.png", dpi=150, facecolor="white")
    return _svg(figure, name, text)


def _svg(figure, name, text):
    """Draw a figure as <svg> in the page's colours and type, with unique ids."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    options = {"svg.fonttype": "none", "svg.hashsalt": name}
    with figures.import_matplotlib().rc_context(options), figures.ignore_missing_glyphs():
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for colour, variable in ((plots.INK, "ink"), (plots.FIRST, "first"), (plots.SECOND, "second")):
        drawing = drawing.replace(colour, f"var(--{variable})")
    head, _, rest = drawing.partition(">")
    view = re.search(r'viewBox="[^"]+"', head)[0]
    return f'<svg role="img" aria-label="{escape(text)}" {view}>{rest}'
