"""Read and check tables of labels of unknown origin, CSV or .xlsx, for `palm_cls.data.labels`."""

import csv
import io
import re
import unicodedata
from pathlib import Path

from palm_cls.core.errors import InputError, shorten
from palm_cls.data.classes import label_number, takes_numbers
from palm_cls.data.spelling import find_columns, fold, name_key, remove_invisible
from palm_cls.data.workbook import MAX_ROWS, NOT_CALCULATED, XLSX, read_sheet

COLUMNS = ("ID", "imgName", "Label", "Fovea_X", "Fovea_Y")
# Of tables that are not the course's: what must stay together when images are divided, such as a patient; and the name
# of the split, as in the tables of `palm_cls.data.split`.
OPTIONAL = ("Group", "Split")
SPLITS = {"train": ("train", "training"), "valid": ("val", "valid", "validation"), "test": ("test", "testing")}
REQUIRED = ("imgName", "Label")
MAX_BYTES = 20_000_000  # half a million rows of CSV
DECIMAL_COMMA = re.compile(r"^(-?\d+),(\d+)$")

# What is mistaken for a table of labels, as regular expressions of its content; the first match counts.
OTHER_FORMATS = {
    "a workbook with a password (to be removed)": rb"\xd0\xcf\x11\xe0.*"
    + re.escape("EncryptedPackage".encode("utf-16-le")),
    "a workbook of Excel 97-2003 (.xls)": rb"\xd0\xcf\x11\xe0",
    "a binary workbook (.xlsb)": XLSX + rb".*xl/workbook\.bin",
    "an OpenDocument table (.ods)": XLSX + rb".{26}mimetypeapplication/vnd\.oasis",
    "HTML or XML": rb"(\xef\xbb\xbf)?\s*<",
}


