import random
import re
import struct
import zlib

import cv2
import numpy as np
import pytest

from palm_cls.images import read_image
from palm_cls.messages import InputError
from palm_cls.readers import data_loader, valid_data_loader


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
    assert [int(reader.photo(name).mean()) for name in reader.order] == [10, 60]


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


def png(side, *names):
    """A PNG that claims side x side pixels, and has empty chunks of these names instead."""
    header = struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), *((name, b"") for name in names))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not an image", ""),
        (b"\xff\xd8\xff\xe0 cut", " (it is truncated)"),
        (png(1_000_000), " (it is truncated)"),
        (png(20_000, b"IDAT", b"IEND"), " (it has more than 100,000,000 pixels)"),
    ],
    ids=["text", "cut", "terapixels", "400 million pixels"],
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
    for name, content in {"P1.png": b"", "P2.png": whole[:-20], "P3.png": b"text"}.items():
        (images / name).write_bytes(content)
    reader = data_loader(images, batch_size=1, mode="train", skip_bad=True)
    for _ in range(2):
        batches = list(reader())
        assert [imgs.shape for imgs, _ in batches] == [(1, 3, 224, 224)] * 4  # and no empty batch
        assert sorted(float(labels[0, 0]) for _, labels in batches) == [0, 0, 0, 1]
    told = capsys.readouterr().err.splitlines()
    assert told.count("3 of 7 training images are skipped.") == 1
    assert (reader.images, reader.batches) == (4, 4)
    assert sorted(line.partition("png: ")[2] for line in told if line.startswith("Skipped: ")) == [
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


def test_decoding_is_that_of_cv2_imread(tmp_path):
    rng = np.random.default_rng(0)
    for name, img in {
        "colour.jpg": rng.integers(0, 256, (40, 50, 3), np.uint8),
        "grey.png": rng.integers(0, 256, (40, 50), np.uint8),
        "alpha.png": rng.integers(0, 256, (40, 50, 4), np.uint8),
        "deep.png": rng.integers(0, 65536, (40, 50), np.uint16),
    }.items():
        path = tmp_path / name
        path.write_bytes(cv2.imencode(path.suffix, img)[1].tobytes())
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))
        assert read_image(path).shape == (40, 50, 3)


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
