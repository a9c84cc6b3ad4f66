"""Metrics as text for people."""

from palm_cls.core.console import format_table

LABEL_WIDTH, CELL_WIDTH = 18, 9


def format_metrics(metrics):
    """Format metrics as aligned lines such as `accuracy            0.9250  (0.8800 to 0.9540)`.

    Args:
        metrics: A dictionary of `binary_metrics` or `multiclass_metrics`, as `assess` returns it.

    Returns:
        A str.
    """
    lines = []
    for name, value in metrics.items():
        name = {"negatives": "specificity on"}.get(name, name.replace("_", " "))
        if isinstance(value, list):
            lines += [name, *_format_table(value)]
        else:
            nested = isinstance(value, dict) and "value" not in value
            items = {f"{name} {key}": item for key, item in value.items()} if nested else {name: value}
            lines += format_table(
                [(label, _format_value(item)) for label, item in items.items()], min_width=LABEL_WIDTH
            )
    return "\n".join(lines)


def _format_table(rows):
    """Format a list of lists of counts, or of dictionaries, whose keys become the heading."""
    if not isinstance(rows[0], dict):
        return format_table([list(map(str, row)) for row in rows], left=0, min_width=CELL_WIDTH)
    cells = [list(rows[0]), *([_format_cell(value) for value in row.values()] for row in rows)]
    return format_table(cells, left=2 if "name" in rows[0] else 0)


def _format_cell(value):
    """Format a value for a cell, shorter than `_format_value`: three digits, such as `0.900 (0.760-0.962)`."""
    if isinstance(value, dict):
        return "{value:.3f} ({low:.3f}-{high:.3f})".format(**value)
    return f"{value:.3f}" if isinstance(value, float) else _format_value(value)


def _format_value(value):
    if isinstance(value, dict):
        return "{}  ({} to {})".format(*(_format_value(value[key]) for key in ("value", "low", "high")))
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
