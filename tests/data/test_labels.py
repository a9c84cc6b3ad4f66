import csv
import os
import re
import sys
import zipfile
from dataclasses import astuple

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError
from palm_cls.data.labels import COLUMNS, read_labels, xlsx_to_csv
from palm_cls.data.spelling import name_key, remove_invisible

HEADER = list(COLUMNS)
ROWS = [[1, "V0001.jpg", 0, 1157.74, 1019.87], [2, "V0002.jpg", 1, 1285, 0]]


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def rewrite(path, change):
    """Change the XML of a workbook: change(part's name, content) -> content."""
    with zipfile.ZipFile(path) as packed:
        parts = {name: change(name, packed.read(name)) for name in packed.namelist()}
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    return path


def test_conversion_keeps_numbers_as_they_look(tmp_path):
    xlsx = workbook(tmp_path / "PM_Label_and_Fovea_Location.xlsx", [HEADER, *ROWS])
    path, labels = xlsx_to_csv(xlsx)
    assert path == tmp_path / "labels.csv"
    assert path.read_bytes() == (
        b"ID,imgName,Label,Fovea_X,Fovea_Y\n1,V0001.jpg,0,1157.74,1019.87\n2,V0002.jpg,1,1285,0\n"
    )
    assert labels == read_labels(path) == read_labels(xlsx)


def test_columns_are_found_by_header_whatever_order_and_case(tmp_path):
    xlsx = workbook(tmp_path / "a.xlsx", [["LABEL", "note", " ImgName "], [1, "x", "a.jpg"], [0, "y", "b.jpg"]])
    assert xlsx_to_csv(xlsx, tmp_path / "out.csv")[0].read_text() == (
        "ID,imgName,Label,Fovea_X,Fovea_Y\n1,a.jpg,1,,\n2,b.jpg,0,,\n"
    )