def read_rows(path, classes=None):
    """Read a table of labels, CSV or .xlsx.

    Args:
        path: of the file. The columns are found by their names, in any order and case; other columns are ignored.
        classes: names of the classes, one of which each label must be, or its number; None to take any label.

    Returns:
        [(row number in the file, {column: text}), ...], at least one, each with all COLUMNS and OPTIONAL ("" if
        absent), a name that occurs once, and as Label the number of the class or, without classes, the text.

    Raises:
        InputError: naming file, sheet and row: no such file or table, a column is missing, a label is none of the
            classes, a formula has no value, an image has no name or a second row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of labels (.csv or .xlsx)")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES:,} bytes; expected a table of labels")
    content = path.read_bytes()
    _check_format(path, content)
    source, rows = read_sheet(path, content, REQUIRED) if content.startswith(XLSX) else (path, _csv_rows(path, content))
    if not rows:
        raise InputError(f"{path}: empty; expected a first row with the columns {', '.join(COLUMNS)}")
    _check_calculated(source, *rows[0])
    columns = _find_columns(source, rows[0][1])
    if not rows[1:]:
        raise InputError(f"{source}: lists no image; expected rows below the header")
    table, row_of = [], {}
    for number, cells in rows[1:]:
        values = {name: cells[index] if index < len(cells) else "" for name, index in columns.items()}
        values = _checked(source, number, values, classes)
        first = row_of.setdefault(name_key(values["imgName"]), number)
        if first != number:
            name = _quote(values["imgName"])
            raise InputError(f"{source}, row {number}: {name} has a label in row {first} already; keep one of the rows")
        table.append((number, values))
    return table


def check_conversion(xlsx, csv_path):
    """Raise InputError unless `xlsx` names a workbook and `csv_path` a CSV to write."""
    suffix = xlsx.suffix.lower()
    if suffix != ".xlsx":
        hint = "it is the CSV already" if suffix == ".csv" else "save the table as Excel workbook first"
        raise InputError(f"{xlsx}: not an .xlsx file; {hint}")
    if csv_path.is_dir() or csv_path.suffix.lower() != ".csv":
        raise InputError(f"{csv_path}: not the name of a .csv file to write")
    if not csv_path.parent.is_dir():
        raise InputError(f"{csv_path.parent}: no such directory to write {csv_path.name} into")


def _check_format(path, content):
    for what, pattern in OTHER_FORMATS.items():
        if re.match(pattern, content, re.DOTALL):
            raise InputError(
                f"{path}: {what}, not a table of labels as .xlsx or CSV; "
                "open it in Excel and save it as Excel Workbook (.xlsx)"
            )
    if path.suffix.lower() == ".xlsx" and not content.startswith(XLSX):
        raise InputError(f"{path}: not an Excel workbook; if it is text, rename it to {path.stem}.csv")


def _check_calculated(source, number, cells):
    if NOT_CALCULATED in cells:
        raise InputError(f"{source}, row {number}: a formula without its value; open the file in Excel and save it")


def _find_columns(source, header):
    """Return {name: index} of the columns in the header; each may occur once, and the required ones must."""
    columns, folded = find_columns(header, COLUMNS + OPTIONAL), [fold(cell) for cell in header]
    for name in columns:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"{source}: more than one column {name}")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        shown = ", ".join(" ".join(cell.split()) for cell in header if cell)
        raise InputError(
            f"{source}: no column {' and no column '.join(missing)}; the first row should hold "
            f"{', '.join(REQUIRED)} (and may hold ID, Fovea_X, Fovea_Y, Group), it holds: {shorten(shown)}"
        )
    return columns


def _checked(source, number, values, classes):
    """Return {column: text} of a row with all COLUMNS."""
    _check_calculated(source, number, values.values())
    if not values["imgName"]:
        raise InputError(f"{source}, row {number}: no image name (column imgName)")
    label = unicodedata.normalize("NFC", values["Label"])
    digits = re.fullmatch(r"0*([0-9]+)(\.0*)?", unicodedata.normalize("NFKC", label))  # some export 1.00
    if digits and label not in (classes or ()):
        label = digits[1]
    found = label_number(label, classes) if classes else label
    if found in (None, ""):
        shown, name = _quote(values["Label"]), _quote(values["imgName"])
        raise InputError(f"{source}, row {number}: label {shown} of {name} is {_expected(classes)}")
    split = values.get("Split", "").casefold()
    splits = [name for name, names in SPLITS.items() if split in names]
    if split and not splits:
        shown = _quote(values["Split"])
        raise InputError(f"{source}, row {number}: Split {shown} is none of train, valid, test; correct it")
    if re.search(r"[\0\ud800-\udfff]", "".join(values.values())):
        raise InputError(f"{source}, row {number}: holds characters that no file name and no CSV can hold")
    return {**dict.fromkeys(COLUMNS + OPTIONAL, ""), **values, "Label": str(found), "Split": splits[0] if split else ""}


def _expected(classes):
    """Say what a label is not, and what to do."""
    if not classes:
        return "empty; give every image a label"
    if len(classes) == 2 and takes_numbers(classes):
        expected = f"neither 0 nor 1 ({' and '.join(map(shorten, classes))})"
    else:
        expected = f"none of the classes {shorten(', '.join(classes))}"
    return f"{expected}; correct it (train.py takes other classes by --classes)"


def _quote(cell):
    return shorten(repr(cell))


def _csv_rows(path, content):
    """Return [(line number, [cell, ...]), ...] of the rows of a CSV file that are not empty."""
    text = remove_invisible(_decode(content))
    if "\0" in text:
        raise InputError(f"{path}: not a text file; expected a CSV with the columns {', '.join(COLUMNS)}")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, line = [], 0
    try:
        for cells in reader:
            line = reader.line_num
            if line > MAX_ROWS:
                raise InputError(f"{path}: more than {MAX_ROWS:,} lines; expected a table of labels")
            cells = [cell.strip() for cell in cells]
            if any(cells) and not (line == 1 and cells[0].lower().startswith("sep=")):
                rows.append((line, cells))
    except csv.Error as error:  # such as a quotation mark that is never closed: it would swallow the rows below
        raise InputError(f"{path}, line {line + 1}: not readable as CSV ({error})") from error
    for number, cells in rows:
        if any(cells[len(rows[0][1]) :]):
            raise InputError(
                f"{path}, row {number}: more cells than the header has; put cells that contain {delimiter!r} in quotes"
            )
    if delimiter == ";":  # Excel writes it if the comma is the decimal point
        rows = [(number, [DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for number, cells in rows]
    return rows


def _decode(content):
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # Excel's "Unicode text"
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # Excel's CSV under a Chinese Windows
        return content.decode("gb18030", errors="replace")


def _delimiter(text):
    """Return the delimiter that a line `sep=;` names, else the most frequent one of the header."""
    header = re.search(r"\S[^\r\n]*|$", text)[0]
    named = re.match(r"sep=([,;\t])", header, re.IGNORECASE)
    return named[1] if named else max(",;\t", key=header.count)
