"""The figure of a comparison: the curves of several runs.

    write_figure(plot_curves(runs), "output/compare.png")      # runs of palm_cls.eval.compare.find_runs

Imports neither paddle nor cv2.
"""

from pathlib import Path

from palm_cls.core.errors import InputError
from palm_cls.core.figures import escape_text, import_matplotlib, write_png
from palm_cls.eval.compare import demo_remark

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which colour-blind people can distinguish; without yellow, too pale
# for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
STYLES = ("-", "--", ":")  # one after the other, when the colours are used up
PANELS = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
PNG = b"\x89PNG\r\n\x1a\n"
MARK = "palm_cls: runs compared"  # the title in the PNG that identifies a figure of ours
NAME_LENGTH = 60  # of a run in the figure


def plot_curves(runs):
    """Plot loss above accuracy, training images to the left, validation images to the right.

    Args:
        runs: List of Run; those of one directory with several seeds share a colour and an entry of the legend.

    Returns:
        A matplotlib Figure.
    """
    figure = import_matplotlib().figure.Figure(figsize=(11, 7.5))
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    drawn = [run for run in runs if run.log]
    groups = list(dict.fromkeys(run.group for run in drawn))
    for axis, key in zip(axes.flat, PANELS):
        _plot_panel(axis, key, drawn, groups)
    for axis, title in zip(axes[0], ("while training", "validation images")):
        axis.set_title(title)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    axes[0, 0].set_ylabel("loss" + _scale_losses(axes[0, 0], drawn))
    axes[1, 0].set_ylabel("accuracy")
    figure.tight_layout()
    _add_legend(figure, runs, groups)
    return figure


def _plot_panel(axis, key, runs, groups):
    from matplotlib.ticker import MaxNLocator

    for run in runs:
        epochs, values = zip(*((record["epoch"], record[key]) for record in run.log))
        axis.plot(epochs, values, markevery=1 + len(epochs) // 20, **_line_style(groups.index(run.group)))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_tick_params(labelleft=True)


def _scale_losses(axis, runs):
    """Make the axis logarithmic if one loss would flatten all others; return a label suffix."""
    from matplotlib.ticker import LogLocator, NullLocator

    losses = [record[key] for run in runs for record in run.log for key in ("train_loss", "valid_loss")]
    if not 0 < 10 * min(losses) < max(losses):
        return ""
    axis.set_yscale("log")
    # 0.5, 1, 2, 5: with fewer, a range within one power of ten would have no number at all
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    return " (logarithmic)"


def _line_style(number):
    colours = len(COLOURS)
    return {
        "color": COLOURS[number % colours],
        "marker": MARKERS[number % colours],
        "linestyle": STYLES[number // colours % len(STYLES)],
        "markersize": 4.5,
        "linewidth": 1.4,
        "alpha": 0.85,
    }


def _add_legend(figure, runs, groups):
    """Add a legend of the groups below the panels, titled by the demo set's remark."""
    from matplotlib.lines import Line2D

    names = []
    for group in groups:
        seeds = sum(run.group == group and bool(run.log) for run in runs if run.is_seed)
        names.append(_shorten(group) + (f" ({seeds} seed{'s' if seeds > 1 else ''})" if seeds else ""))
    remark = "\n".join(demo_remark(runs)) or None
    figure.legend(
        [Line2D([], [], **_line_style(number)) for number in range(len(groups))],
        names,
        title=remark,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.01),
        ncol=1 if max(map(len, names)) > 40 else min(3, len(names)),
        frameon=False,
    )


def _shorten(name):
    """Return the name of a run for the legend: the end of a long one."""
    name = escape_text(name if len(name) <= NAME_LENGTH else "..." + name[-NAME_LENGTH + 3 :])
    return f"./{name}" if name.startswith("_") else name  # matplotlib leaves names with a leading "_" out of the legend


def write_figure(figure, path):
    """Write a figure as PNG, atomically; only an earlier figure of ours is overwritten.

    Args:
        figure: A matplotlib Figure.
        path: Ends in .png.

    Returns:
        The Path.

    Raises:
        InputError: The file exists and is not ours, or the name does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: not the name of a .png file to write")
    if path.exists() and not _is_ours(path):
        raise InputError(f"{path}: exists, and is not a figure of compare.py; give another --output")
    write_png(figure, path, dpi=120, bbox_inches="tight", metadata={"Title": MARK})
    return path


def _is_ours(path):
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return start.startswith(PNG) and MARK.encode() in start
