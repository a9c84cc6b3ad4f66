import multiprocessing
import os
import random
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palm_cls.core import console
from palm_cls.core.errors import InputError
from palm_cls.data import cache as cache_module
from palm_cls.data import pipeline
from palm_cls.data.cache import ImageCache
from palm_cls.data.images import read_image, resize
from palm_cls.data.loaders import data_loader

FILE = ".palm_cls-224.cache"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A directory of twelve pictures; the user's cache directory is empty; nothing has been told yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    console.log_once.cache_clear()
    directory = tmp_path / "眼底"
    directory.mkdir()
    for k in range(12):
        draw(directory / f"{'NP'[k % 2]}{k:04d}.jpg", k)
    return directory


def draw(path, k):
    img = cv2.resize(np.random.RandomState(k).randint(0, 256, (8, 8, 3), np.uint8), (300, 260))
    path.write_bytes(cv2.imencode(".jpg", img)[1].tobytes())


def epoch(directory, **arguments):
    return [(imgs.tobytes(), labels.tobytes()) for imgs, labels in data_loader(directory, 5, "eval", **arguments)()]


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that the readers decode, in order."""
    names = []

    def noting(path):
        names.append(Path(path).name)
        return read_image(path)

    monkeypatch.setattr(pipeline, "read_image", noting)
    return names


def test_every_epoch_gives_the_same_bytes_and_only_the_first_decodes(images, decoded):
    plain = epoch(images, cache=False)
    assert len(decoded) == 12
    assert epoch(images) == plain
    assert len(decoded) == 24
    assert epoch(images) == plain
    assert len(decoded) == 24
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


def test_names_that_are_not_utf8(images):
    try:
        (images / "N0000.jpg").rename(os.fsdecode(os.fsencode(images) + b"/N\xd1\xdb.jpg"))
    except OSError:
        pytest.skip("this file system takes no such name")
    plain = epoch(images, cache=False)
    assert epoch(images) == epoch(images) == plain


def test_another_process_that_holds_the_cache_locked_is_not_waited_for_image_by_image(images, monkeypatch, capsys):
    plain = epoch(images)
    with ImageCache(images, 224) as cache:
        db = sqlite3.connect(images / FILE, isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        waits = []
        monkeypatch.setattr(cache, "_stop_writing", waits.append)
        for path in images.glob("*.jpg"):
            cache.get_or_compute(path, lambda path: resize(read_image(path)))
        db.close()
    assert [str(error) for error in waits] == ["database is locked"]
    assert epoch(images) == plain


def test_a_directory_that_has_gone_is_not_made_again(images):
    import shutil

    reader = data_loader(images, 5, "eval")
    shutil.rmtree(images)
    with pytest.raises(InputError, match="no such image"):
        list(reader())
    assert not images.exists()


def test_without_a_cache_nothing_is_written(images):
    epoch(images, cache=False)
    assert not list(images.glob(".*"))


def test_a_changed_image_is_decoded_anew_and_the_others_are_not(images, decoded):
    epoch(images)
    decoded.clear()
    draw(images / "P0003.jpg", 99)
    changed = epoch(images)
    assert decoded == ["P0003.jpg"]
    assert changed == epoch(images, cache=False)
    decoded.clear()
    status = (images / "N0004.jpg").stat()
    os.utime(images / "N0004.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert epoch(images) == changed
    assert decoded == ["N0004.jpg"]


def test_an_image_that_is_turned_in_place_with_its_time_restored_is_decoded_anew(images, decoded):
    path = images / "N0000.jpg"
    head = b"\xff\xd8\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0" + bytes(4)
    pixels = path.read_bytes()[2:]
    path.write_bytes(head % 1 + pixels)
    upright, status = epoch(images), path.stat()
    decoded.clear()
    path.write_bytes(head % 6 + pixels)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert epoch(images) == epoch(images, cache=False) != upright
    assert decoded[0] == "N0000.jpg"


def test_a_corrupt_jpeg_never_enters_the_cache(images):
    path = images / "N0010.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    for _ in range(2):
        with pytest.raises(InputError, match=r"N0010\.jpg: .*corrupt JPEG data"):
            epoch(images)
    with sqlite3.connect(images / FILE) as db:
        assert db.execute("SELECT count(*) FROM images WHERE name = ?", (b"N0010.jpg",)).fetchone() == (0,)
    db.close()


def test_another_version_of_opencv_may_decode_otherwise(images, decoded, monkeypatch):
    epoch(images)
    monkeypatch.setattr(cache_module, "DECODER", "another one")
    decoded.clear()
    epoch(images)
    assert len(decoded) == 12


def test_an_image_that_is_replaced_while_it_is_read_is_not_kept_for_the_new_one(images):
    path = images / "N0000.jpg"

    def slow(path):
        img = resize(read_image(path))
        draw(path, 55)
        return img

    with ImageCache(images, 224) as cache:
        cache.get_or_compute(path, slow)
        np.testing.assert_array_equal(
            cache.get_or_compute(path, lambda path: resize(read_image(path))), resize(read_image(path))
        )


def test_images_that_are_gone_make_room(images):
    epoch(images)
    for k in range(6):
        (images / f"{'NP'[k % 2]}{k:04d}.jpg").rename(images / f"{'NP'[k % 2]}{k + 500:04d}.jpg")
    before = (images / FILE).stat().st_size
    epoch(images)
    assert (images / FILE).stat().st_size == before
    with sqlite3.connect(images / FILE) as db:
        assert db.execute("SELECT count(*) FROM images").fetchone() == (12,)
    db.close()


def test_it_is_bounded(images, monkeypatch, capsys, decoded):
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1_000_000)
    plain = epoch(images, cache=False)
    assert epoch(images) == epoch(images) == plain
    assert (images / FILE).stat().st_size <= 1_000_000
    decoded.clear()
    assert epoch(images) == plain
    assert 0 < len(decoded) < 12  # the ones that are there stay there
    assert capsys.readouterr().err.count("are decoded again") == 1


def test_the_last_gigabyte_of_the_disk_is_left_free(images, monkeypatch, capsys):
    monkeypatch.setattr(cache_module, "MIN_FREE_BYTES", 1 << 62)
    assert epoch(images) == epoch(images, cache=False)
    assert "the disk is nearly full" in capsys.readouterr().err
    assert (images / FILE).stat().st_size < 100_000


def test_place_and_size_are_told_once(images, capsys):
    epoch(images)
    epoch(images)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if "Resized images" in line]
    assert told == [f"Resized images are kept in {images / FILE}, 151 kB each (not with --no-cache)."]
    assert not [line for line in lines if "no images, passed over" in line]


def test_a_directory_that_cannot_be_written(images, decoded, capsys):
    (images / FILE).mkdir()  # which stands in the way whoever the user is
    plain = epoch(images)
    assert epoch(images) == plain
    assert len(decoded) == 12
    (elsewhere,) = Path(os.environ["XDG_CACHE_HOME"], "palm_cls").iterdir()
    assert str(elsewhere) in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory(images):
    images.chmod(0o555)
    try:
        assert epoch(images) == epoch(images, cache=False)
        assert list(Path(os.environ["XDG_CACHE_HOME"], "palm_cls").iterdir())
    finally:
        images.chmod(0o755)


def test_nowhere_to_write(images, monkeypatch, capsys, tmp_path):
    (images / FILE).mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert epoch(images) == epoch(images, cache=False)
    assert "no cache of resized images can be written" in capsys.readouterr().err


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_found_and_mended(images, decoded, data):
    plain = epoch(images, cache=False)
    file = images / FILE
    file.unlink(missing_ok=True)  # of the example before
    epoch(images)
    content = bytearray(file.read_bytes())
    places = st.floats(0, 1, exclude_max=True).map(lambda share: int(share * len(content)))  # it is not always as long
    for position in data.draw(st.lists(places, min_size=1, max_size=20)):
        content[position] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    file.write_bytes(content)
    for _ in range(3):  # meets it and at the latest removes the file; decodes what is missing; decodes nothing
        decoded.clear()
        assert epoch(images) == plain
    assert decoded == []


@pytest.mark.parametrize("version", [0, 2, 3, 255])  # 2: a journal of another kind; above: read-only to SQLite
def test_a_damaged_header_that_forbids_writing(images, decoded, version):
    plain = epoch(images)
    content = bytearray((images / FILE).read_bytes())
    content[18] = version
    (images / FILE).write_bytes(content)
    draw(images / "N0000.jpg", 0)
    os.utime(images / "N0000.jpg", ns=(0, 0))  # so that something must be written
    for _ in range(3):
        decoded.clear()
        assert epoch(images) == plain
    assert decoded == []
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


def test_a_cache_that_another_process_began_anew_is_left_alone(images):
    epoch(images)
    with ImageCache(images, 224) as cache:
        (images / FILE).unlink()
        epoch(images)
        anew = (images / FILE).stat().st_ino
        draw(images / "N0000.jpg", 77)
        cache.get_or_compute(images / "N0000.jpg", lambda path: resize(read_image(path)))  # to a file without a name
    assert (images / FILE).stat().st_ino == anew


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET pixels = (SELECT pixels FROM images LIMIT 1)",
        "UPDATE images SET pixels = CAST(zeroblob(150528) AS TEXT)",
        "UPDATE images SET pixels = NULL, checksum = 'x'",
        "UPDATE images SET name = CAST(x'ff' || name AS TEXT)",
        "UPDATE images SET name = zeroblob(5000) || name",
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN UPDATE images SET pixels = zeroblob(150528); END",
        "DROP TABLE images; CREATE TABLE images (name, state, checksum)",
    ],
)
def test_content_that_is_not_ours(images, decoded, statement):
    plain = epoch(images)
    db = sqlite3.connect(images / FILE)
    db.executescript(statement)
    db.close()
    for _ in range(3):
        decoded.clear()
        assert epoch(images) == plain
    assert decoded == []


def read_often(directory, expected, wrong):
    for round_ in range(6):
        random.seed(os.getpid() + round_)
        if round_ % 2:
            os.utime(directory / f"P{random.randrange(6) * 2 + 1:04d}.jpg")
        if epoch(directory) != expected:
            wrong.value += 1


def test_two_processes_at_once(images):
    context = multiprocessing.get_context("spawn")
    wrong = context.Value("i", 0)
    expected = epoch(images, cache=False)
    processes = [context.Process(target=read_often, args=(images, expected, wrong)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert wrong.value == 0
    with sqlite3.connect(images / FILE) as db:
        assert db.execute("SELECT count(*) FROM images").fetchone() == (12,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_an_epoch_that_is_left_early_leaves_no_thread_and_no_open_file(images):
    import threading

    before = threading.active_count()
    batches = data_loader(images, 1, "eval")()
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    if Path("/proc/self/fd").is_dir():
        assert not [fd for fd in Path("/proc/self/fd").iterdir() if str(images) in os.path.realpath(fd)]


def test_a_bad_image_is_met_in_its_turn(images):
    (images / "N0010.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    batches = data_loader(images, 2, "eval")()
    assert len([next(batches), next(batches)]) == 2  # N0000 and N0002, N0004 and N0006
    with pytest.raises(InputError, match=r"N0010\.jpg: not an image"):
        next(batches)
