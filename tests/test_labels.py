import csv
import os

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.labels import COLUMNS, read_labels, xlsx_to_csv
from palm_cls.messages import InputError

HEADER = list(COLUMNS)
ROWS = [[1, "V0001.jpg", 0, 1157.74, 1019.87], [2, "V0002.jpg", 1, 1285, 0]]


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
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
    assert [tuple(label) for label in labels] == [("1", "a.jpg", 1, "0.3", "7", 2), ("2", "b.jpg", 0, "", "", 4)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfID,imgName,Label,Fovea_X,Fovea_Y\r\n1,V0001.jpg,0,1,2\r\n\r\n,,,,\r\n",  # BOM, CRLF, empty rows
        b'"ID","imgName","Label","Fovea_X","Fovea_Y"\n"1","V0001.jpg","0","1","2"\n',
        b"ID,imgName,Label,Fovea_X,Fovea_Y\n1, V0001.jpg ,0.0,1,2",
    ],
)
def test_csv_dialects(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    assert [label[:5] for label in read_labels(tmp_path / "labels.csv")] == [("1", "V0001.jpg", 0, "1", "2")]


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


names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20).map(str.strip)
coordinates = st.one_of(st.none(), st.integers(0, 4000), st.integers(0, 400_000).map(lambda n: n / 100))


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(names.filter(bool), min_size=1, max_size=6, unique=True),
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
    assert [label[:5] for label in read_labels(path)] == [label[:5] for label in labels]
    with path.open(encoding="utf-8", newline="") as file:  # as anyone else would read it
        for written, row in zip(csv.DictReader(file), rows):
            for column in ("Fovea_X", "Fovea_Y"):
                assert written[column] == ("" if row[column] is None else format(row[column], ".15g"))
