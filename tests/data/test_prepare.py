import io
import os
import stat
import tarfile
import zipfile

import pytest
from helpers.files import make_zip, nested, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.core.errors import InputError
from palm_cls.data.prepare import HARMLESS, NESTED, unpack

IMAGES = {f"PALM-Training400/P{i:04d}.jpg": os.urandom(3000) for i in range(5)}


@pytest.fixture
def training(tmp_path):
    inner = {**IMAGES, "PALM-Training400/.DS_Store": b"x", "__MACOSX/PALM-Training400/._P0000.jpg": b"x"}
    members = {"PALM-Training400/": b"", "PALM-Training400/PALM-Training400.zip": nested(inner), "notes.txt": b"hello"}
    return make_zip(tmp_path / "training.zip", members)


def test_nested_archive_is_unpacked_where_it_lies_and_twice_changes_nothing(training, tmp_path):
    target = tmp_path / "target"
    assert unpack(training, target) == 6
    first = tree(target)
    assert {name: content for name, (content, _) in first.items()} == {
        "notes.txt": b"hello",
        **{f"PALM-Training400/{name}": content for name, content in IMAGES.items()},
    }
    assert unpack(training, target) == 0
    assert tree(target) == first


def test_an_interrupted_unpacking_is_completed(training, tmp_path):
    target = tmp_path / "target"
    unpack(training, target)
    first = tree(target)
    folder = target / "PALM-Training400" / "PALM-Training400"
    (folder / "P0000.jpg").unlink()
    (folder / "P0001.jpg").write_bytes(IMAGES["PALM-Training400/P0001.jpg"][:100])  # half of it
    (folder / "P0002.jpg").write_bytes(bytes(3000))  # right in size only
    assert unpack(training, target) == 3
    assert {name: content for name, (content, _) in tree(target).items()} == {
        name: content for name, (content, _) in first.items()
    }


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:\\evil.txt", "..\\evil.txt", "a\\..\\..\\evil.txt", "C:evil"],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_member_outside_the_target_is_refused_before_anything_is_written(tmp_path, name, inside):
    members = {"good.txt": b"good", name: b"evil"}
    if inside:
        members = {"PALM-Training400/PALM-Training400.zip": nested(members)}
    archive = make_zip(tmp_path / "a.zip", members)
    with pytest.raises(InputError, match="outside the target"):
        unpack(archive, tmp_path / "deep" / "target")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_links_and_encrypted_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "a.zip", {})
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        unpack(archive, tmp_path / "target")

    archive = make_zip(tmp_path / "b.zip", {"a.txt": b"secret"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag "encrypted" of the local header ...
    content[content.index(b"PK\x01\x02") + 8] |= 1  # ... and of the directory
    archive.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        unpack(archive, tmp_path / "target")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("a.txt", b"1"), ("b.txt", b"2"), ("./a.txt", b"3")], "holds 'a.txt' twice"),
        ([("a/b.txt", b"1"), ("a", b"2")], "holds 'a' as file and as directory"),
        ([(".", b"1")], "no usable name"),
        ([("x" * 201, b"1")], "no usable name"),
        ([("zeros", bytes(HARMLESS + 1))], "made to fill the disk"),
    ],
)
def test_archives_that_contradict_themselves_or_grow_too_large_are_refused_whole(tmp_path, members, told):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    with pytest.raises(InputError, match=told):
        unpack(tmp_path / "a.zip", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_is_in_the_way_is_named_and_links_are_not_followed_out_of_the_target(tmp_path):
    archive, target = make_zip(tmp_path / "a.zip", {"a/b.txt": b"text"}), tmp_path / "target"
    (target / "a" / "b.txt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"b\.txt: a directory, where .*a\.zip holds a file"):
        unpack(archive, target)
    (target / "a" / "b.txt").rmdir()
    (target / "a").rmdir()
    (target / "a").write_bytes(b"")
    with pytest.raises(InputError, match=r"a: a file, where .*a\.zip needs a directory"):
        unpack(archive, target)
    (target / "a").unlink()
    (tmp_path / "beside").mkdir()
    (target / "a").symlink_to(tmp_path / "beside", target_is_directory=True)
    with pytest.raises(InputError, match="leads outside .*target through a link"):
        unpack(archive, target)
    assert list((tmp_path / "beside").iterdir()) == []


def test_a_target_reached_through_a_link_is_none_the_worse(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert unpack(make_zip(tmp_path / "a.zip", {"a/b.txt": b"text"}), tmp_path / "target") == 1
    assert (tmp_path / "disk" / "a" / "b.txt").read_bytes() == b"text"


def test_only_the_outer_one_of_nested_archives_is_unpacked(tmp_path):
    inner = nested({NESTED: nested({NESTED: b"", "c.txt": b"3"}), "b.txt": b"2"})
    unpack(make_zip(tmp_path / "a.zip", {NESTED: inner, "a.txt": b"1"}), tmp_path / "target")
    assert sorted(tree(tmp_path / "target")) == [NESTED, "a.txt", "b.txt"]


@pytest.mark.parametrize("damage", ["no zip", "cut", "flipped"])
def test_damaged_archives_are_refused_and_leave_no_half_file(training, tmp_path, damage):
    content = bytearray(training.read_bytes())
    if damage == "no zip":
        content = bytearray(b"404 not found")
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    training.write_bytes(content)
    with pytest.raises(InputError, match=r"training\.zip.*(damaged|cut off)"):
        unpack(training, tmp_path / "target")
    whole = {**IMAGES, "notes.txt": b"hello"}
    for name, (written, _) in tree(tmp_path / "target").items():
        assert written == whole.get(name.replace("PALM-Training400/PALM-", "PALM-"))


def zip_with_raw_names(members):
    """A zip whose names are these bytes, without the flag for UTF-8, as old tools write them."""
    placeholders = {bytes([65 + i]) * len(name): name for i, name in enumerate(members)}
    content = nested({name.decode(): members[raw] for name, raw in placeholders.items()})
    for name, raw in placeholders.items():
        content = content.replace(name, raw)
    return content


NAME = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA0) | st.sampled_from("aP0_ "), min_size=4)


@settings(deadline=None, max_examples=50)
@given(
    folder=NAME.map(lambda name: f"{name}眼底".strip()),
    name=NAME.map(lambda name: f"誠{name}.jpg"),  # in GBK its second byte is a backslash
    separator=st.sampled_from("/\\"),
    encoding=st.sampled_from(("gb18030", "utf-8")),
)
def test_names_are_those_that_the_packer_meant(tmp_path_factory, folder, name, separator, encoding):
    folder, name = folder[-20:], name[:20]
    raw = f"{folder}{separator}{name}".encode(encoding)
    if encoding != "utf-8":
        with pytest.raises(UnicodeDecodeError):
            raw.decode("utf-8")
    place = tmp_path_factory.mktemp("names")
    (place / "a.zip").write_bytes(zip_with_raw_names({raw: b"photo", f"{folder}{separator}".encode(encoding): b""}))
    assert unpack(place / "a.zip", place / "target") == 1
    assert list(tree(place / "target")) == [f"{folder}/{name}"]
    assert unpack(place / "a.zip", place / "target") == 0


def test_names_are_decoded_from_what_windows_leaves_of_them(tmp_path, monkeypatch):
    """There zipfile replaces every backslash, half of a Chinese character, too, before anybody sees the name."""
    (tmp_path / "a.zip").write_bytes(zip_with_raw_names({"誠\\眼底.jpg".encode("gbk"): b"photo"}))
    initialise = zipfile.ZipInfo.__init__

    def of_windows(self, *args, **options):
        initialise(self, *args, **options)
        self.filename = self.filename.replace("\\", "/")

    monkeypatch.setattr(zipfile.ZipInfo, "__init__", of_windows)
    unpack(tmp_path / "a.zip", tmp_path / "target")
    assert list(tree(tmp_path / "target")) == ["誠/眼底.jpg"]


def test_one_archive_has_one_encoding(tmp_path):
    """ "一" in GBK is a letter of Cyrillic in UTF-8; the other names tell which it is."""
    names = ("一.jpg", "眼底.jpg")
    (tmp_path / "a.zip").write_bytes(zip_with_raw_names({name.encode("gbk"): b"photo" for name in names}))
    unpack(tmp_path / "a.zip", tmp_path / "target")
    assert sorted(tree(tmp_path / "target")) == sorted(names)


def test_names_of_neither_encoding_stay_as_zipfile_has_them(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_with_raw_names({b"caf\x82.jpg": b"photo"}))
    unpack(tmp_path / "a.zip", tmp_path / "target")
    assert list(tree(tmp_path / "target")) == ["caf\u00e9.jpg"]


def test_backslashes_do_not_hide_a_member_in_the_place_of_another(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a/b.txt": b"1", "a\\b.txt": b"2"})
    with pytest.raises(InputError, match=r"holds 'a/b\.txt' twice"):
        unpack(archive, tmp_path / "target")
    make_zip(archive, {"__MACOSX\\a.jpg": b"1", "a\\": b"", "a\\.DS_Store": b"2"})
    assert unpack(archive, tmp_path / "target") == 0


def tar(mode):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        info = tarfile.TarInfo("training.zip")  # of which an uncompressed tar holds the end record
        content = nested({"a.txt": b"text"})
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def last_part():
    content = bytearray(nested({"a.txt": b"text"}))
    content[content.index(b"PK\5\6") + 4] = 1  # number of this part
    return bytes(content)


NO_ZIPS = [
    (b"", "an empty file, not a zip; copy or download it again"),
    (b"\r\n<!DOCTYPE html><html>", "a web page, not a zip; download the file itself"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not a zip; .*git lfs pull"),
    (b"Rar!\x1a\x07\x01\x00", "a RAR archive, not a zip; unpack it by hand, and pack what it holds as a zip"),
    (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
    (tar("w:gz"), r"a gzip file \(\.tar\.gz, \.gz\), not a zip; unpack it by hand"),
    (tar("w:bz2"), "a bzip2 file"),
    (tar("w:xz"), "an xz file"),
    (tar("w"), "a tar archive"),
    (b"PK\7\x08" + nested({"a.txt": b"text"}), "a part of a split zip archive, not a zip; join its parts"),
    (last_part(), "a part of a split zip archive"),
    (nested({"a.txt": b"text"})[:-30], "a zip without its end: cut off, or a part of a split one"),
    (nested({"a.txt": b"text" * 99})[20:], "damaged, no zip file, or a part of one"),
]


@pytest.mark.parametrize(("content", "told"), NO_ZIPS, ids=[told.partition(",")[0] for _, told in NO_ZIPS])
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_zip_is_named(tmp_path, content, told, inside):
    archive, name = tmp_path / "training.zip", r"training\.zip"
    archive.write_bytes(nested({NESTED: content}) if inside else content)
    with pytest.raises(InputError, match=(rf"{name}/{NESTED}" if inside else name) + f": {told}"):
        unpack(archive, tmp_path / "target")
    assert tree(tmp_path / "target") == {}
