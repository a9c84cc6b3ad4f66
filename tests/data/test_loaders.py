import os
import random
import re
import struct
import sys
import zlib

import cv2
import numpy as np
import openpyxl
import pytest

from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError
from palm_cls.data.loaders import data_loader, valid_data_loader


def write_image(path, value=0, shape=(20, 30, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full(shape, value, np.uint8))[1].tobytes())


@pytest.fixture
def images(tmp_path):
    """Seven images with Chinese characters and spaces in their paths; their grey tells them apart."""
    folder = tmp_path / "眼底 照片"
    for i, name in enumerate(["H1 高.png", "N1.png", "N2.png", "P1.png", "P2.png", "P3.png", "P 4.PNG"]):
        write_image(folder / name, 10 * i)
    return folder


def test_labels_order_and_the_smaller_last_batch(images):
    batches = list(data_loader(images, batch_size=3, mode="eval")())
    assert [imgs.shape for imgs, _ in batches] == [(3, 3, 224, 224), (3, 3, 224, 224), (1, 3, 224, 224)]
    # sorted: "H1 高", N1, N2, "P 4", P1, P2, P3
    assert np.concatenate([labels for _, labels in batches]).ravel().tolist() == [0, 0, 0, 1, 1, 1, 1]
    grey = np.concatenate([imgs for imgs, _ in batches])[:, 0, 0, 0]
    np.testing.assert_allclose((grey + 1) * 127.5, [0, 10, 20, 60, 30, 40, 50], atol=1e-3)


def test_shuffling_is_anew_each_epoch_and_repeats_with_the_seed(images):
    def epochs():
        random.seed(3)
        reader = data_loader(images, batch_size=7)
        return [[imgs[:, 0, 0, 0].tolist() for imgs, _ in reader()] for _ in range(3)]

    first = epochs()
    assert first == epochs()
    assert len({str(epoch) for epoch in first}) == 3
    assert {str(sorted(epoch[0])) for epoch in first} == {str(sorted(first[0][0]))}


def test_a_table_decides_order_and_labels(images, tmp_path):
    (tmp_path / "own.csv").write_text("imgName,Label\nP3.png,0\nN1.png,1\nP 4.PNG,1\n", encoding="utf-8")
    ((imgs, labels),) = valid_data_loader(images, tmp_path / "own.csv")()
    np.testing.assert_allclose((imgs[:, 0, 0, 0] + 1) * 127.5, [50, 10, 60], atol=1e-3)
    assert labels.tolist() == [[0], [1], [1]]


def test_images_of_one_name_in_two_folders_are_told_apart(images, tmp_path):
    for folder, grey in (("a", 10), ("b", 60)):
        (images / folder).mkdir()
        write_image(images / folder / "1.png", grey)
    (tmp_path / "own.csv").write_text("imgName,Label\nb/1.png,0\na/1.png,1\n", encoding="utf-8")
    reader = valid_data_loader(images, tmp_path / "own.csv")
    reader.order = list(reversed(reader.order))
    ((imgs, labels),) = reader()
    np.testing.assert_allclose((imgs[:, 0, 0, 0] + 1) * 127.5, [10, 60], atol=1e-3)
    assert labels.tolist() == [[1], [0]]
    assert [int(reader.load_image(name).mean()) for name in reader.order] == [10, 60]


def test_an_image_without_a_label_in_its_name(images):
    write_image(images / "X1.png")
    with pytest.raises(InputError, match=r"X1\.png: the label is the first letter of the name, H, N or P"):
        data_loader(images)


def test_an_image_that_the_table_names_is_missing(images, tmp_path):
    (tmp_path / "own.csv").write_text("imgName,Label\nP3.png,0\nV9.png,1\n")
    with pytest.raises(InputError, match=r"V9\.png: no such image; it is listed in .*own\.csv, row 3"):
        valid_data_loader(images, tmp_path / "own.csv")
    with pytest.raises(InputError, match="elsewhere: no such directory"):
        valid_data_loader(tmp_path / "elsewhere", tmp_path / "own.csv")
    (tmp_path / "own.csv").write_text("imgName,Label\n")
    with pytest.raises(InputError, match="lists no image"):
        valid_data_loader(images, tmp_path / "own.csv")


