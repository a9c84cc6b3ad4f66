import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
from helpers.folders import encoded, write_folders
from helpers.processes import assert_refused
from PIL import Image

from palm_cls.core.errors import InputError
from palm_cls.data.checks import ISSUE_TYPES, check_data, similar_groups
from palm_cls.data.decode import is_truncated
from palm_cls.data.images import read_image
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import detect_layout
from palm_cls.data.photos import find_photos, photo_loader

TRAINING = Path("PALM-Training400", "PALM-Training400")
VALIDATION = Path("PALM-Validation400")
TABLE = Path("PALM-Validation-GT", "labels.csv")


def picture(seed, size=256):
    """Coloured clouds, uint8 [size, size, 3]: two seeds are two eyes."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def write_images(root, counts, size=256):
    """Write images, no two alike, into folders."""
    number_of = {folder: number for number, folder in enumerate(counts)}
    return write_folders(root, counts, lambda folder, image: encoded(picture([number_of[folder], image], size)))


def from_pillow(img, format, mode="RGB", **options):
    content = io.BytesIO()
    Image.fromarray(img[:, :, ::-1]).convert(mode).save(content, format, **options)
    return content.getvalue()


@pytest.fixture
def clean(tmp_path):
    """A small set without fault: 4 training images, 4 validation images with their table."""
    root = tmp_path / "数据 {0}"
    for folder in (TRAINING, VALIDATION, TABLE.parent):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate(["H1.jpg", "N1.jpg", "P1.jpg", "P2.JPG"]):
        (root / TRAINING / name).write_bytes(encoded(picture(seed)))
    for seed in range(1, 5):
        (root / VALIDATION / f"V{seed}.jpg").write_bytes(encoded(picture(100 + seed)))
    write_table(root, "1,V1.jpg,0,100,120", "2,V2.jpg,1,50.5,20", "3,V3.jpg,0,255,255", "4,V4.jpg,1,0,1")
    return root


def write_table(root, *rows):
    (root / TABLE).write_text("\n".join(["ID,imgName,Label,Fovea_X,Fovea_Y", *rows]))


def found(root, **options):
    """[(kind, (file name, ...)), ...] of what is found."""
    report = check_data(*find_photos(DataOptions(root, **options)))
    assert all(finding.level == ISSUE_TYPES[finding.kind][0] for finding in report.issues)
    return [(finding.kind, tuple(Path(file).name for file in finding.files)) for finding in report.issues]


def test_a_clean_set(clean, tool):
    report = check_data(detect_layout(clean))
    assert report.issues == []
    assert report.splits["training"] == {
        "images": 4,
        "classes": {0: 2, 1: 2},
        "sizes": {"256x256": 4},
        "channels": {"colour": 4},
        "formats": {"JPEG": 4},
    }
    done = tool("check_data", "--data", clean)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "training: 4 images; 2 label 0, 2 label 1",
        "    4 256x256; 4 colour; 4 JPEG",
        "validation: 4 images; 2 label 0, 2 label 1",
        "    4 256x256; 4 colour; 4 JPEG",
        "errors: 0, warnings: 0",
    ]


def test_the_demo_set_is_clean(small_demo, tool):
    done = tool("check_data", "--data", small_demo)
    assert done.returncode == 0, done.stdout
    assert "tells nothing about eyes" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>Log in</title>", "not-an-image"),
        (encoded(picture(9))[:-300], "truncated"),
        (encoded(picture(9), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[:-300], "truncated"),
        (encoded(picture(9), ".png")[:-300], "truncated"),
        (encoded(picture(9))[:4000] + bytes(9000), "truncated"),  # as an interrupted download may leave it
        (encoded(picture(9), ".png").replace(b"IDAT", b"XDAT"), "damaged"),
        (encoded(picture(9))[:4000] + b"\xff\xd9", "damaged"),
        (encoded(256 * picture(9).astype(np.uint16), ".png"), "depth"),
        (encoded(picture(9).astype(np.float32), ".tiff"), "depth"),
        (from_pillow(picture(9), "JPEG", "L"), "channels"),
        (from_pillow(picture(9), "JPEG", "CMYK"), "channels"),
        (encoded(picture(9, 200)), "small"),
        (encoded(np.full((256, 256, 3), 90, np.uint8)), "blank"),
        (encoded(picture(9), ".png"), "wrong-name"),
        (from_pillow(picture(9), "TIFF"), "wrong-name"),
    ],
)
def test_a_file(clean, content, kind):
    (clean / TRAINING / "P3.jpg").write_bytes(content)
    assert (kind, ("P3.jpg",)) in found(clean)
    assert {other for other, _ in found(clean)} <= {kind, "channels"}  # of a TIFF they are not known


def test_channels_of_png(clean):
    grey = picture(9)[:, :, 0]
    for name, img in {
        "N2.png": grey,
        "N3.png": 256 * picture(10).astype(np.uint16),
        "N4.png": np.dstack([picture(11), grey]),
        "N5.png": 256 * picture(12)[:, :, 0].astype(np.uint16),
        "N6.png": picture(13),
    }.items():
        (clean / TRAINING / name).write_bytes(encoded(img, ".png"))
    findings = check_data(detect_layout(clean)).issues
    assert [(Path(finding.files[0]).name, finding.text) for finding in findings] == [
        ("N3.png", "PNG: 16 bits per channel"),
        ("N5.png", "PNG: 16 bits per channel"),
        ("N2.png", "grey"),
        ("N4.png", "colour with alpha"),
    ]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, even by root")
def test_a_file_that_cannot_be_read(clean):
    (clean / TRAINING / "P3.jpg").symlink_to("/proc/self/mem")
    assert found(clean) == [("unreadable", ("P3.jpg",))]


def test_truncation_is_told_from_what_looks_like_it(tmp_path):
    thumbnail = encoded(picture(1, 32))
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    for options in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)):
        plain = encoded(picture(2), ".jpg", *options)
        with_thumbnail = plain[:2] + segment + plain[2:]
        for whole in (plain, with_thumbnail, with_thumbnail + b"maker's notes \xff\xd8\xff\xda"):
            assert not is_truncated(whole)
        for length in [*range(3, len(with_thumbnail), 97), len(with_thumbnail) - 1]:
            assert is_truncated(with_thumbnail[:length])
        path = tmp_path / "cut.jpg"
        path.write_bytes(with_thumbnail[:-1000])
        with pytest.raises(InputError, match=r"cut\.jpg: .*\(it is truncated\)"):
            read_image(path)
    png = encoded(picture(2), ".png")
    assert not is_truncated(png)
    assert not is_truncated(png + b"more")
    assert all(is_truncated(png[:length]) for length in [*range(8, len(png), 997), len(png) - 1])
    assert not is_truncated(b"")


def test_names_and_labels(clean):
    shutil.copy(clean / TRAINING / "P1.jpg", clean / TRAINING / "x.jpg")
    (clean / TRAINING / "x.jpg").write_bytes(encoded(picture(20)))
    (clean / TRAINING / "P9.jpg.part").write_bytes(encoded(picture(21)))
    (clean / TRAINING / "BMI.csv").write_text("BMI,age\n")
    write_table(clean, "1,V1.jpg,0", "2,V2.JPG,1", "3,V3.jpg,0")
    assert found(clean) == [
        ("no-label", ("x.jpg",)),
        ("no-image", ("V2.JPG",)),
        ("unlisted", ("V2.jpg",)),
        ("unlisted", ("V4.jpg",)),
        ("wrong-name", ("P9.jpg.part",)),
        ("balance", ()),
    ]
    texts = [finding.text for finding in check_data(detect_layout(clean)).issues]
    assert texts[1] == "row 3; there is V2.jpg"
    assert texts[-1] == "0 of 2 labelled validation images have label 1"


def test_a_table_of_training_labels(clean, tmp_path):
    (tmp_path / "own.csv").write_text("imgName,Label\nH1.jpg,1\nN1.jpg,0\nP7.jpg,0\n")
    assert found(clean, train_csv=tmp_path / "own.csv") == [
        ("no-image", ("P7.jpg",)),
        ("unlisted", ("P1.jpg",)),
        ("unlisted", ("P2.JPG",)),
    ]


def test_tables_that_contradict_themselves_or_the_workbook_beside_them(clean):
    write_table(clean, "1,V1.jpg,0", "2,V2.jpg,1", "3,V3.jpg,0", "4,./V1.jpg,1")
    assert found(clean)[0] == ("no-labels", ())
    write_table(clean)
    assert found(clean)[0] == ("no-labels", ())
    write_table(clean, "1,V1,0", "2,V2,1", "3,V3.jpg,0", "4,V4.jpg,1")
    assert found(clean) == []
    book = openpyxl.Workbook()
    for row in (["imgName", "Label"], ["V1", 0], ["V2", 1], ["V3.jpg", 1], ["V5.jpg", 1]):
        book.active.append(row)
    book.save((clean / TABLE).with_name("PM_Label_and_Fovea_Location.xlsx"))
    (finding,) = check_data(detect_layout(clean)).issues
    assert (finding.level, finding.kind, finding.files) == ("warning", "other-labels", (TABLE.as_posix(),))
    assert finding.text.startswith("has other labels or groups for 3 images (first: V3.jpg) than PM_Label")
    book.active["B2"] = "=1-0"
    book.save((clean / TABLE).with_name("PM_Label_and_Fovea_Location.xlsx"))
    (finding,) = check_data(detect_layout(clean)).issues
    assert "cannot be compared with" in finding.text
    assert "row 2: a formula without its value" in finding.text


def test_what_is_missing_altogether_hides_nothing_else(clean, tool):
    shutil.rmtree(clean / VALIDATION)
    (clean / TABLE).unlink()
    (clean / TRAINING / "P2.JPG").write_bytes(b"")
    assert found(clean) == [("no-images", ()), ("no-labels", ()), ("empty", ("P2.JPG",))]
    done = tool("check_data", "--data", clean)
    assert done.returncode == 2
    assert "errors: 3, warnings: 0" in done.stdout
    assert "no validation images; expected them in PALM-Validation400" in done.stdout


def test_a_faulty_table_and_names_that_tell_nothing(clean):
    write_table(clean, "1,V1.jpg,2")
    for path in (clean / TRAINING).iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    assert [kind for kind, _ in found(clean)] == ["no-labels"] + 4 * ["no-label"]


def test_copies_are_found_across_the_splits_and_within(clean):
    n1, p1, v1 = (
        read_image(clean / path) for path in (TRAINING / "N1.jpg", TRAINING / "P1.jpg", VALIDATION / "V1.jpg")
    )
    shutil.copy(clean / TRAINING / "H1.jpg", clean / VALIDATION / "V2.jpg")
    smaller = cv2.resize(n1, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_LINEAR)
    (clean / VALIDATION / "V3.jpg").write_bytes(encoded(smaller, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60))
    (clean / TRAINING / "P5.png").write_bytes(encoded(p1, ".png"))
    (clean / VALIDATION / "V4.jpg").write_bytes((clean / VALIDATION / "V1.jpg").read_bytes())
    (clean / VALIDATION / "V5.jpg").write_bytes(encoded(cv2.flip(v1, 1)))  # mirrored: another image
    assert found(clean) == [
        ("identical-leak", ("H1.jpg", "V2.jpg")),
        ("similar-leak", ("N1.jpg", "V3.jpg")),
        ("identical", ("V1.jpg", "V4.jpg")),
        ("similar", ("P1.jpg", "P5.png")),
        ("unlisted", ("V5.jpg",)),
        ("fovea-outside", ("V3.jpg",)),
    ]
    texts = [finding.text for finding in check_data(detect_layout(clean)).issues]
    assert texts[:4] == ["their labels differ: 0, 1", "", "their labels differ: 0, 1", ""]


@pytest.fixture
def folders(tmp_path):
    """Three classes in train/, val/ and test/ without fault: 4, 2 and 2 images of each."""
    counts = {"train": 4, "val": 2, "test": 2}
    return write_images(
        tmp_path, {f"{split}/{label}": number for split, number in counts.items() for label in ("N", "né", "病理")}, 224
    )


def test_a_folder_for_each_class(folders, tool):
    assert found(folders) == []
    done = tool("check_data", "--data", folders, "--classes", "病理,né,N")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1::2] == [
        "training: 12 images; 4 病理, 4 né, 4 N",
        "validation: 6 images; 2 病理, 2 né, 2 N",
        "test: 6 images; 2 病理, 2 né, 2 N",
        "errors: 0, warnings: 0",
    ]
    assert check_data(*find_photos(DataOptions(folders / "train"))).splits["all"]["classes"] == {
        "N": 4,
        "né": 4,
        "病理": 4,
    }


def test_faults_in_folders(folders, tool_here):
    (folders / "train" / "N" / "copy.jpg").write_bytes((folders / "train" / "né" / "0.jpg").read_bytes())
    (folders / "train" / "N" / "shared.jpg").write_bytes((folders / "test" / "N" / "0.jpg").read_bytes())
    (folders / "train" / "N" / "5.webp").write_bytes(from_pillow(picture(5), "WEBP"))
    shutil.copy(folders / "train" / "N" / "1.jpg", folders / "train" / "loose.jpg")
    shutil.rmtree(folders / "val" / "N")
    (folders / "val" / "other").mkdir()
    (folders / "val" / "other" / "cut.jpg").write_bytes(encoded(picture(9))[:-300])
    report = check_data(*find_photos(DataOptions(folders)))
    assert [
        (issue.level, issue.kind, issue.files, issue.text) for issue in report.issues if issue.kind != "truncated"
    ] == [
        ("error", "no-images", (), "no validation image of class N"),
        ("error", "no-label", ("val/other/cut.jpg",), "its folder is none of the classes"),
        ("error", "two-classes", ("train/N/copy.jpg", "train/né/0.jpg"), "their labels differ: N, né"),
        ("warning", "identical-leak", ("train/N/shared.jpg", "test/N/0.jpg"), "in training and test"),
        ("warning", "unlisted", ("train/loose.jpg",), "in no folder of a class"),
        ("warning", "wrong-name", ("train/N/5.webp",), "a WebP file, not used under this name"),
    ]
    assert (
        "    train/N/copy.jpg = train/né/0.jpg: their labels differ: N, né"
        in tool_here("check_data", "--data", folders).stdout.splitlines()
    )
    shutil.rmtree(folders / "val")
    assert found(folders)[0] == ("no-images", ())


def test_a_rare_class_among_many(tmp_path):
    write_images(tmp_path, {label: 6 if label != "J" else 1 for label in "ABCDEFGHIJKL"}, 224)
    cannot_divide, rare = check_data(*find_photos(DataOptions(tmp_path))).issues
    assert (rare.kind, rare.text) == ("balance", "1 of 67 labelled images have label J")
    assert (cannot_divide.level, cannot_divide.kind) == ("error", "too-few")
    assert "1 image of class J cannot be divided" in cannot_divide.text
    assert not list(tmp_path.glob("*.csv"))
    shutil.copy(tmp_path / "J" / "0.jpg", tmp_path / "J" / "copy.jpg")  # copies stay together
    assert [kind for kind, _ in found(tmp_path)][0] == "too-few"


def test_a_division_of_folders(tmp_path):
    write_images(tmp_path, {"A": 5, "B": 5}, 224)
    dataset, options = find_photos(DataOptions(tmp_path))
    train, valid = (dict(photo_loader(dataset, split, options, write=True).samples) for split in ("train", "valid"))
    (a1, *_, b1, b2), (a2, b3) = train, valid
    report = check_data(dataset, options)
    assert report.issues == []
    assert {name: split["classes"] for name, split in report.splits.items()} == {
        "training": {"A": 4, "B": 4},
        "validation": {"A": 1, "B": 1},
    }
    shutil.copy(a1, a2)
    b3.write_bytes(encoded(read_image(b1), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60))
    (tmp_path / "A" / "5.webp").write_bytes(from_pillow(picture(5), "WEBP"))
    leaks = [("identical-leak", (a1.name, a2.name)), ("similar-leak", (b1.name, b3.name))]
    assert found(tmp_path) == [*leaks, ("wrong-name", ("5.webp",))]
    b2.unlink()  # the others stay divided
    assert found(tmp_path)[:2] == leaks
    shutil.copy(a1, tmp_path / "A" / "new.jpg")
    report = check_data(*find_photos(DataOptions(tmp_path)))
    assert [(issue.level, issue.kind) for issue in report.issues if issue.level == "error"] == [("error", "division")]
    assert "split-0.2.csv: does not list 1 of the images (A/new.jpg is one)" in report.issues[0].text
    assert report.splits.keys() == {"all"}
    assert found(tmp_path, valid_fraction=0.4)[0][0] == "identical"  # not divided in this way yet


def test_a_division_of_a_table(tmp_path):
    write_images(tmp_path, {"eyes": 10}, 224)
    table = tmp_path / "own.csv"
    rows = [f"eyes/{image},{'xy'[image % 2]}" for image in range(10)]
    table.write_text("\n".join(["imgName,Label", *rows]))
    dataset, options = find_photos(DataOptions(tmp_path, train_csv=table))
    assert check_data(dataset, options).splits.keys() == {"all"}
    (held_out, other) = photo_loader(dataset, "valid", options, write=True).samples
    assert found(tmp_path, train_csv=table) == []
    groups = ["p" if image in (int(held_out[0].stem), (int(other[0].stem) + 2) % 10) else "" for image in range(10)]
    table.write_text("\n".join(["imgName,Label,Group", *(f"{row},{group}" for row, group in zip(rows, groups))]))
    assert [kind for kind, _ in found(tmp_path, train_csv=table)] == ["group-leak"]
    divided = tmp_path / "own-split-0.2.csv"  # has a column Split, as a table of the user may
    report = check_data(*find_photos(DataOptions(tmp_path, train_csv=divided)))
    assert {name: split["images"] for name, split in report.splits.items()} == {"training": 8, "validation": 2}
    assert report.issues == []
    divided.write_text(divided.read_text().replace("valid", "train"))
    assert found(tmp_path, train_csv=divided) == [("no-images", ())]


def test_tables_alone(tmp_path, tool):
    write_images(tmp_path, {"a": 6, "b": 6}, 224)
    tables = {
        "train_csv": ["a/0,x,p1", "a/1,2,p1", "a/2,2,p2", "a/9,x,"],
        "valid_csv": ["b/0,x,p3", "b/1,2,p2", "b/2,2,", "a/0,x,p4"],
    }
    for name, rows in tables.items():
        tables[name] = tmp_path / f"{name}.csv"
        tables[name].write_text("\n".join(["imgName,Label,Group", *rows]))
    assert [issue for issue in found(tmp_path, **tables) if issue[0] != "unlisted"] == [
        ("no-image", ("9",)),
        ("identical-leak", ("0.jpg",)),
        ("group-leak", ("2.jpg", "1.jpg")),
    ]
    unlisted = [files for kind, files in found(tmp_path, **tables) if kind == "unlisted"]
    assert unlisted == [("3.jpg",), ("4.jpg",), ("5.jpg",)] * 2
    done = tool("check_data", "--data", tmp_path, "--train-csv", tables["train_csv"])
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.splitlines()[1] == "all: 3 images; 2 label 2, 1 x"
    tables["valid_csv"].write_text("imgName,Label\nb/0,x\nb/1,\n")
    assert_refused(
        tool("check_data", "--data", tmp_path, "--valid-csv", tables["valid_csv"]), "row 3: label '' of 'b/1'"
    )


def test_classes_that_cannot_be_are_one_line(tmp_path, tool_here):
    write_images(tmp_path, {f"{number}": 1 for number in range(101)})
    assert_refused(tool_here("check_data", "--data", tmp_path), f"check_data.py: {tmp_path}: 101 classes")
    assert_refused(tool_here("check_data", "--data", tmp_path / "1"), "no images in a known layout")


def test_the_release_of_2024_with_its_test_images(tmp_path):
    for seed, split in enumerate(("Training", "Validation", "Testing")):
        write_images(tmp_path / split, {"Images": 2 + seed}, 224 + seed)
        rows = [f"{image},{image % 2}" for image in range(2 + seed)]
        (tmp_path / split / "labels.csv").write_text("\n".join(["imgName,Label", *rows]))
    report = check_data(detect_layout(tmp_path))
    assert {name: summary["classes"] for name, summary in report.splits.items()} == {
        "training": {0: 1, 1: 1},
        "validation": {0: 2, 1: 1},
        "test": {0: 2, 1: 2},
    }
    leaks = [(issue.kind, len(issue.files), issue.text) for issue in report.issues]
    assert ("similar-leak", 3, "in training and validation and test") in leaks


def test_groups_of_many_thumbnails():
    thumbnails = np.random.default_rng(0).integers(0, 256, (2500, 32, 32), np.uint8)
    thumbnails[2400] = thumbnails[3]
    thumbnails[1030] = thumbnails[1029] = thumbnails[2000]
    assert similar_groups(thumbnails) == [[3, 2400], [1029, 1030, 2000]]
    assert similar_groups([]) == []


def test_foveas(clean):
    write_table(clean, "1,V1.jpg,0,0,0", "2,V2.jpg,1,256,20", "3,V3.jpg,0,255,255", "4,V4.jpg,1,?,1")
    assert found(clean) == [
        ("fovea-unmarked", ("V1.jpg",)),
        ("fovea-outside", ("V2.jpg",)),
        ("fovea-unreadable", ("V4.jpg",)),
    ]
    write_table(clean, "1,V1.jpg,0,,", "2,V2.jpg,1,1256,1020", "3,V3.jpg,0,255,255", "4,V4.jpg,1,900,1")
    assert found(clean) == [("fovea-resolution", ())]


def test_the_tool_reports_warnings_in_short_and_in_json_in_full(clean, tool):
    for number in range(7):
        (clean / TRAINING / f"P1{number}.jpg").write_bytes(encoded(picture(30 + number, 100 + number)))
    done = tool("check_data", "--data", clean)
    assert done.returncode == 1
    assert f"    {(TRAINING / 'P10.jpg').as_posix()}: 100x100" in done.stdout.splitlines()
    assert "    and 2 more (--json lists them)" in done.stdout.splitlines()
    assert "3 other sizes" in done.stdout
    done = tool("check_data", "--data", clean, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["errors"], told["warnings"]) == (0, 7)
    assert told["findings"][6] == {
        "level": "warning",
        "kind": "small",
        "files": [(TRAINING / "P16.jpg").as_posix()],
        "text": "106x106",
    }
    assert told["splits"]["training"]["classes"] == {"0": 2, "1": 9}


def test_the_real_images(real_palm):
    report = check_data(detect_layout(real_palm))
    assert [(finding.kind, *(Path(file).stem for file in finding.files)) for finding in report.issues] == [
        ("identical-leak", "P0056", "V0163"),
        ("identical", "P0014", "P0072"),
        ("identical", "V0107", "V0160"),
        ("fovea-resolution",),
    ]
    assert report.splits["training"]["classes"] == {0: 187, 1: 213}


def test_a_recompressed_smaller_copy_of_every_real_image_is_found(real_palm):
    def thumbnail(img):
        return cv2.resize(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)

    imgs = [cv2.imread(str(path)) for path in sorted((real_palm / TRAINING).glob("*.jpg"))[::4]]
    copies = [cv2.resize(img, None, fx=0.9, fy=0.9) for img in imgs]
    copies = [cv2.imdecode(cv2.imencode(".jpg", img, (cv2.IMWRITE_JPEG_QUALITY, 60))[1], 1) for img in copies]
    groups = similar_groups([thumbnail(img) for img in imgs + copies])
    assert groups == [[index, index + len(imgs)] for index in range(len(imgs))]
