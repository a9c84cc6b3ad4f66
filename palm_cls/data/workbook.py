"""Read a table from an Excel workbook (.xlsx) of unknown origin."""

import io
import itertools
import re
import warnings
import zipfile
from xml.etree import ElementTree

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, missing_package_error, shorten
from palm_cls.data.spelling import find_columns, remove_invisible

XLSX = b"PK\3\4"
MAX_XML_BYTES = 10_000_000  # unpacked: 50,000 rows; openpyxl takes up to a hundred times that in memory
MAX_COLUMNS = 100  # a single cell far to the right makes a row of thousands
MAX_ROWS = 1_048_576  # Excel's own; a row can claim any number
MAX_SHEETS = 100  # a workbook can list the same sheet any number of times
NOT_CALCULATED = "#NOT CALCULATED"  # stands for the value of a formula if the workbook does not store it

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"  # namespace of the cells
STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")  # namespaces of a "Strict Open XML" workbook
FORMULA = re.compile(rb"<(\w+:)?f[\s/>]")
ROW_NUMBER = re.compile(rb"<(?:\w+:)?row\s[^<>]*?\br\s*=\s*[\"'](\d+)")
STALE = re.compile(rb"fullCalcOnLoad\s*=\s*[\"'](1|true)")  # the values beside the formulas are placeholders


def read_sheet(path, content, required):
    """Read the one visible sheet whose first row has the required columns.

    Args:
        path: for messages.
        content: bytes of the workbook.
        required: names of the columns.

    Returns:
        (source, rows): path and sheet, for messages; [(row number, [cell, ...]), ...] of the rows that are not empty,
        cells as text, NOT_CALCULATED for a formula without a value.

    Raises:
        InputError: openpyxl is missing, the file is no workbook, or none or several of its sheets have the columns.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise missing_package_error("openpyxl", error, "python -m pip install openpyxl") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl's, about styles and extensions that it ignores
            book = openpyxl.load_workbook(_repack(content), read_only=True, data_only=True, keep_links=False)
            return _select_sheet(path, book, required)
    except InputError:
        raise
    except Exception as error:  # any: zipfile, the XML parser and openpyxl raise many kinds for a file that is none
        raise InputError(f"{path}: not an Excel workbook (.xlsx) that can be read ({shorten(error)})") from error


def _repack(content):
    """Return the XML of a workbook as an uncompressed zip: small, and nothing in it multiplies when read."""
    parts, left = {}, MAX_XML_BYTES
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        for name in packed.namelist():
            if name.endswith((".xml", ".rels")):
                with packed.open(name) as file:
                    xml = file.read(left + 1)
                left -= len(xml)
                if left < 0:
                    raise ValueError(f"over {MAX_XML_BYTES:,} bytes of XML; save a table that large as CSV")
                _check_row_order(xml)
                _check_expansion(xml.replace(b"\0", b""))  # so that UTF-16 looks the same
                parts[name] = STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", xml)
    sheets, longest = sum(xml.count(b"sheetId") for xml in parts.values()), max(map(len, parts.values()), default=0)
    if sheets * longest > 5 * MAX_XML_BYTES:
        raise ValueError("too many sheets for its size; save the sheet with the labels by itself")
    is_stale = any(STALE.search(xml) for xml in parts.values())
    repacked = io.BytesIO()
    with zipfile.ZipFile(repacked, "w") as target:
        for name, xml in parts.items():
            target.writestr(name, _mark_formulas(xml, is_stale))
    return repacked


def _check_expansion(xml):
    if b"<!DOCTYPE" in xml:  # it could define entities; Excel writes none
        raise ValueError("a document type in its XML")
    if xml.count(b"sheetId") > MAX_SHEETS:
        raise ValueError(f"more than {MAX_SHEETS} sheets")


def _check_row_order(xml):
    """Raise ValueError unless the row numbers of a sheet increase: openpyxl drops rows that come late."""
    numbers = list(map(int, ROW_NUMBER.findall(xml)))
    if any(number <= before for before, number in zip(numbers, numbers[1:])):
        raise ValueError("rows that are not in their order")


def _mark_formulas(xml, is_stale):
    """Write NOT_CALCULATED as the value of formulas that have none; openpyxl returns empty cells for them.

    is_stale: whether the stored values are placeholders, too.
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


def _select_sheet(path, book, required):
    """Return the result of `read_sheet`."""
    budget = itertools.count(1)  # of rows, for all sheets
    visible = [(sheet.title, _rows(sheet, budget)) for sheet in book.worksheets if sheet.sheet_state == "visible"]
    sheets = [(title, list(itertools.islice(rows, 2)), rows) for title, rows in visible]  # two rows: is it a table?
    sheets = [sheet for sheet in sheets if sheet[1]]
    tables = [sheet for sheet in sheets if len(find_columns(sheet[1][0][1], required)) == len(required)]
    tables = [sheet for sheet in tables if len(sheet[1]) > 1] or tables  # rather one with rows below its header
    if not sheets:
        return path, []
    if len(tables) > 1:
        raise InputError(f"{path}: labels in several sheets, {_titles(tables)}; keep one of them, or hide the others")
    if not tables and len(sheets) > 1:
        raise InputError(
            f"{path}: none of the sheets {_titles(sheets)} has the columns {', '.join(required)} in its first row"
        )
    chosen = (tables or sheets)[0]
    if len(sheets) > 1:
        others = _titles(sheet for sheet in sheets if sheet is not chosen)
        log_once(f"{path}: the labels are those of sheet {_titles([chosen])}; not read: {others}.")
    return f"{path}, sheet {_titles([chosen])}", [*chosen[1], *chosen[2]]


def _titles(sheets):
    return shorten(", ".join(repr(title) for title, *_ in sheets))


def _rows(sheet, budget):
    """Yield (row number, [cell, ...]) of the rows of a sheet that are not empty, cells as text."""
    sheet.reset_dimensions()  # those that other programs store need not be true
    for number, values in enumerate(sheet.iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS, values_only=True), 1):
        if next(budget) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS:,} rows")
        if values.count(None) < len(values):
            cells = [_cell_text(value) for value in values]
            if any(cells):
                yield number, cells


def _cell_text(value):
    """Return a cell as Excel shows it: integers stay integers, other numbers have at most 15 digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".15g")
    return remove_invisible(str(value)).strip()
