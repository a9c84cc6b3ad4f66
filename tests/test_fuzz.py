"""Damaged and hostile files, thousands of them: each is read or refused (InputError), soon, and harms nothing.

Mutations start from small valid files. Where compression hides what is inside, they are made inside and packed again.
"""

import copy
import io
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import openpyxl
import pytest
from helpers import PROJECT
from helpers.files import nested
from helpers.hostile import fluid_file, read_or_refused, safetensors, torch_state, varint, with_table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from palm_cls.checkpoints.paddle16 import is_paddle16, rename_paddle16
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.torch_weights import read_arrays
from palm_cls.data.images import read_image
from palm_cls.data.labels import csv_text, read_labels
from palm_cls.data.prepare import HARMLESS, NESTED, unpack
from palm_cls.data.tables import COLUMNS

import paddle

AMOUNTS = [pytest.param(150, id="150"), pytest.param(1000, id="1000", marks=pytest.mark.slow)]
many = pytest.mark.parametrize("amount", AMOUNTS)


def fuzzed(amount):
    return settings(max_examples=amount, deadline=None, suppress_health_check=list(HealthCheck))


# --- mutations, the same for all kinds of files

# Characters that stand for more than themselves somewhere, and numbers that claim too much.
WORDS = [
    b"\0",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f",
    b"-1",
    b"99999999999",
    b"1e999",
    b'"',
    b"<",
    b"&",
    b",",
    b"\r",
    b"PK",
]
EDIT = st.tuples(
    st.sampled_from(("replace", "insert", "remove", "truncate", "duplicate")),
    st.integers(0, 1 << 20),  # where, modulo the size
    st.integers(1, 64),  # how many bytes
    st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from(WORDS)),
)
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def mutate(content, edits):
    for kind, place, size, new in edits:
        place %= len(content) + 1
        head, chunk, tail = content[:place], content[place : place + size], content[place + size :]
        content = {
            "replace": head + new + content[place + len(new) :],
            "insert": head + new + chunk + tail,
            "remove": head + tail,
            "truncate": head,
            "duplicate": head + chunk * 3 + tail,
        }[kind]
    return content


# --- a valid file of each kind, how it is read, and what must hold of the result


def a_workbook():
    book = openpyxl.Workbook()
    for row in ((*COLUMNS, "note"), (1, "V0001.jpg", 0, 1157.74, 1019.87, "=1+1"), (2, "V0002.jpg", 1, 1285, None)):
        book.active.append(row)
    book.create_sheet("notes")
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def a_pickle(wrapped=False):
    stream, state = io.BytesIO(), {"conv1.weight": paddle.ones([2, 3]), "LR_Scheduler": {"last_lr": 0.1}}
    paddle.save({"model": state, "epochs": [1, 2], "optimizer": state} if wrapped else state, stream)
    return stream.getvalue()


def an_npz():
    stream = io.BytesIO()
    np.savez(stream, **torch_state())
    return stream.getvalue()


def an_image(suffix, *options):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def an_archive():
    images = {"PALM-Training400/P0001.jpg": b"one" * 20, "PALM-Training400/N0002.jpg": b"two" * 20}
    return nested({f"PALM-Training400/{NESTED}": nested(images), "notes.txt": b"hello"})


def table(path):
    labels = read_labels(path)
    csv_text(labels).encode("utf-8")  # it can be written, too
    assert all(label.name and label.label in (0, 1) for label in labels)


def weights(path):
    state = read_state(path)
    assert all(isinstance(name, str) for name in state)
    arrays = [value for value in state.values() if isinstance(value, np.ndarray)]
    assert sum(value.nbytes for value in arrays) <= path.stat().st_size * max(1, len(arrays))
    if is_paddle16(state):
        rename_paddle16(state, ["conv1"], ["fc1"])


def torch_weights(path):
    state = read_arrays(path)
    assert all(isinstance(name, str) for name in state)
    assert sum(value.nbytes for value in state.values()) <= path.stat().st_size * max(1, len(state))


def image(path):
    picture = read_image(path)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3


def files_below(folder):
    """Every file and link below a folder; of links, where they lead."""
    paths = [path for path in Path(folder).rglob("*") if path.is_symlink() or not path.is_dir()]
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in paths
    }