def in_table(tmp_path, *rows):
    (tmp_path / "own.csv").write_text("\n".join(["imgName,Label", *rows]), encoding="utf-8")
    return tmp_path / "own.csv"


def test_names_are_found_however_they_are_written(images, tmp_path):
    write_image(images / "sub" / "e\u0301.png", 70)  # as macOS writes it
    table = in_table(tmp_path, "P3,0", "./N1.png,1", "sub\\\u00e9.png,0", "P 4,1", "sub/../P2.png,0")
    reader = valid_data_loader(images, table)
    ((imgs, labels),) = reader()
    np.testing.assert_allclose((imgs[:, 0, 0, 0] + 1) * 127.5, [50, 10, 70, 60, 40], atol=1e-3)
    assert labels.ravel().tolist() == [0, 1, 0, 1, 0]
    reader.order = reader.order[::-1]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 are for Linux")
def test_names_that_a_chinese_archive_left_in_gbk(images, tmp_path):
    os.rename(images / "P3.png", os.fsencode(images) + "/眼底.png".encode("gbk"))
    assert valid_data_loader(images, in_table(tmp_path, "眼底.png,1")).labels == [1]


def test_a_name_that_is_too_long_is_that_of_no_image(images, tmp_path):
    with pytest.raises(InputError, match="no such image; it is listed in .*row 2"):
        valid_data_loader(images, in_table(tmp_path, "x" * 5000 + ",1"))


def test_two_rows_for_one_image(images, tmp_path):
    roundabout = f"../{images.name}/P3.png"
    for rows in (["P3.png,0", "./P3.png,1"], ["P3,0", "P3.png,1"], ["P3.png,0", f"{roundabout},1"]):
        with pytest.raises(InputError, match="row 3: .*row 2"):
            valid_data_loader(images, in_table(tmp_path, *rows))
    (images / "p3.png").symlink_to(images / "P3.png")  # what a disk amounts to that takes p for P
    with pytest.raises(InputError, match=r"own\.csv, row 3: 'p3\.png' is the image of row 2 already"):
        valid_data_loader(images, in_table(tmp_path, "P3.png,0", "p3.png,1"))
    write_image(images / "n1.png", 80)  # but this is another image
    assert valid_data_loader(images, in_table(tmp_path, "N1.png,0", "n1.png,1")).num_samples == 2
    with pytest.raises(InputError, match="row 4: 'N1' is the image of row 2 already"):
        valid_data_loader(images, in_table(tmp_path, "N1.png,0", "n1.png,1", "N1,1"))


def test_a_name_without_suffix_that_two_images_have(images, tmp_path):
    write_image(images / "P3.jpg")
    with pytest.raises(InputError, match=r"row 2: 'P3' may be any of P3\.jpg, P3\.png; write the whole name"):
        valid_data_loader(images, in_table(tmp_path, "P3,0"))
    with pytest.raises(InputError, match="N2.jpg: no such image"):  # another suffix is another image
        valid_data_loader(images, in_table(tmp_path, "N2.jpg,0"))


def test_a_corrected_workbook_beside_the_table_is_told(images, tmp_path, capsys):
    log_once.cache_clear()
    book = openpyxl.Workbook()
    for row in (["imgName", "Label"], ["P3.png", 1], ["N1.png", 0]):
        book.active.append(row)
    book.save(tmp_path / "Classification Labels.xlsx")
    table = in_table(tmp_path, "P3.png,1", "N1.png,1").rename(tmp_path / "labels.csv")
    for _ in range(2):
        assert valid_data_loader(images, table).labels == [1, 1]
    told = capsys.readouterr().err
    assert (
        told.count("labels.csv has other labels or groups for 1 images (first: N1.png) than Classification Labels.xlsx")
        == 1
    )
    assert "labels.csv is used" in told
    assert f"python tools/xlsx2csv.py '{tmp_path / 'Classification Labels.xlsx'}' {table}" in told


