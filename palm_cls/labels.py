"""The table of labels: xlsx -> CSV -> rows. Imports neither paddle nor cv2; openpyxl only for an xlsx.

The challenge hands out `PM_Label_and_Fovea_Location.xlsx` with the columns `ID, imgName, Label, Fovea_X, Fovea_Y`; the
release of 2024 `Classification Labels.xlsx` with `imgName, Label`. The lesson reads `labels.csv`.
"""

import csv
import io
import warnings
from collections import namedtuple
from pathlib import Path

from palm_cls.files import replacing
from palm_cls.messages import InputError

COLUMNS = ("ID", "imgName", "Label", "Fovea_X", "Fovea_Y")
REQUIRED = ("imgName", "Label")

# id, name, fovea_x, fovea_y: str as they stand in the table ("" where absent); label: int, 1 for pathological myopia;
# row: the line (CSV) or row (xlsx) of the file, for messages.
LabelRow = namedtuple("LabelRow", ("id", "name", "label", "fovea_x", "fovea_y", "row"))


def read_labels(path):
    """Read a table of labels, `.csv` or `.xlsx`, as a list of LabelRow in the order of the file.

    Columns are found by their header in any order and case, and others are ignored. Empty rows are passed over. A
    missing ID is the number of the row (1, 2, ...), missing fovea coordinates (pixels) are empty. Raises InputError,
    naming file and row, for a missing column, a label other than 0 or 1, an image without or with a second row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of labels (.csv or .xlsx)")
    rows = _xlsx_rows(path) if path.suffix.lower() == ".xlsx" else _csv_rows(path)
    rows = [(number, cells) for number, cells in rows if any(cells)]
    if not rows:
        raise InputError(f"{path}: empty; expected a first row with the columns {', '.join(COLUMNS)}")
    column = _find_columns(path, rows[0][1])
    labels, row_of = [], {}
    for position, (number, cells) in enumerate(rows[1:], start=1):
        label = _label_row(path, number, cells, column, position)
        if label.name in row_of:
            raise InputError(f"{path}, row {number}: {label.name!r} has a label in row {row_of[label.name]} already")
        row_of[label.name] = number
        labels.append(label)
    return labels


def _find_columns(path, header):
    """{name: index} of the known columns in `header`."""
    header = [" ".join(cell.split()) for cell in header]
    folded = [cell.casefold() for cell in header]
    for name in COLUMNS:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"{path}: more than one column {name}")
    column = {name: folded.index(name.casefold()) for name in COLUMNS if name.casefold() in folded}
    missing = [name for name in REQUIRED if name not in column]
    if missing:
        raise InputError(
            f"{path}: no column {' and no column '.join(missing)}; the first row should hold "
            f"{', '.join(REQUIRED)} (and may hold ID, Fovea_X, Fovea_Y), it holds: {', '.join(header)}"
        )
    return column


def _label_row(path, number, cells, column, position):
    values = {name: cells[index] if index < len(cells) else "" for name, index in column.items()}
    if not values["imgName"]:
        raise InputError(f"{path}, row {number}: no image name (column imgName)")
    if values["Label"] not in ("0", "1", "0.0", "1.0"):  # pandas writes 1.0 where a column once had gaps
        raise InputError(f"{path}, row {number}: label {values['Label']!r} of {values['imgName']!r} is neither 0 nor 1")
    return LabelRow(
        id=values.get("ID") or str(position),
        name=values["imgName"],
        label=int(values["Label"][0]),
        fovea_x=values.get("Fovea_X", ""),
        fovea_y=values.get("Fovea_Y", ""),
        row=number,
    )


def _csv_rows(path):
    """[(line number, [cell, ...]), ...] of a CSV file, cells stripped."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # what Excel saves as CSV under a Chinese Windows
        text = content.decode("gb18030", errors="replace")
    if "\0" in text:
        raise InputError(f"{path}: not a text file; expected a CSV with the columns {', '.join(COLUMNS)}")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error


def _xlsx_rows(path):
    """[(row number, [cell, ...]), ...] of an Excel workbook's first sheet that is neither hidden nor empty, as text."""
    import openpyxl

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions that it leaves out
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = (_cells(sheet) for sheet in book.worksheets if sheet.sheet_state == "visible")
            rows = next(filter(None, sheets), [])
    except OSError:
        raise
    except Exception as error:  # whatever a file that is no workbook makes of zipfile, the XML parser and openpyxl
        raise InputError(f"{path}: not an Excel workbook (.xlsx) that can be read ({error})") from error
    return rows


def _cells(sheet):
    sheet.reset_dimensions()  # what other programs write there need not be true
    rows = [[_cell_text(value) for value in cells] for cells in sheet.iter_rows(values_only=True)]
    return [(number, cells) for number, cells in enumerate(rows, start=1) if any(cells)]


def _cell_text(value):
    """A cell as Excel shows it: integers stay integers, other numbers have at most 15 digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".15g")
    return str(value).strip()


def write_csv(labels, path):
    """Write a list of LabelRow as the lesson's CSV (UTF-8, `ID,imgName,Label,Fovea_X,Fovea_Y`), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(csv_text(labels).encode("utf-8"))


def csv_text(labels):
    """The content of the lesson's CSV for a list of LabelRow."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(label[:-1] for label in labels)
    return text.getvalue()


def xlsx_to_csv(xlsx, csv_path=None):
    """Convert the challenge's xlsx to the lesson's CSV; `csv_path` is `labels.csv` beside it if not given.

    Replaces an existing CSV in one step, and leaves it as it is when the xlsx is faulty (InputError, naming the row).
    Returns the path written and the list of LabelRow.
    """
    xlsx = Path(xlsx)
    csv_path = xlsx.with_name("labels.csv") if csv_path is None else Path(csv_path)
    if xlsx.suffix.lower() != ".xlsx":
        raise InputError(f"{xlsx}: not an .xlsx file; save the table as Excel workbook (.xlsx) first")
    if csv_path.is_dir() or csv_path.suffix.lower() != ".csv":
        raise InputError(f"{csv_path}: not the name of a .csv file to write")
    if not csv_path.parent.is_dir():
        raise InputError(f"{csv_path.parent}: no such directory to write {csv_path.name} into")
    labels = read_labels(xlsx)
    write_csv(labels, csv_path)
    return csv_path, labels