def unpacked(path):
    """Unpack beside it; nothing appears, or changes, outside of the target."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        place = Path(folder)
        (place / "beside").mkdir()
        (place / "beside" / "file").write_bytes(b"not yours")
        try:
            unpack(path, place / "target")
        finally:
            found = files_below(place)
            assert found.pop("beside/file") == b"not yours"
            assert all(name.startswith("target/") for name in found)
            assert not any(name.endswith(".tmp") for name in found)


CSV = b'ID,imgName,Label,Fovea_X,Fovea_Y\r\n1,V0001.jpg,0,1157.74,1019.87\r\n2,"V,2.jpg",1,1285,\r\n'
FLUID = fluid_file([("A/A_0/Conv2D_0.w_0", np.ones((2, 3))), ("A/A_0/FC_0.b_0", np.ones(2))])
KINDS = {
    "csv": (CSV, "a.csv", table),
    "chinese csv": (CSV.decode().replace("V", "眼").encode("gb18030"), "a.csv", table),
    "xlsx": (a_workbook(), "a.xlsx", table),
    "fluid": (FLUID, "a.pdparams", weights),
    "pickle": (a_pickle(), "a.pdparams", weights),
    "wrapped pickle": (a_pickle(wrapped=True), "a.pdparams", weights),
    "safetensors": (safetensors(torch_state()), "a.safetensors", torch_weights),
    "npz": (an_npz(), "a.npz", torch_weights),
    "zip": (an_archive(), "training.zip", unpacked),
    "jpeg": (an_image(".jpg"), "a.jpg", image),
    "progressive": (an_image(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), "a.jpg", image),
    "png": (an_image(".png"), "a.png", image),
}


@pytest.mark.parametrize("kind", KINDS)
@many
def test_mutated_files_are_read_or_refused(tmp_path, kind, amount):
    content, name, read = KINDS[kind]
    path = tmp_path / name

    # OpenCV 4 believes the size in a PNG whose checksum is wrong, and clears up to 300 MB for it.
    @fuzzed(amount // 5 if kind == "png" else amount)
    @example(edits=[])
    @example(edits=[("truncate", 0, 1, b"x")])
    @given(edits=EDITS)
    def check(edits):
        path.write_bytes(mutate(content, edits))
        read_or_refused(read, path)

    check()
    path.write_bytes(content)
    read(path)  # the file that all of them were made of is a good one


# --- inside the compression


def packed(parts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parts_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


WORKBOOK = parts_of(KINDS["xlsx"][0])
SHEET = "xl/worksheets/sheet1.xml"
VALUES = [b"", b"0", b"-1", b"99999999999", b"1e999", b"nan", b"ZZZ1", b"A1048577", b"&#xFFFF;", b"_xD800_", b"&#x1b;"]
VALUES += [b"9" * 5000, b"inlineStr", b"s", b"d", b"b", b"x" * 3000, b"veryHidden", b"../../../etc/passwd"]
ATTRIBUTE_OR_TEXT = re.compile(rb'(?<=")[^"<>]*(?=")|(?<=>)[^<]+(?=<)')


def with_values(xml, values):
    """The XML with other values in the places of the `place`-th attribute or text, for every (place, value)."""
    for place, value in values:
        spans = [match.span() for match in ATTRIBUTE_OR_TEXT.finditer(xml)]
        if spans:
            start, end = spans[place % len(spans)]
            xml = xml[:start] + value + xml[end:]
    return xml


@many
def test_workbooks_with_mutated_xml_are_read_or_refused(tmp_path, amount):
    values = st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(VALUES)), max_size=3)

    @fuzzed(amount)
    @given(
        part=st.one_of(st.just(SHEET), st.sampled_from(sorted(WORKBOOK))),
        values=values,
        edits=st.one_of(st.just([]), EDITS),
    )
    @example(part=SHEET, values=[], edits=[])
    def check(part, values, edits):
        xml = mutate(with_values(WORKBOOK[part], values), edits)
        (tmp_path / "a.xlsx").write_bytes(packed({**WORKBOOK, part: xml}))
        read_or_refused(table, tmp_path / "a.xlsx")

    check()


@many
def test_pngs_with_mutated_pixels_and_headers_are_read_or_refused(tmp_path, amount):
    """Chunks with right checksums around whatever is in them."""
    content, chunks, place = KINDS["png"][0], [], 8
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += size + 12

    @fuzzed(amount)
    @given(which=st.integers(0, len(chunks) - 1), edits=EDITS, inflate=st.booleans())
    def check(which, edits, inflate):
        png = content[:8]
        for number, (kind, data) in enumerate(chunks):
            if number == which:
                inside = inflate and kind == b"IDAT"
                data = zlib.compress(mutate(zlib.decompress(data), edits)) if inside else mutate(data, edits)
            png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        (tmp_path / "a.png").write_bytes(png)
        read_or_refused(image, tmp_path / "a.png")

    check()


# --- opcodes of pickle, in any order

OPCODES = [value for name, value in vars(pickle).items() if re.fullmatch("[A-Z][A-Z0-9_]+", name) and len(name) > 2]
OPCODES = sorted({value for value in OPCODES if isinstance(value, bytes) and len(value) == 1})
ARGUMENTS = [
    b"builtins\nexec\n",
    b"numpy\nndarray\n",
    b"collections\nOrderedDict\n",
    b"builtins\ntuple\n",
    b"_codecs\nencode\n",
    b"\x01a",
    b"\x00",
    b"\x01",
    b"1\n",
    b"'f4'\n",
    struct.pack("<Q", 2**40),
]


@many
def test_opcodes_of_pickle_in_any_order_are_read_or_refused(tmp_path, amount):
    step = st.tuples(st.sampled_from(OPCODES), st.one_of(st.just(b""), st.sampled_from(ARGUMENTS))).map(b"".join)

    @fuzzed(amount)
    @given(steps=st.lists(step, max_size=25))
    def check(steps):
        (tmp_path / "a.pdparams").write_bytes(b"\x80\x04}" + b"".join(steps) + b".")
        read_or_refused(weights, tmp_path / "a.pdparams")

    check()


# --- archives: any names, attributes, flags and claims, in a target where something lies already

SEGMENTS = (
    "a",
    "b",
    "..",
    ".",
    "",
    "~",
    "C:",
    "\\",
    "..\\c",
    "\0",
    "\x1b[2J",
    "é",
    "x" * 150,
    "x" * 300,
    "__MACOSX",
    NESTED,
)
NAMES = st.lists(st.sampled_from(SEGMENTS), max_size=4).map("/".join)
MODES = st.sampled_from((0, 0, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR, stat.S_IFIFO, stat.S_ISUID))
MEMBERS = st.lists(
    st.fixed_dictionaries(
        {
            "filename": st.one_of(st.sampled_from(("a", "b", "a/b", "c/d", NESTED, "OUTSIDE")), NAMES),
            "content": st.sampled_from((b"", b"text", b"0" * 5000, "nested")),
            "mode": MODES,
            "flags": st.sampled_from((0, 0, 0, 0, 1, 8, 0x20, 0x40, 0x800)),
            "claims": st.sampled_from((None, None, None, None, 0, 1, HARMLESS + 1, 2**40)),
            "method": st.sampled_from((0, 8, 8, 8, 12, 14)),
        }
    ),
    max_size=5,
)
STATES = st.sampled_from(
    ("nothing", "nothing", "link outside", "link nowhere", "link to itself", "link inside", "file", "folder")
)


def write_archive(path, members, inner=b""):
    """A zip as the dictionaries say, each claim in its directory, the links and lies too."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of names given twice
        for member in members:
            info = zipfile.ZipInfo("name")
            info.filename = info.orig_filename = member["filename"]
            info.external_attr, info.compress_type = member["mode"] << 16, member["method"]
            archive.writestr(info, inner if member["content"] == "nested" else member["content"])
        for info, member in zip(archive.filelist, members):
            info.flag_bits |= member["flags"]
            info.file_size = info.file_size if member["claims"] is None else member["claims"]


