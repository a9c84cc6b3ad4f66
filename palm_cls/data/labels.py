"""The table of labels: xlsx -> CSV -> rows. Imports neither paddle nor cv2; openpyxl only for a workbook.

The challenge hands out `PM_Label_and_Fovea_Location.xlsx` with the columns `ID, imgName, Label, Fovea_X, Fovea_Y`; the
release of 2024 `Classification Labels.xlsx` with `imgName, Label`. The lesson reads `labels.csv`.
"""

import csv
import io
import itertools
import os
import posixpath
import re
import unicodedata
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree

from palm_cls.core.console import notice_once
from palm_cls.core.errors import InputError, excerpt, not_importable
from palm_cls.core.files import replacing

CLASSES = ["no pathological myopia", "pathological myopia"]  # labels 0 and 1
LABEL_BY_PREFIX = {"H": 0, "N": 0, "P": 1}  # high myopia and normal: not pathological; P: pathological
COLUMNS = ("ID", "imgName", "Label", "Fovea_X", "Fovea_Y")
REQUIRED = ("imgName", "Label")
TABLE_LIMIT = 20_000_000  # bytes: half a million rows of CSV
XML_LIMIT = 10_000_000  # bytes in an xlsx, unpacked: 50,000 rows; openpyxl takes up to a hundred times that in memory
COLUMN_LIMIT = 100  # of an xlsx; a single cell far to the right makes a row of thousands
ROW_LIMIT = 1_048_576  # Excel's own; in an xlsx a row can claim any number
SHEET_LIMIT = 100  # an xlsx can list the same sheet any number of times

