import io
import os
import stat
import zipfile

import pytest

from palm_cls.archives import HARMLESS, NESTED, unpack
from palm_cls.messages import InputError


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def nested(members):
    buffer = io.BytesIO()
    make_zip(buffer, members)
    return buffer.getvalue()


def tree(root):
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


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
        content = bytearray(b"<html>404</html>")
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    training.write_bytes(content)
    with pytest.raises(InputError, match=r"training\.zip.*(damaged|no zip)"):
        unpack(training, tmp_path / "target")
    whole = {**IMAGES, "notes.txt": b"hello"}
    for name, (written, _) in tree(tmp_path / "target").items():
        assert written == whole.get(name.replace("PALM-Training400/PALM-", "PALM-"))