def prepare(target, beside, state):
    """Something in the target, where archives have their "a"."""
    target.mkdir()
    if state.startswith("link"):
        aims = {"link outside": beside, "link nowhere": beside / "new", "link to itself": "a", "link inside": "b"}
        try:
            (target / "a").symlink_to(aims[state], target_is_directory=True)
        except OSError:  # Windows, without the right to make links
            return
    elif state == "file":
        (target / "a").write_bytes(b"old")
    elif state == "folder":
        (target / "a").mkdir()


@many
def test_archives_are_unpacked_as_they_say_or_refused_and_touch_nothing_outside(tmp_path, amount):
    def check_one(place, members, inner, state):
        archive, target, beside = place / "training.zip", place / "target", place / "beside"
        beside.mkdir()
        (beside / "file").write_bytes(b"not yours")
        prepare(target, beside, state)
        absolute = {"OUTSIDE": (beside / "new").as_posix()}
        for member in members + inner:
            member["filename"] = absolute.get(member["filename"], member["filename"])
        stream = io.BytesIO()
        write_archive(stream, inner)
        write_archive(archive, members, stream.getvalue())
        old = files_below(target)
        done = read_or_refused(lambda path: unpack(path, target), archive)
        found = files_below(place)
        assert found.pop("beside/file") == b"not yours"
        found.pop("training.zip")
        assert all(name.startswith("target/") for name in found)  # and links in the way were not followed outside
        links = {path.name for path in target.rglob("*") if path.is_symlink()}
        assert links <= {"a"} & {"a" if state.startswith("link") else ""}
        if done is not None:
            assert expected(members, stream.getvalue()).items() <= {**old, **files_below(target)}.items()

    @fuzzed(amount)
    @given(members=MEMBERS, inner=MEMBERS, state=STATES)
    def check(members, inner, state):
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            check_one(Path(place), members, inner, state)

    check()


