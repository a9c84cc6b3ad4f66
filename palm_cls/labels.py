"""The table of labels: xlsx -> CSV -> rows. Imports neither paddle nor cv2; openpyxl only for an xlsx.

The challenge hands out `PM_Label_and_Fovea_Location.xlsx` with the columns `ID, imgName, Label, Fovea_X, Fovea_Y`; the
release of 2024 `Classification Labels.xlsx` with `imgName, Label`. The lesson reads `labels.csv`.
"""

import csv
import io
import re
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

from palm_cls.files import replacing
from palm_cls.messages import InputError, excerpt

COLUMNS = ("ID", "imgName", "Label", "Fovea_X", "Fovea_Y")
REQUIRED = ("imgName", "Label")
TABLE_LIMIT = 20_000_000  # bytes: half a million rows of CSV
XML_LIMIT = 10_000_000  # bytes in an xlsx, unpacked: 50,000 rows; openpyxl takes up to a hundred times that in memory
COLUMN_LIMIT = 100  # of an xlsx; a single cell far to the right makes a row of thousands
ROW_LIMIT = 1_048_576  # Excel's own; in an xlsx a row can claim any number
SHEET_LIMIT = 100  # an xlsx can list the same sheet any number of times

# id, name, fovea_x, fovea_y: str as they stand in the table ("" where absent); label: int, 1 for pathological myopia;
# row: the line (CSV) or row (xlsx) of the file, for messages.
LabelRow = namedtuple("LabelRow", ("id", "name", "label", "fovea_x", "fovea_y", "row"))


def read_labels(path):
    """Read a table of labels, `.csv` or `.xlsx`, as a list of LabelRow in the order of the file.

    Columns are found by their header in any order and case (in an xlsx among the first 100), and others are ignored.
    Empty rows are passed over. A missing ID is the number of the row (1, 2, ...), missing fovea coordinates (pixels)
    are empty. Raises InputError, naming file and row, for a missing column, a label other than 0 or 1, an image without
    or with a second row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of labels (.csv or .xlsx)")
    if path.stat().st_size > TABLE_LIMIT:
        raise InputError(f"{path}: over {TABLE_LIMIT:,} bytes; expected a table of labels")
    rows = _xlsx_rows(path) if path.suffix.lower() == ".xlsx" else _csv_rows(path)
    if not rows:
        raise InputError(f"{path}: empty; expected a first row with the columns {', '.join(COLUMNS)}")
    column = _find_columns(path, rows[0][1])
    labels, row_of = [], {}
    for position, (number, cells) in enumerate(rows[1:], start=1):
        label = _label_row(path, number, cells, column, position)
        if label.name in row_of:
            raise InputError(
                f"{path}, row {number}: {_shown(label.name)} has a label in row {row_of[label.name]} already"
            )
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
            f"{', '.join(REQUIRED)} (and may hold ID, Fovea_X, Fovea_Y), it holds: {excerpt(', '.join(header))}"
        )
    return column


def _label_row(path, number, cells, column, position):
    values = {name: cells[index] if index < len(cells) else "" for name, index in column.items()}
    if not values["imgName"]:
        raise InputError(f"{path}, row {number}: no image name (column imgName)")
    if values["Label"] not in ("0", "1", "0.0", "1.0"):  # pandas writes 1.0 where a column once had gaps
        raise InputError(
            f"{path}, row {number}: label {_shown(values['Label'])} of {_shown(values['imgName'])} is neither 0 nor 1"
        )
    if re.search(r"[\0\ud800-\udfff]", "".join(values.values())):
        raise InputError(f"{path}, row {number}: holds characters that no file name and no CSV can hold")
    return LabelRow(
        id=values.get("ID") or str(position),
        name=values["imgName"],
        label=int(values["Label"][0]),
        fovea_x=values.get("Fovea_X", ""),
        fovea_y=values.get("Fovea_Y", ""),
        row=number,
    )


def _shown(cell):
    return excerpt(repr(cell))


def _csv_rows(path):
    """[(line number, [cell, ...]), ...] of the rows of a CSV file that are not empty, cells stripped."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # what Excel saves as CSV under a Chinese Windows
        text = content.decode("gb18030", errors="replace")
    if "\0" in text:
        raise InputError(f"{path}: not a text file; expected a CSV with the columns {', '.join(COLUMNS)}")
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = []
    try:
        for cells in reader:
            if reader.line_num > ROW_LIMIT:
                raise InputError(f"{path}: more than {ROW_LIMIT:,} lines; expected a table of labels")
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    return rows


def _xlsx_rows(path):
    """[(row number, [cell, ...]), ...] of an Excel workbook's first sheet that is neither hidden nor empty, as text."""
    import openpyxl

    content = io.BytesIO(path.read_bytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions that it leaves out
            book = openpyxl.load_workbook(_plain_xlsx(content), read_only=True, data_only=True, keep_links=False)
            sheets = (_cells(sheet) for sheet in book.worksheets if sheet.sheet_state == "visible")
            return next(filter(None, sheets), [])
    except Exception as error:  # whatever a file that is no workbook makes of zipfile, the XML parser and openpyxl
        raise InputError(f"{path}: not an Excel workbook (.xlsx) that can be read ({excerpt(error)})") from error


def _plain_xlsx(content):
    """The XML of a workbook, packed anew without compression: small, and nothing in it that multiplies when read."""
    plain, left = io.BytesIO(), XML_LIMIT
    with zipfile.ZipFile(content) as packed, zipfile.ZipFile(plain, "w") as unpacked:
        for name in packed.namelist():
            if name.endswith((".xml", ".rels")):
                with packed.open(name) as file:
                    xml = file.read(left + 1)
                left -= len(xml)
                if left < 0:
                    raise ValueError(f"over {XML_LIMIT:,} bytes of XML; save a table that large as CSV")
                _refuse_multiplying(xml.replace(b"\0", b""))  # so that it looks alike in UTF-16
                unpacked.writestr(name, xml)
    return plain


def _refuse_multiplying(xml):
    if b"<!DOCTYPE" in xml:  # where entities would be defined; Excel writes none
        raise ValueError("a document type in its XML")
    if xml.count(b"sheetId") > SHEET_LIMIT:
        raise ValueError(f"more than {SHEET_LIMIT} sheets")


def _cells(sheet):
    sheet.reset_dimensions()  # what other programs write there need not be true
    rows = []
    for number, values in enumerate(sheet.iter_rows(max_row=ROW_LIMIT + 1, max_col=COLUMN_LIMIT, values_only=True), 1):
        if number > ROW_LIMIT:
            raise ValueError(f"more than {ROW_LIMIT:,} rows")
        if values.count(None) < len(values):
            cells = [_cell_text(value) for value in values]
            if any(cells):
                rows.append((number, cells))
    return rows


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
        advice = "it is the CSV already" if xlsx.suffix.lower() == ".csv" else "save the table as Excel workbook first"
        raise InputError(f"{xlsx}: not an .xlsx file; {advice}")
    if csv_path.is_dir() or csv_path.suffix.lower() != ".csv":
        raise InputError(f"{csv_path}: not the name of a .csv file to write")
    if not csv_path.parent.is_dir():
        raise InputError(f"{csv_path.parent}: no such directory to write {csv_path.name} into")
    labels = read_labels(xlsx)
    write_csv(labels, csv_path)
    return csv_path, labels