def test_empty_rows_floats_and_text_cells(tmp_path):
    rows = [HEADER, [1.0, "a.jpg", 1.0, 0.1 + 0.2, "7"], [None] * 5, ["2", "b.jpg", "0", None, None], [None], [" "]]
    labels = read_labels(workbook(tmp_path / "a.xlsx", rows))
    assert [astuple(label) for label in labels] == [
        ("1", "a.jpg", 1, "0.3", "7", 2, "", ""),
        ("2", "b.jpg", 0, "", "", 4, "", ""),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfID,imgName,Label,Fovea_X,Fovea_Y\r\n1,V0001.jpg,0,1,2\r\n\r\n,,,,\r\n",  # BOM, CRLF, empty rows
        b'"ID","imgName","Label","Fovea_X","Fovea_Y"\n"1","V0001.jpg","0","1","2"\n',
        b"ID,imgName,Label,Fovea_X,Fovea_Y\n1, V0001.jpg ,0.0,1,2",
        b'ID, "imgName", "Label", "Fovea_X", "Fovea_Y"\r1, "V0001.jpg", "0.00", 1, 2\r',
        b"ID;imgName;Label;Fovea_X;Fovea_Y;a note, free\n1;V0001.jpg;0,0;1;2;left, dark\n",
        b"ID\timgName\tLabel\tFovea_X\tFovea_Y\n1\tV0001.jpg\t0\t1\t2\n",
        b"sep=;\r\nID;imgName;Label;Fovea_X;Fovea_Y\r\n1;V0001.jpg;0;1;2\r\n",
        "sep=\t\nID\timgName\tLabel\tFovea_X\tFovea_Y\n1\tV0001.jpg\t0\t1\t2\n".encode("utf-16"),
        "\ufeffID,imgName,Label,Fovea_X,Fovea_Y\n1,V0001.jpg,0,1,2".encode("utf-16-be"),
        "\ufeff\ufeffID,img\u200bName,\xa0Label,Fovea_X,Fovea_Y\n1,\ufeffV0001\u200b.jpg\xa0,０,1,2".encode(),
        b"ID,imgName_x000D_,Label,Fovea_X,Fovea_Y\n1,V0001.jpg_x000D_,0_x000d_,1,2",
    ],
)
def test_csv_dialects(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    assert [astuple(label)[:5] for label in read_labels(tmp_path / "labels.csv")] == [("1", "V0001.jpg", 0, "1", "2")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_chinese_names(tmp_path, encoding):
    (tmp_path / "标签.csv").write_bytes('imgName,Label\n"眼底, 左.jpg",1\n'.encode(encoding))
    assert read_labels(tmp_path / "标签.csv")[0].name == "眼底, 左.jpg"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "empty"),
        ([["ID", "name", "Label"], [1, "a.jpg", 0]], "no column imgName"),
        ([HEADER, [1, "a.jpg", 2, 0, 0]], "row 2: label '2' of 'a.jpg' is neither 0 nor 1"),
        ([HEADER, [1, "a.jpg", 0, 0, 0], [2, "b.jpg", None, 0, 0]], "row 3: label '' of 'b.jpg'"),
        ([HEADER, [1, "a.jpg", 0.5, 0, 0]], "row 2: label '0.5'"),
        ([HEADER, [1, None, 0, 0, 0]], "row 2: no image name"),
        ([HEADER, [1, "a\nb.jpg", 5, 0, 0]], "row 2: label '5'"),
        ([["imgName", "Label", "label"], ["a.jpg", 0, 1]], "more than one column Label"),
        ([["img\nName", "Label"], ["a.jpg", 0]], "it holds: img Name, Label"),
        ([["name", *[None] * 40, "note"], ["a.jpg", 0]], "it holds: name, note$"),
        ([HEADER], "sheet 'Sheet': lists no image"),
        ([HEADER, [1, "a.jpg", 0, 0, 0], [2, "b.jpg", "=C2"], [3, "c.jpg", 1]], "sheet 'Sheet', row 3: a formula"),
        ([HEADER, *([k, "=A1", "=B1"] for k in range(9))], "row 2: a formula without its value; open .* and save it"),
        ([HEADER, ["=A1", "=A1", "=A1", "=A1", "=A1"]], "row 2: a formula without its value"),  # no row but formulas
        ([HEADER, [1, "a.jpg", 0, "=1+1"]], "row 2: a formula"),  # the CSV would be without the fovea
        ([["imgName", "Label", "=A1"], ["a.jpg", 0]], "row 1: a formula"),
        ([HEADER, [1, "a.jpg", 0], [2, "./a.jpg", 1]], r"row 3: './a\.jpg' has a label in row 2 already; keep one"),
        ([HEADER, [1, "a.jpg", 0, 0, 0], [None], [2, "a.jpg", 1, 0, 0]], "row 4: 'a.jpg' has a label in row 2 already"),
    ],
)
def test_a_faulty_table_is_refused_with_its_row_and_changes_nothing(tmp_path, rows, told):
    xlsx = workbook(tmp_path / "a.xlsx", rows)
    (tmp_path / "labels.csv").write_text("old")
    with pytest.raises(InputError, match=told) as caught:
        xlsx_to_csv(xlsx)
    assert str(xlsx) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "labels.csv").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.xlsx", "labels.csv"]


def test_the_table_is_looked_for_in_the_first_sheet_that_shows_something(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["hidden"])
    book.active.sheet_state = "hidden"
    book.create_sheet("empty")
    sheet = book.create_sheet("labels")
    for row in [[None], HEADER, *ROWS]:  # a blank row first
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    assert [(label.name, label.row) for label in read_labels(tmp_path / "a.xlsx")] == [
        ("V0001.jpg", 3),
        ("V0002.jpg", 4),
    ]


def test_formulas_count_by_the_values_that_excel_stored(tmp_path):
    rows = [["imgName", "Label", "note"], ["a.jpg", "=C2", "=1+1"], ["=IF(A2,A2,0)"], ["b.jpg", 1]]
    xlsx = workbook(tmp_path / "a.xlsx", rows)

    def calculated(name, xml):
        xml = xml.replace(b' fullCalcOnLoad="1"', b"")
        xml = re.sub(rb"(<f>C2</f>)<v ?/>", rb"\1<v>1</v>", xml)
        return re.sub(rb'<c r="A3"(><f>[^/]*</f>)<v ?/>', rb'<c r="A3" t="str"\1<v></v>', xml)  # the text ""

    rewrite(xlsx, calculated)
    assert [(label.name, label.label) for label in read_labels(xlsx)] == [("a.jpg", 1), ("b.jpg", 1)]
    # What other programs store are placeholders, mostly 0, and Excel is asked to calculate all of them.
    rewrite(xlsx, lambda name, xml: xml.replace(b"<calcPr", b'<calcPr fullCalcOnLoad="1"'))
    with pytest.raises(InputError, match="row 2: a formula without its value"):
        read_labels(xlsx)