def expected(members, inner):
    """{place: content} of the members of an archive that was unpacked; the nested one, and what it holds, left out."""
    contents = {}
    for member in members:
        name = member["filename"].partition("\0")[0].replace("\\", "/")  # zipfile reads no further than a NUL
        clutter = name.endswith(("/", "/.DS_Store")) or name.startswith("__MACOSX/")
        if not clutter and PurePosixPath(name).name != NESTED and not name.startswith("a/"):  # "a" may be a link
            contents[PurePosixPath(name).as_posix()] = inner if member["content"] == "nested" else member["content"]
    return contents


# --- files that claim, or unpack to, far more than they are

# Reads the files named on its command line, each with 1.5 GB of memory to spare, and prints what came of each.
CHILD = """
import os, resource, sys, time
from pathlib import Path
import openpyxl
from palm_cls.data.prepare import unpack
from palm_cls.data.images import read_image
from palm_cls.data.labels import read_labels
from palm_cls.core.errors import InputError
from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.torch_weights import read_arrays

READ = {".csv": read_labels, ".xlsx": read_labels, ".jpg": read_image, ".png": read_image, ".pdparams": read_state}
READ.update({".npz": read_arrays, ".safetensors": read_arrays})
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 1_500_000_000,) * 2)
for name in sys.argv[1:]:
    read = READ.get(Path(name).suffix) or (lambda path: unpack(path, Path(path).with_suffix(".unpacked")))
    start, result = time.monotonic(), "read"
    try:
        read(name)
    except InputError as error:
        told = f"{error} {error.__cause__!r}"
        result = "memory" if "Memory" in told or "memory" in told else "refused"
    except BaseException as error:
        result = type(error).__name__
    print(Path(name).name, result, "hang" if time.monotonic() - start > 20 else "soon", sep="|", flush=True)
"""


def sheet(rows, before=b""):
    start = WORKBOOK[SHEET].split(b"<sheetData>")[0]
    return packed({**WORKBOOK, SHEET: start + before + b"<sheetData>" + rows + b"</sheetData></worksheet>"})


def relabelled(content, part, **attributes):
    """A zip whose directory says something else of a part than is true."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(f"{len(content)}/", b"")  # so that the directory is written anew
        for name, value in attributes.items():
            setattr(archive.getinfo(part), name, value)
    return stream.getvalue()


def bomb(part, parts=(), megabytes=4000):
    """A zip of 4 MB with a part of 4 GB: one deflated megabyte of spaces, repeated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = compressor.compress(b" " * 1_000_000) + compressor.flush(zlib.Z_FULL_FLUSH)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in {**dict(parts), part: megabyte * megabytes + compressor.flush()}.items():
            archive.writestr(name, content)
    return relabelled(stream.getvalue(), part, compress_type=8, file_size=megabytes * 1_000_000)


