"""The labels of the images: by file name for training, by the challenge's table for validation.

The challenge has `PM_Label_and_Fovea_Location.xlsx` with the columns `ID, imgName, Label, Fovea_X, Fovea_Y`; the
release of 2024 has `Classification Labels.xlsx` with `imgName, Label`. The lesson reads `labels.csv`.
"""

import csv
import io
import re
import unicodedata
from dataclasses import astuple, dataclass
from pathlib import Path

from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import atomic_write
from palm_cls.data.tables import COLUMNS, name_key, read_table

CLASSES = ["no pathological myopia", "pathological myopia"]  # labels 0 and 1
LABEL_BY_PREFIX = {"H": 0, "N": 0, "P": 1}  # high myopia and normal: not pathological; P: pathological


@dataclass(frozen=True)
class LabelRow:
    """A row of a table of labels: the text of its cells ("" where absent), the label 0 or 1, its row in the file."""

    id: str
    name: str
    label: int
    fovea_x: str
    fovea_y: str
    row: int


def read_labels(path):
    """Read a table of labels.

    Args:
        path: A CSV or an Excel workbook, see `palm_cls.data.tables`.

    Returns:
        A list of LabelRow in the order of the file, at least one. A missing ID is the number of the row (1, 2, ...).

    Raises:
        InputError: The table is faulty (file, sheet and row are named): a column is missing, a label is not 0 or 1, an
            image has no name or a second row.
    """
    where, rows = read_table(path)
    labels, row_of = [], {}
    for position, (number, cells) in enumerate(rows, start=1):
        label = _parse_row(f"{where}, row {number}", number, cells, position)
        first = row_of.setdefault(name_key(label.name), number)
        if first != number:
            raise InputError(
                f"{where}, row {number}: {shorten(repr(label.name))} has a label in row {first} already; "
                "keep one of the rows"
            )
        labels.append(label)
    return labels


def _parse_row(where, number, cells, position):
    if not cells["imgName"]:
        raise InputError(f"{where}: no image name (column imgName)")
    label = re.fullmatch(r"([01])(\.0*)?", unicodedata.normalize("NFKC", cells["Label"]))  # some export 1.00
    if not label:
        label, name = shorten(repr(cells["Label"])), shorten(repr(cells["imgName"]))
        raise InputError(f"{where}: label {label} of {name} is neither 0 nor 1")
    fovea = cells.get("Fovea_X", ""), cells.get("Fovea_Y", "")
    return LabelRow(cells.get("ID") or str(position), cells["imgName"], int(label[1]), *fovea, number)


def csv_text(labels):
    """Return the lesson's CSV, `ID,imgName,Label,Fovea_X,Fovea_Y`, of a list of LabelRow."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(label)[:-1] for label in labels)
    return text.getvalue()


def xlsx_to_csv(xlsx, csv_path=None):
    """Convert the challenge's workbook to the lesson's CSV; a faulty workbook leaves an existing CSV as it is.

    Args:
        xlsx: Path of the workbook.
        csv_path: Path of the CSV; by default `labels.csv` beside the workbook.

    Returns:
        The path of the CSV, and the list of LabelRow.

    Raises:
        InputError: The workbook is faulty, or a path is not that of such a file.
    """
    xlsx = Path(xlsx)
    csv_path = xlsx.with_name("labels.csv") if csv_path is None else Path(csv_path)
    if xlsx.suffix.lower() != ".xlsx":
        action = "it is the CSV already" if xlsx.suffix.lower() == ".csv" else "save the table as Excel workbook first"
        raise InputError(f"{xlsx}: not an .xlsx file; {action}")
    if csv_path.is_dir() or csv_path.suffix.lower() != ".csv":
        raise InputError(f"{csv_path}: not the name of a .csv file to write")
    if not csv_path.parent.is_dir():
        raise InputError(f"{csv_path.parent}: no such directory to write {csv_path.name} into")
    labels = read_labels(xlsx)
    with atomic_write(csv_path) as temporary:
        temporary.write_bytes(csv_text(labels).encode("utf-8"))
    return csv_path, labels