@pytest.mark.parametrize(
    ("sheets", "read", "told"),
    [
        (
            {"notes": [["made by hand"]], "labels": [["imgName", "Label"], ["a.jpg", 1]]},
            1,
            "'labels'; not read: 'notes'",
        ),
        ({"old": [["imgName", "Label"]], "new": [["imgName", "Label"], ["a.jpg", 1]]}, 1, "'new'; not read: 'old'"),
        ({"1": [["imgName", "Label"], ["a.jpg", 1]], "2": [["b.jpg", 0]]}, 1, "sheet '1'; not read: '2'"),
        (
            {"1": [["imgName", "Label"], ["a.jpg", 1]], "2": [["Label", "imgName"], [0, "b.jpg"]]},
            0,
            "several.*'1', '2'",
        ),
        ({"1": [["a", "b"]], "2": [["c", "d"]]}, 0, "none of the sheets '1', '2' has the columns imgName, Label"),
    ],
)
def test_one_sheet_is_read_and_the_others_are_named(tmp_path, capsys, sheets, read, told):
    log_once.cache_clear()
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    if read:
        assert [(label.name, label.label) for label in read_labels(tmp_path / "a.xlsx")] == [("a.jpg", 1)]
        assert re.search(told, capsys.readouterr().err)
    else:
        with pytest.raises(InputError, match=told):
            read_labels(tmp_path / "a.xlsx")


def test_rows_that_openpyxl_would_pass_over(tmp_path):
    def renumbered(name, xml):
        return xml.replace(b'<row r="3"', b'<row r="2"')

    xlsx = rewrite(workbook(tmp_path / "a.xlsx", [HEADER, *ROWS]), renumbered)
    with pytest.raises(InputError, match="rows that are not in their order"):
        read_labels(xlsx)


def test_what_excel_does_not_show_is_no_part_of_a_cell(tmp_path):
    rows = [["imgName\u200b", "Label_x000D_"], ["V1.jpg_x000D_\n", "1.00\xa0"], ["\ufeffV2.jpg", " ０"]]
    labels = read_labels(workbook(tmp_path / "a.xlsx", rows))
    assert [(label.name, label.label) for label in labels] == [("V1.jpg", 1), ("V2.jpg", 0)]


def test_a_strict_workbook(tmp_path):
    def strict(name, xml):
        pattern = rb"http://schemas\.openxmlformats\.org/(spreadsheetml|officeDocument|drawingml)/2006/"
        return re.sub(pattern, rb"http://purl.oclc.org/ooxml/\1/", xml)

    xlsx = rewrite(workbook(tmp_path / "a.xlsx", [HEADER, *ROWS]), strict)
    assert [label.name for label in read_labels(xlsx)] == ["V0001.jpg", "V0002.jpg"]


def test_what_is_mistaken_for_a_table_is_named(tmp_path):
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
    for name, content, told in [
        ("a.xls", old, "a workbook of Excel 97-2003 (.xls), not a table"),
        ("a.xlsx", old, "a workbook of Excel 97-2003"),
        ("a.xlsx", old + "EncryptedPackage".encode("utf-16-le"), "a workbook with a password"),
        ("a.csv", b"\xef\xbb\xbf <html><table>", "HTML or XML"),
        ("a.xls", b"<?xml version='1.0'?><Workbook>", "HTML or XML"),
        (
            "a.csv",
            b"PK\3\4" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "an OpenDocument table",
        ),
        ("a.xlsx", b"PK\3\4" + bytes(99) + b"xl/workbook.bin", "a binary workbook"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(f"{name}: {told}")):
            read_labels(tmp_path / name)
    labels = read_labels(workbook(tmp_path / "b.xlsx", [HEADER, *ROWS]))
    assert read_labels((tmp_path / "b.xlsx").rename(tmp_path / "labels.csv")) == labels


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('imgName,Label,note\na.jpg,0,x\nb.jpg,1,"dark\nc.jpg,1,x\nd.jpg,0,x\n', "line 3: not readable as CSV"),
        ("imgName,Fovea_X,Fovea_Y,Label\na.jpg,11,5,0,1,1\n", "row 2: more cells than the header has; put cells"),
        ("imgName,Label\n\n", "lists no image"),
        ("imgName,Label\na.jpg,0\na.jpg,0\n", "row 3: 'a.jpg' has a label in row 2 already"),
        ("imgName,Label\nx/a.jpg,0\nx\\.\\a.jpg,0\n", "row 3: .* has a label in row 2"),
        ("imgName,Label\nx/a.jpg,0\nx//y/../a.jpg,0\n", "row 3: .* has a label in row 2"),
        ("imgName,Label\n\u00e9.jpg,0\ne\u0301.jpg,0\n", "row 3: .* has a label in row 2"),
    ],
)
def test_no_row_of_a_csv_is_lost_and_no_name_is_there_twice(tmp_path, text, told):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_labels(tmp_path / "a.csv")