def png(side, *names):
    """A PNG that claims side x side pixels, and has empty chunks of these names instead."""
    header = struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), *((name, b"") for name in names))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


# a JPEG of noise without its second half
CUT = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
CUT = CUT[: len(CUT) // 2] + b"\xff\xd9"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not an image", ""),
        (b"\xff\xd8\xff\xe0 cut", " (it is truncated)"),
        (png(1_000_000), " (it is truncated)"),
        (png(20_000, b"IDAT", b"IEND"), " (it has more than 100,000,000 pixels)"),
        (CUT, " (corrupt JPEG data: premature end of data segment)"),
    ],
    ids=["text", "cut", "terapixels", "400 million pixels", "cut before its end marker"],
)
def test_an_image_that_does_not_decode(images, content, why):
    (images / "P1.png").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"P1.png: not an image that can be decoded{why}; replace")):
        list(data_loader(images, mode="valid")())


@pytest.mark.parametrize("table", [False, True])
def test_an_empty_file_is_refused_before_the_first_batch(images, tmp_path, table):
    (images / "P1.png").write_bytes(b"")
    (tmp_path / "own.csv").write_text("imgName,Label\nP3.png,0\nP1.png,1\n")
    with pytest.raises(InputError, match=r"P1\.png: empty \(0 bytes\)"):
        valid_data_loader(images, tmp_path / "own.csv") if table else data_loader(images)


def test_skip_bad_passes_over_what_does_not_decode_and_counts_it(images, capsys):
    whole = (images / "P2.png").read_bytes()
    deep = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint16))[1].tobytes()
    bad = {"N1.png": CUT, "N2.png": deep, "P1.png": b"", "P2.png": whole[:-20], "P3.png": b"text"}
    for name, content in bad.items():
        (images / name).write_bytes(content)
    reader = data_loader(images, batch_size=1, mode="train", skip_bad=True)
    for _ in range(2):
        batches = list(reader())
        assert [imgs.shape for imgs, _ in batches] == [(1, 3, 224, 224)] * 2  # and no empty batch
        assert sorted(float(labels[0, 0]) for _, labels in batches) == [0, 1]
    told = capsys.readouterr().err.splitlines()
    assert told.count("5 of 7 training images are skipped.") == 1
    assert (reader.num_samples, reader.num_batches) == (2, 2)
    assert sorted(line.partition("png: ")[2] for line in told if line.startswith("Skipped: ")) == [
        "16 bits per channel, and only images of 8 are read; save it as PNG or JPEG of 8 bits.",
        "not an image that can be decoded (corrupt JPEG data: premature end of data segment); replace the file or "
        "remove it.",
        "not an image that can be decoded (it is empty); replace the file or remove it.",
        "not an image that can be decoded (it is truncated); replace the file or remove it.",
        "not an image that can be decoded; replace the file or remove it.",
    ]


def test_skip_bad_has_its_limits(images):
    with pytest.raises(ValueError, match="for training only"):
        data_loader(images, mode="valid", skip_bad=True)
    for path in images.iterdir():
        path.write_bytes(b"text")
    with pytest.raises(InputError, match="none of its 7 images can be decoded"):
        data_loader(images, skip_bad=True)


def test_a_lack_of_memory_is_no_fault_of_an_image(images, monkeypatch):
    """Told as one, --skip-bad would leave good images out."""

    def imdecode(*_):
        raise cv2.error("OpenCV(4.11.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    with pytest.raises(MemoryError):
        data_loader(images, skip_bad=True, cache=False)


def test_wrong_arguments(images):
    with pytest.raises(ValueError, match="mode 'Train'"):
        data_loader(images, mode="Train")
    with pytest.raises(ValueError, match="batch_size 0"):
        data_loader(images, batch_size=0)