INVISIBLE = re.compile(
    "[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)  # zero width, BOM, ...
LINE_END = re.compile("_x000[9AD]_", re.IGNORECASE)  # how an xlsx escapes CR, LF and tab; exports leave it as it is
NOT_CALCULATED = "#NOT CALCULATED"  # stands in a cell for the value of a formula that the workbook does not hold

XLSX = b"PK\3\4"
# What is mistaken for a table of labels, as regular expressions of its content; the first that fits.
OTHER_FORMATS = {
    "a workbook with a password (to be removed)": rb"\xd0\xcf\x11\xe0.*"
    + re.escape("EncryptedPackage".encode("utf-16-le")),
    "a workbook of Excel 97-2003 (.xls)": rb"\xd0\xcf\x11\xe0",
    "a binary workbook (.xlsb)": XLSX + rb".*xl/workbook\.bin",
    "an OpenDocument table (.ods)": XLSX + rb".{26}mimetypeapplication/vnd\.oasis",
    "HTML or XML": rb"(\xef\xbb\xbf)?\s*<",
}
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"  # namespace of the cells
STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")  # namespaces of a "Strict Open XML" workbook
FORMULA = re.compile(rb"<(\w+:)?f[\s/>]")
DECIMAL_COMMA = re.compile(r"^(-?\d+),(\d+)$")
ROW_NUMBER = re.compile(rb"<(?:\w+:)?row\s[^<>]*?\br\s*=\s*[\"'](\d+)")
STALE = re.compile(rb"fullCalcOnLoad\s*=\s*[\"'](1|true)")  # the values beside the formulas are placeholders

# id, name, fovea_x, fovea_y: str as they stand in the table ("" where absent); label: int, 1 for pathological myopia;
# row: the line (CSV) or row (xlsx) of the file, for messages.
LabelRow = namedtuple("LabelRow", ("id", "name", "label", "fovea_x", "fovea_y", "row"))


def read_labels(path):
    """Read a table of labels, CSV or `.xlsx`, as a list of LabelRow in the order of the file, at least one.

    Columns are found by their header in any order and case (in an xlsx among the first 100), and others are ignored.
    In an xlsx it is the visible sheet that has this header. A CSV may be separated by comma, semicolon or tab. Empty
    rows are passed over. A missing ID is the number of the row (1, 2, ...), missing fovea coordinates (pixels) are
    empty. Raises InputError, naming file, sheet and row, for a missing column, a label other than 0 or 1, a formula
    without value, an image without or with a second row, a table without rows, and two sheets that hold labels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of labels (.csv or .xlsx)")
    if path.stat().st_size > TABLE_LIMIT:
        raise InputError(f"{path}: over {TABLE_LIMIT:,} bytes; expected a table of labels")
    content = path.read_bytes()
    _refuse_other_formats(path, content)
    where, rows = _xlsx_rows(path, content) if content.startswith(XLSX) else (path, _csv_rows(path, content))
    if not rows:
        raise InputError(f"{path}: empty; expected a first row with the columns {', '.join(COLUMNS)}")
    _refuse_formulas(where, *rows[0])
    column = _find_columns(where, rows[0][1])
    if not rows[1:]:
        raise InputError(f"{where}: lists no image; expected rows below the header")
    labels, row_of = [], {}
    for position, (number, cells) in enumerate(rows[1:], start=1):
        label = _label_row(where, number, cells, column, position)
        first = row_of.setdefault(name_key(label.name), number)
        if first != number:
            raise InputError(
                f"{where}, row {number}: {_shown(label.name)} has a label in row {first} already; keep one of the rows"
            )
        labels.append(label)
    return labels


def name_key(name):
    """What the spellings of a path have in common: "./a//b" and "a\\b", letters composed and decomposed.

    A file name that is not UTF-8 is taken for GBK, as archives made under a Chinese Windows have it.
    """
    if re.search("[\ud800-\udfff]", name):
        name = os.fsencode(name).decode("gb18030", errors="replace")
    name = unicodedata.normalize("NFC", INVISIBLE.sub("", name))
    return posixpath.normpath(name.replace("\\", "/"))


def _refuse_other_formats(path, content):
    for what, pattern in OTHER_FORMATS.items():
        if re.match(pattern, content, re.DOTALL):
            raise InputError(
                f"{path}: {what}, not a table of labels as .xlsx or CSV; "
                "open it in Excel and save it as Excel Workbook (.xlsx)"
            )
    if path.suffix.lower() == ".xlsx" and not content.startswith(XLSX):
        raise InputError(f"{path}: not an Excel workbook; if it is text, rename it to {path.stem}.csv")


def _refuse_formulas(where, number, cells):
    if NOT_CALCULATED in cells:
        raise InputError(f"{where}, row {number}: a formula without its value; open the file in Excel and save it")


def _columns(header):
    """{name: index} of the known columns in a row of cells; the first, where there are several of a name."""
    folded = [_folded(cell) for cell in header]
    return {name: folded.index(name.casefold()) for name in COLUMNS if name.casefold() in folded}


def _folded(cell):
    return " ".join(unicodedata.normalize("NFKC", cell).split()).casefold()


def _find_columns(where, header):
    """{name: index} of the known columns in `header`; each once, and those that must be there."""
    column, folded = _columns(header), [_folded(cell) for cell in header]
    for name in column:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"{where}: more than one column {name}")
    missing = [name for name in REQUIRED if name not in column]
    if missing:
        shown = ", ".join(" ".join(cell.split()) for cell in header if cell)
        raise InputError(
            f"{where}: no column {' and no column '.join(missing)}; the first row should hold "
            f"{', '.join(REQUIRED)} (and may hold ID, Fovea_X, Fovea_Y), it holds: {excerpt(shown)}"
        )
    return column


def _label_row(where, number, cells, column, position):
    values = {name: cells[index] if index < len(cells) else "" for name, index in column.items()}
    _refuse_formulas(where, number, values.values())
    if not values["imgName"]:
        raise InputError(f"{where}, row {number}: no image name (column imgName)")
    label = re.fullmatch(r"([01])(\.0*)?", unicodedata.normalize("NFKC", values["Label"]))  # 1.00 is what some export
    if not label:
        raise InputError(
            f"{where}, row {number}: label {_shown(values['Label'])} of {_shown(values['imgName'])} is neither 0 nor 1"
        )
    if re.search(r"[\0\ud800-\udfff]", "".join(values.values())):
        raise InputError(f"{where}, row {number}: holds characters that no file name and no CSV can hold")
    return LabelRow(
        id=values.get("ID") or str(position),
        name=values["imgName"],
        label=int(label[1]),
        fovea_x=values.get("Fovea_X", ""),
        fovea_y=values.get("Fovea_Y", ""),
        row=number,
    )


def _shown(cell):
    return excerpt(repr(cell))


def visible(text):
    """`text` without invisible characters."""
    return INVISIBLE.sub("", LINE_END.sub(" ", text))


def _csv_rows(path, content):
    """[(line number, [cell, ...]), ...] of the rows of a CSV file that are not empty."""
    text = visible(_decoded(content))
    if "\0" in text:
        raise InputError(f"{path}: not a text file; expected a CSV with the columns {', '.join(COLUMNS)}")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, line = [], 0
    try:
        for cells in reader:
            line = reader.line_num
            if line > ROW_LIMIT:
                raise InputError(f"{path}: more than {ROW_LIMIT:,} lines; expected a table of labels")
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
    if delimiter == ";":  # Excel writes it where the comma is the decimal point
        rows = [(number, [DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for number, cells in rows]
    return rows


def _decoded(content):
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel saves as "Unicode text"
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # what Excel saves as CSV under a Chinese Windows
        return content.decode("gb18030", errors="replace")


def _delimiter(text):
    """What separates the cells: the one that a line `sep=;` names, else the most frequent one of the header."""
    header = re.search(r"\S[^\r\n]*|$", text)[0]
    named = re.match(r"sep=([,;\t])", header, re.IGNORECASE)
    return named[1] if named else max(",;\t", key=header.count)


def _xlsx_rows(path, content):
    """(path and sheet, for messages; [(row number, [cell, ...]), ...]) of the one table of labels in a workbook."""
    try:
        import openpyxl
    except ImportError as error:
        raise not_importable("openpyxl", error, "python -m pip install openpyxl") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions that it leaves out
            book = openpyxl.load_workbook(_plain_xlsx(content), read_only=True, data_only=True, keep_links=False)
            return _sheet_of_labels(path, book)
    except InputError:
        raise
    except Exception as error:  # whatever a file that is no workbook makes of zipfile, the XML parser and openpyxl
        raise InputError(f"{path}: not an Excel workbook (.xlsx) that can be read ({excerpt(error)})") from error


def _plain_xlsx(content):
    """The XML of a workbook, packed anew without compression: small, and nothing in it that multiplies when read."""
    parts, left = {}, XML_LIMIT
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        for name in packed.namelist():
            if name.endswith((".xml", ".rels")):
                with packed.open(name) as file:
                    xml = file.read(left + 1)
                left -= len(xml)
                if left < 0:
                    raise ValueError(f"over {XML_LIMIT:,} bytes of XML; save a table that large as CSV")
                _refuse_disorder(xml)
                _refuse_multiplying(xml.replace(b"\0", b""))  # so that it looks alike in UTF-16
                parts[name] = STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", xml)
    if sum(xml.count(b"sheetId") for xml in parts.values()) * max(map(len, parts.values()), default=0) > 5 * XML_LIMIT:
        raise ValueError("too many sheets for its size; save the sheet with the labels by itself")
    is_stale = any(STALE.search(xml) for xml in parts.values())
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as unpacked:
        for name, xml in parts.items():
            unpacked.writestr(name, _mark_formulas(xml, is_stale))
    return plain


def _refuse_multiplying(xml):
    if b"<!DOCTYPE" in xml:  # where entities would be defined; Excel writes none
        raise ValueError("a document type in its XML")
    if xml.count(b"sheetId") > SHEET_LIMIT:
        raise ValueError(f"more than {SHEET_LIMIT} sheets")


def _refuse_disorder(xml):
    """Raise ValueError unless the rows of a sheet are numbered upwards: openpyxl passes over what comes late."""
    numbers = list(map(int, ROW_NUMBER.findall(xml)))
    if any(number <= before for before, number in zip(numbers, numbers[1:])):
        raise ValueError("rows that are not in their order")


def _mark_formulas(xml, is_stale):
    """The XML of a sheet with NOT_CALCULATED as the value of formulas without one; openpyxl gives empty cells there.

    is_stale: whether the values that are there are placeholders, too.
    """
    if not FORMULA.search(xml.replace(b"\0", b"")):
        return xml
    sheet = ElementTree.fromstring(xml)
    for cell in sheet.iter(f"{MAIN}c"):
        value = cell.find(f"{MAIN}v")
        has_value = value is not None and (value.text or cell.get("t") == "str")  # "" is a text that Excel stores
        if cell.find(f"{MAIN}f") is not None and (is_stale or not has_value):
            cell.set("t", "str")
            cell[:] = [ElementTree.Element(f"{MAIN}v")]
            cell[0].text = NOT_CALCULATED
    return ElementTree.tostring(sheet)


def _sheet_of_labels(path, book):
    """The result of `_xlsx_rows`: of the visible sheet whose first row is the header of a table of labels."""
    budget = itertools.count(1)  # of rows, for all sheets
    shown = [(sheet.title, _rows(sheet, budget)) for sheet in book.worksheets if sheet.sheet_state == "visible"]
    sheets = [(title, list(itertools.islice(rows, 2)), rows) for title, rows in shown]  # two rows: is there a table?
    sheets = [sheet for sheet in sheets if sheet[1]]
    tables = [sheet for sheet in sheets if all(name in _columns(sheet[1][0][1]) for name in REQUIRED)]
    tables = [sheet for sheet in tables if len(sheet[1]) > 1] or tables  # rather one with rows below its header
    if not sheets:
        return path, []
    if len(tables) > 1:
        raise InputError(f"{path}: labels in several sheets, {_titles(tables)}; keep one of them, or hide the others")
    if not tables and len(sheets) > 1:
        raise InputError(
            f"{path}: none of the sheets {_titles(sheets)} has the columns {', '.join(REQUIRED)} in its first row"
        )
    chosen = (tables or sheets)[0]
    if len(sheets) > 1:
        others = _titles(sheet for sheet in sheets if sheet is not chosen)
        notice_once(f"{path}: the labels are those of sheet {_titles([chosen])}; not read: {others}.")
    return f"{path}, sheet {_titles([chosen])}", [*chosen[1], *chosen[2]]


def _titles(sheets):
    return excerpt(", ".join(repr(title) for title, *_ in sheets))


def _rows(sheet, budget):
    """Yield (row number, [cell, ...]) of the rows of a sheet that are not empty, cells as text."""
    sheet.reset_dimensions()  # what other programs write there need not be true
    for number, values in enumerate(sheet.iter_rows(max_row=ROW_LIMIT + 1, max_col=COLUMN_LIMIT, values_only=True), 1):
        if next(budget) > ROW_LIMIT:
            raise ValueError(f"more than {ROW_LIMIT:,} rows")
        if values.count(None) < len(values):
            cells = [_cell_text(value) for value in values]
            if any(cells):
                yield number, cells


def _cell_text(value):
    """A cell as Excel shows it: integers stay integers, other numbers have at most 15 digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".15g")
    return visible(str(value)).strip()


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