def many_sheets(count, content=None):
    """A workbook that lists one sheet so many times; content: of this sheet, instead of the labels."""
    book = WORKBOOK["xl/workbook.xml"]
    one = re.search(rb"<sheet [^>]*/>", book)[0]
    start = WORKBOOK[SHEET].split(b"<sheetData>")[0]
    xml = start + content + b"</worksheet>" if content else WORKBOOK[SHEET]
    return packed({**WORKBOOK, "xl/workbook.xml": book.replace(one, one * count), SHEET: xml})


def laughs():
    """Entities made of entities: a billion of them in the first cell."""
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10))
    xml = b'<!DOCTYPE x [<!ENTITY e0 "ha">' + entities + b"]>" + WORKBOOK[SHEET]
    return packed({**WORKBOOK, SHEET: xml.replace(b"<v>0</v>", b"<v>&e9;</v>", 1)})


def matryoshka(depth):
    content = b""
    for _ in range(depth):
        content = nested({NESTED: content, f"{len(content)}.txt": b"text"})
    return content


def overlapping(count):
    """Members that share their content, so that 100 MB stand in the archive once."""
    stream = io.BytesIO(bomb("a", megabytes=90))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("directory again/", b"")
        for number in range(count):
            again = copy.copy(archive.getinfo("a"))
            again.filename = f"a{number}"
            archive.filelist.append(again)
    return stream.getvalue()


def jpeg(width, height, scans=0):
    content = KINDS["progressive"][0]
    size = content.index(b"\xff\xc2") + 5
    content = content[:size] + struct.pack(">HH", height, width) + content[size + 4 :]
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return KINDS["png"][0][:12] + header + struct.pack(">I", zlib.crc32(header)) + KINDS["png"][0][33:]


def hostile_pickles():
    twins = b"N" + b"2\x86" * 60  # a tuple of two tuples of two tuples ...; its hash takes 2**60 steps
    lists = b"]q\x01" + b"0(h\x01h\x01lq\x01" * 60
    array = b"cnumpy\nndarray\n)R(I1\n"
    dtype = b"cnumpy\ndtype\n(S'f4'\ntR"
    names = [b"X" + struct.pack("<I", 4) + b"%04d" % number for number in range(1000)]
    shared = b"}(X\x01\x00\x00\x00aNu"
    for _ in range(2):
        shared += b"q\x01}(" + b"".join(name + b"h\x01" for name in names) + b"u"
    return {
        "key": b"}" + twins + b"Ns",
        "keys": b"}(" + twins + b"Nu",
        "keys of a new one": b"(" + twins + b"Nd",
        "keys of an ordered one": b"ccollections\nOrderedDict\n(](" + twins + b"N\x86etR",
        "set": b"\x8f(" + twins + b"\x90",
        "frozen set": b"(" + twins + b"\x91",
        "type": b"cnumpy\ndtype\n(" + twins + b"tR",
        "encoding": b"c_codecs\nencode\n(S'a'\n" + twins + b"tR",
        "order of bytes": dtype + b"(I3\n" + twins + b"NNNI-1\nI-1\nI0\ntb",
        "shape": array + b"(" + twins + b"t" + dtype + b"NC\x04xxxxtb",
        "shape of lists": array + lists + dtype + b"NC\x04xxxxtb",
        "shape of a million": array + b"(" + b"K\x7f" * 1_000_000 + b"t" + dtype + b"NC\x04xxxxtb",
        "array of bytes": b"\x96" + struct.pack("<Q", 2**40),
        "one dictionary a billion times": shared,
    }


def npy(size):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    return stream.getvalue() + b"xxxx"


def hostile_tensors():
    dims = b"\x08\x05" + (b"\x10" + varint(2**63 - 1)) * 200_000
    head = FLUID[:260] + struct.pack("<Q", 1) + b"NAME" + struct.pack("<Q", 1) + b"a"
    return {"dimensions": head + struct.pack("<Ii", 0, len(dims)) + dims, "count": head[:260] + b"\xff" * 8}