def test_decimal_commas(tmp_path):
    (tmp_path / "a.csv").write_text("imgName;Label;Fovea_X;Fovea_Y\na.jpg;1,00;1157,74;5\n")
    assert astuple(read_labels(tmp_path / "a.csv")[0])[2:5] == (1, "1157.74", "5")


def test_without_openpyxl_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    xlsx = workbook(tmp_path / "a.xlsx", [HEADER, *ROWS])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match="openpyxl .*: python -m pip install openpyxl"):
        read_labels(xlsx)


def test_files_that_are_no_workbook(tmp_path):
    for name, content in {"a.xlsx": b"ID,imgName,Label\n", "b.xlsx": b"", "c.xlsx": b"PK\x03\x04 and more"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not an Excel workbook"):
            xlsx_to_csv(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        xlsx_to_csv(tmp_path / "missing.xlsx")
    with pytest.raises(InputError, match=r"not an \.xlsx file"):
        xlsx_to_csv(tmp_path / "labels.csv")
    with pytest.raises(InputError, match=r"not the name of a \.csv file"):
        xlsx_to_csv(tmp_path / "a.xlsx", tmp_path / "a.xlsx")
    with pytest.raises(InputError, match=r"deep: no such directory to write out\.csv into"):
        xlsx_to_csv(tmp_path / "a.xlsx", tmp_path / "deep" / "out.csv")


def test_a_write_that_fails_leaves_the_old_table_and_nothing_else(tmp_path, monkeypatch):
    xlsx = workbook(tmp_path / "a.xlsx", [HEADER, *ROWS])
    (tmp_path / "labels.csv").write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        xlsx_to_csv(xlsx)
    assert (tmp_path / "labels.csv").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.xlsx", "labels.csv"]


def test_binary_csv(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\x00\x01\x02,\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_labels(tmp_path / "a.csv")


names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20).map(
    lambda name: remove_invisible(name).strip()
)
coordinates = st.one_of(st.none(), st.integers(0, 4000), st.integers(0, 400_000).map(lambda n: n / 100))


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(names.filter(bool), min_size=1, max_size=6, unique_by=name_key),
    data=st.data(),
    columns=st.permutations(HEADER),
)
def test_any_table_survives_xlsx_and_csv(tmp_path_factory, names, data, columns):
    rows = [
        {
            "ID": number,
            "imgName": name,
            "Label": data.draw(st.integers(0, 1)),
            "Fovea_X": data.draw(coordinates),
            "Fovea_Y": data.draw(coordinates),
        }
        for number, name in enumerate(names, start=1)
    ]
    folder = tmp_path_factory.mktemp("table")
    book = openpyxl.Workbook()
    book.active.append(columns)
    for row in rows:
        book.active.append([row[column] for column in columns])
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s" if isinstance(cell.value, str) else cell.data_type  # "=1" is a name here, no formula
    book.save(folder / "a.xlsx")
    path, labels = xlsx_to_csv(folder / "a.xlsx")
    assert [(label.name, label.label) for label in labels] == [(row["imgName"], row["Label"]) for row in rows]
    assert [astuple(label)[:5] for label in read_labels(path)] == [astuple(label)[:5] for label in labels]
    with path.open(encoding="utf-8", newline="") as file:  # as anyone else would read it
        for written, row in zip(csv.DictReader(file), rows):
            for column in ("Fovea_X", "Fovea_Y"):
                assert written[column] == ("" if row[column] is None else format(row[column], ".15g"))
