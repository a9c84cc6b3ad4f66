"""Labels by the first letter of an image's name, or by a table.

The challenge's table is `PM_Label_and_Fovea_Location.xlsx` with the columns `ID, imgName, Label, Fovea_X, Fovea_Y`,
that of the release of 2024 `Classification Labels.xlsx` with `imgName, Label`. The lesson reads `labels.csv`.
"""

import csv
import io
from dataclasses import astuple, dataclass
from pathlib import Path

from palm_cls.core.errors import InputError
from palm_cls.core.files import atomic_write
from palm_cls.data.tables import COLUMNS, check_conversion, read_rows

CLASSES = ["no pathological myopia", "pathological myopia"]  # labels 0 and 1
LABEL_BY_PREFIX = {"H": 0, "N": 0, "P": 1}  # high myopia, normal; pathological myopia


@dataclass(frozen=True)
class LabelRow:
    """A row of a table of labels."""

    id: str
    name: str  # of the image
    label: int  # number of the class; 1: pathological myopia
    fovea_x: str  # pixels; "" if absent
    fovea_y: str
    row: int  # line (CSV) or row (xlsx) of the file, for messages
    group: str = ""  # such as a patient: see `palm_cls.data.groups`
    split: str = ""  # "train", "valid", "test", if the table divides the images


def label_from_name(path):
    """Return the label, 0 or 1, for the first letter of an image's name."""
    if path.name[0] not in LABEL_BY_PREFIX:
        raise InputError(
            f"{path}: the label is the first letter of the name, H, N or P, and this is none of them; "
            "rename the file, or give the labels in a table (--train-csv)"
        )
    return LABEL_BY_PREFIX[path.name[0]]


def read_labels(path, classes=CLASSES):
    """Read a table of labels, CSV or .xlsx, as a list of LabelRow.

    The rows, at least one, are in the order of the file. A missing ID is the number of the row (1, 2, ...). Raises
    InputError for a faulty table, or one with a label of none of the classes, see `palm_cls.data.tables.read_rows`.
    """
    return [
        LabelRow(
            id=cells["ID"] or str(position),
            name=cells["imgName"],
            label=int(cells["Label"]),
            fovea_x=cells["Fovea_X"],
            fovea_y=cells["Fovea_Y"],
            row=row,
            group=cells["Group"],
            split=cells["Split"],
        )
        for position, (row, cells) in enumerate(read_rows(path, classes), start=1)
    ]


def write_csv(rows, path):
    """Write a list of LabelRow as the lesson's CSV, UTF-8, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(csv_text(rows).encode("utf-8"))


def csv_text(rows):
    """Format a list of LabelRow as the lesson's CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_groups = any(row.group for row in rows)
    writer.writerow((*COLUMNS, "Group") if has_groups else COLUMNS)
    writer.writerows((*astuple(row)[:5], *([row.group] if has_groups else [])) for row in rows)
    return text.getvalue()


def xlsx_to_csv(xlsx, csv_path=None):
    """Convert the challenge's workbook to the lesson's CSV.

    Args:
        xlsx: the workbook.
        csv_path: the CSV to write or replace; default: `labels.csv` beside the workbook.

    Returns:
        The path written and the list of LabelRow.

    Raises:
        InputError: The workbook is faulty (the message names the row); an existing CSV is kept.
    """
    xlsx = Path(xlsx)
    csv_path = xlsx.with_name("labels.csv") if csv_path is None else Path(csv_path)
    check_conversion(xlsx, csv_path)
    rows = read_labels(xlsx)
    write_csv(rows, csv_path)
    return csv_path, rows