def hostile_files():
    """{name: content}; the word before the first blank is what should come of it."""
    return {
        "refused row far below.xlsx": sheet(b'<row r="99999999999"><c r="A1"><v>1</v></c></row>'),
        "refused last row.xlsx": sheet(b'<row r="1048577"><c r="A1"><v>1</v></c></row>'),
        "refused columns far right.xlsx": sheet(b'<row><c r="ZZZ1"><v>1</v></c></row>' * 50_000),
        "refused half a million columns.xlsx": sheet(b"<row>" + b"<c/>" * 500_000 + b"</row>"),
        "refused gigabytes.xlsx": bomb(SHEET, WORKBOOK.items()),
        "refused gigabytes that claim little.xlsx": relabelled(bomb(SHEET, WORKBOOK.items()), SHEET, file_size=99),
        "read terabytes claimed.xlsx": relabelled(KINDS["xlsx"][0], SHEET, file_size=2**40),
        "refused sheets.xlsx": many_sheets(10_000),
        "refused large sheets.xlsx": many_sheets(90, b"<x/>" * 2_000_000),
        "refused sheets with a last row.xlsx": many_sheets(90, b'<sheetData><row r="1048576"/></sheetData>'),
        "refused formulas.xlsx": sheet(b"<row><c><f/></c></row>" * 380_000),
        "refused laughs.xlsx": laughs(),
        "read deep.xlsx": packed({**WORKBOOK, SHEET: WORKBOOK[SHEET] + b"<!---->" * 100_000}),
        "refused deep.xlsx": sheet(b"", before=b"<a>" * 300_000 + b"</a>" * 300_000),
        "refused field.csv": b"imgName,Label\na.jpg," + b"1" * 15_000_000,
        "refused field of 100 MB.csv": b"imgName,Label\na.jpg," + b"1" * 100_000_000,
        "refused NULs.csv": bytes(15_000_000),
        "refused commas.csv": b"," * 15_000_000,
        "refused lines.csv": b"\n" * 15_000_000,
        "refused short lines.csv": b"a\n" * 7_000_000,
        "refused open quote.csv": b'imgName,Label\n"' + b"a\n" * 7_000_000,
        "refused gigabytes.zip": bomb("a"),
        "refused gigabytes that claim little.zip": relabelled(bomb("a"), "a", file_size=99),
        "refused gigabytes inside.zip": nested({NESTED: bomb("a")}),
        "refused terabytes claimed.zip": relabelled(KINDS["zip"][0], "notes.txt", file_size=2**40),
        "refused overlapping.zip": overlapping(1000),
        "refused dictionary of LZMA.zip": relabelled(
            nested({"a": b"\5\0\5\0\x5d\xff\xff\xff\xff"}), "a", compress_type=14
        ),
        "read matryoshka.zip": matryoshka(100),
        "refused pixels.jpg": jpeg(32_000, 32_000),
        "refused more pixels.jpg": jpeg(65_500, 65_500),
        "refused scans.jpg": jpeg(9_000, 9_000, 200_000),
        "refused data for a few of its pixels.jpg": jpeg(8_000, 8_000, 10),
        "read large.jpg": cv2.imencode(".jpg", np.zeros((8_000, 8_000, 3), np.uint8))[1].tobytes(),
        "refused pixels.png": png(30_000, 30_000),
        "refused more pixels.png": png(2**31 - 1, 2**31 - 1),
        "refused gigabytes.npz": bomb("a.npy"),
        "refused gigabytes that claim little.npz": relabelled(bomb("a.npy"), "a.npy", file_size=99),
        "refused terabytes claimed.npz": nested({"a.npy": npy(2**40)}),
        "refused terabytes claimed.safetensors": safetensors(
            {}, {"a": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}
        ),
        "refused depth.safetensors": with_table(b"[" * 100_000),
        "refused table.safetensors": with_table(b" " * 15_000_000),
        "refused number.safetensors": with_table(b'{"a": {"data_offsets": [0, ' + b"9" * 100_000 + b"]}}"),
        **{f"refused {name}.pdparams": b"\x80\x04" + code + b"." for name, code in hostile_pickles().items()},
        **{f"refused {name}.pdparams": content for name, content in hostile_tensors().items()},
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_files_that_claim_far_more_than_they_are_cost_neither_memory_nor_time(tmp_path):
    files = hostile_files()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", CHILD, *map(str, map(tmp_path.joinpath, files))]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, encoding="utf-8", timeout=300)
    assert done.stdout.splitlines() == [f"{name}|{name.split()[0]}|soon" for name in files], done.stderr


def test_a_layer_numbered_beyond_reason_is_not_taken_for_one_of_paddle_1_6(tmp_path):
    (tmp_path / "a").write_bytes(fluid_file([(f"A/FC_{'1' * 5000}.w_0", np.ones(2))]))
    assert not is_paddle16(read_state(tmp_path / "a"))
