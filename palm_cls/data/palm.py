"""Where the images lie: the layouts of the data set, the places where it is looked for, the demo set.

Two layouts are recognised, each with its table of labels as .xlsx or, converted, as `labels.csv` beside it:

    the course's                                               the release of 2024
    PALM-Training400/PALM-Training400/*.jpg                    Training/Images/*.jpg
        or PALM-Training400/*.jpg                              Training/Classification Labels.xlsx
    PALM-Validation400/*.jpg                                   Validation/Images/*.jpg
    PALM-Validation-GT/PM_Label_and_Fovea_Location.xlsx        Validation/Classification Labels.xlsx

Imports neither paddle nor cv2, unless the demo set must be drawn.
"""

import functools
import os
import tempfile
from collections import defaultdict, namedtuple
from dataclasses import dataclass
from pathlib import Path

from palm_cls.core.console import command_line, notice, notice_once
from palm_cls.core.errors import InputError, excerpt
from palm_cls.core.files import require_directory
from palm_cls.data.labels import name_key, read_labels

CACHE_PREFIX = ".palm_cls-"  # how the names of files begin that this package puts beside the images
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
PROJECT = Path(__file__).resolve().parents[2]
AISTUDIO_WORK = Path("/home/aistudio/work")  # what lies here persists
AISTUDIO_DATA = Path("/home/aistudio/data/data19065")  # the course's archives, where the data set is mounted
ARCHIVES = ("training.zip", "validation.zip", "valid_gt.zip")
DEMO_MARK = "DEMO.txt"
DEMO_TEXT = "Drawn by palm_cls, to try the program with. No photographs: results on them tell nothing about eyes.\n"
DEMO_DISCLAIMER = "(demo set: drawn images, tells nothing about eyes)"

# Directories relative to the root: where images may lie, the first that holds any; where the tables of labels lie
# (train_table "": the first letter of the file names tells the label); the name of the .xlsx.
Layout = namedtuple("Layout", ("train_images", "train_table", "valid_images", "valid_table", "xlsx"))
LAYOUTS = (
    Layout(
        train_images=("PALM-Training400/PALM-Training400", "PALM-Training400"),
        train_table="",
        valid_images=("PALM-Validation400", "PALM-Validation400/PALM-Validation400"),
        valid_table="PALM-Validation-GT",
        xlsx="PM_Label_and_Fovea_Location.xlsx",
    ),
    Layout(
        train_images=("Training/Images",),
        train_table="Training",
        valid_images=("Validation/Images",),
        valid_table="Validation",
        xlsx="Classification Labels.xlsx",
    ),
)


def is_image(path):
    """Whether `path` is a file that is named like an image (.jpg, .jpeg, .png in any case) and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def has_images(directory):
    """Whether `directory` is there and holds at least one image."""
    return directory.is_dir() and any(is_image(entry) for entry in directory.iterdir())


def image_names(directory):
    """Sorted names of the images in `directory`.

    Sub-folders, hidden files (.DS_Store, .ipynb_checkpoints) and other files are passed over, which is said once.
    Raises InputError where there is no such directory or no image in it.
    """
    directory = Path(directory)
    require_directory(directory, f"one of images ({', '.join(IMAGE_SUFFIXES)})")
    entries = [entry for entry in directory.iterdir() if not entry.name.startswith(CACHE_PREFIX)]
    names = sorted(entry.name for entry in entries if is_image(entry))
    if not names:
        raise InputError(f"{directory}: no images in it; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    if len(names) < len(entries):
        notice_once(f"{directory}: {len(entries) - len(names)} of {len(entries)} entries are no images, passed over.")
    return names


def labelled_images(directory, table):
    """Read a table of labels, and find its images in `directory`: {path: LabelRow} in the order of the table.

    A name stands for the file of that name, else for the image whose name is the same but for its spelling (see
    `name_key`), or, where it has no suffix, for the one image that has it as its stem. The path of an image that is
    missing is none of a file. Raises InputError for a faulty table, a name that stands for several images, and two
    rows for one image.
    """
    directory, images_of = Path(directory), functools.cache(_images_by_spelling)
    labels, path_of = {}, {}
    for row in read_labels(table):
        path = _image_of(directory, row, table, images_of)
        other = path if path in labels else path_of.setdefault(os.path.abspath(path).casefold(), path)
        if other in labels and (other == path or _is_same_file(other, path)):
            raise InputError(
                f"{table}, row {row.row}: {excerpt(repr(row.name))} is the image of row {labels[other].row} already; "
                "keep one of the rows"
            )
        labels[path] = row
    return labels


def _is_same_file(path, other):
    """Whether two spellings are of one file, as where the disk makes no difference between a and A."""
    return os.path.isfile(path) and os.path.isfile(other) and path.samefile(other)


def _image_of(directory, row, table, images_of):
    if os.path.isfile(directory / row.name):  # which, unlike Path.is_file, is no error for a name that is too long
        return directory / row.name
    path = directory / name_key(row.name)
    by_name, by_stem = images_of(path.parent)
    found = by_name[path.name] or (by_stem[path.name] if path.suffix.lower() not in IMAGE_SUFFIXES else [])
    if len(found) > 1:
        names = ", ".join(sorted(image.name for image in found))
        raise InputError(
            f"{table}, row {row.row}: {excerpt(repr(row.name))} may be any of {names}; write the whole name"
        )
    return found[0] if found else directory / row.name


def _images_by_spelling(folder):
    """The images in a folder by the `name_key` of their names, and of their stems: two dictionaries of lists."""
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for path in folder.iterdir() if os.path.isdir(folder) else ():
        if is_image(path):
            by_name[name_key(path.name)].append(path)
            by_stem[name_key(path.stem)].append(path)
    return by_name, by_stem


def workbook_difference(table):
    """What is to be said of labels.csv where the workbook that lies beside it has other labels; "" where it has not."""
    table = Path(table)
    workbooks = [table.with_name(layout.xlsx) for layout in LAYOUTS] if table.name == "labels.csv" else []
    return next(filter(None, (_difference(table, workbook) for workbook in workbooks if workbook.is_file())), "")


def _difference(table, workbook):
    beside = f"{workbook.name} beside it; {table.name} is used"
    try:
        own, other = ({name_key(row.name): row.label for row in read_labels(path)} for path in (table, workbook))
    except (InputError, OSError) as error:  # such as that of Windows while the workbook is open in Excel
        return f"cannot be compared with {beside} ({error})"
    differing = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    if not differing:
        return ""
    return (
        f"has other labels for {len(differing)} images (first: {excerpt(differing[0])}) than {beside}.\n"
        f"If the workbook is right: {command_line('python', 'tools/xlsx2csv.py', workbook, table)}"
    )


@dataclass(frozen=True)
class Dataset:
    """A directory `root` in one of the known layouts. What is asked of it and is not there raises InputError."""

    root: Path
    layout: Layout

    @property
    def train_images(self):
        """Directory of the training images."""
        return self._images("training", self.layout.train_images)

    @property
    def valid_images(self):
        """Directory of the validation images."""
        return self._images("validation", self.layout.valid_images)

    @property
    def train_labels(self):
        """Table of the training labels, or None where the names of the images tell them."""
        return self._table(self.layout.train_table) if self.layout.train_table else None

    @property
    def valid_labels(self):
        """Table of the validation labels: labels.csv, or the .xlsx while there is no CSV."""
        return self._table(self.layout.valid_table)

    @property
    def workbooks(self):
        """The .xlsx tables that are there."""
        tables = [self.root / table / self.layout.xlsx for table in (self.layout.train_table, self.layout.valid_table)]
        return [table for table in tables if table.is_file()]

    @property
    def is_demo(self):
        """Whether this is the demo set, drawn by this program."""
        return (self.root / DEMO_MARK).is_file()

    @property
    def disclaimer(self):
        """What must stand beside every result on this data set ("" for real images)."""
        return DEMO_DISCLAIMER if self.is_demo else ""

    def validate(self):
        """Raise InputError unless training images, validation images and their labels are there."""
        for part in ("train_images", "valid_images", "valid_labels"):
            getattr(self, part)

    def _images(self, what, candidates):
        for directory in candidates:
            if has_images(self.root / directory):
                return self.root / directory
        raise InputError(f"{self.root}: no {what} images; expected them in {candidates[0]} there{self._advice()}")

    def _table(self, directory):
        for name in ("labels.csv", self.layout.xlsx):
            if (self.root / directory / name).is_file():
                return self.root / directory / name
        raise InputError(
            f"{self.root / directory}: no labels; expected {self.layout.xlsx} or labels.csv in it{self._advice()}"
        )

    def _advice(self):
        return f"\n{_unpack_advice(self.root, self.root)}" if archives_in(self.root) else ""


def detect_layout(root):
    """The Dataset in the directory `root`, or None if no known layout has images there."""
    for layout in LAYOUTS:
        if any(has_images(Path(root, directory)) for directory in layout.train_images + layout.valid_images):
            return Dataset(Path(root), layout)
    return None


def is_in_demo_set(directory):
    """Whether a directory of images belongs to the demo set (which lies up to two levels above it)."""
    directory = Path(directory).resolve()
    return any((place / DEMO_MARK).is_file() for place in (directory, *list(directory.parents)[:2]))


def find_dataset(directory=None):
    """The data set to work on: `directory`, else $PALM_DATA, else where it usually lies, else the demo set.

    Usual places are data/palm in the project and /home/aistudio/work/palm. Returns a Dataset: its `train_images` and
    `valid_images` are directories, `train_labels` (or None) and `valid_labels` tables, all Paths; `disclaimer` is what
    should stand beside results. Raises InputError where an explicit directory holds no images, and where only archives
    are found that are not unpacked yet. The demo set is announced.
    """
    explicit = explicit_directory(directory)
    usual = (PROJECT / "data" / "palm", AISTUDIO_WORK / "palm")
    places = (Path(explicit),) if explicit else usual
    for place in places:
        dataset = detect_layout(place)
        if dataset:
            return _announced(dataset)
    for place in places if explicit else (*usual, AISTUDIO_DATA):
        if archives_in(place):
            raise InputError(f"{place}: no images. {_unpack_advice(place, place if explicit else None)}")
    if explicit:
        given = " (given by the environment variable PALM_DATA)" if directory is None else ""
        require_directory(places[0], f"that of the images{given or ' (--data DIR)'}")
        raise InputError(_no_layout_in(places[0], given))
    return _announced(demo_set())


def find_workbooks(directory=None):
    """The .xlsx tables of labels in `directory`, else in $PALM_DATA, else in the data set that `find_dataset` finds."""
    explicit = explicit_directory(directory)
    if explicit:
        tables = [table for layout in LAYOUTS for table in Dataset(Path(explicit), layout).workbooks]
        if tables:  # they can be converted without the images
            return tables
    dataset = find_dataset(directory)
    if not dataset.workbooks:
        raise InputError(f"{dataset.root}: no {dataset.layout.xlsx} in it; name the .xlsx to convert")
    return dataset.workbooks


def explicit_directory(directory):
    return os.environ.get("PALM_DATA") if directory is None else directory


def _unpack_advice(archives, target=None):
    return f"The archives are there; unpack them: {unpack_command(archives, target)}"


def unpack_command(archives, target=None):
    options = ["--archives", archives, *(["--data", target] if target else [])]
    return command_line("python", "tools/prepare_data.py", *options)


def _announced(dataset):
    if dataset.is_demo:
        notice_once(f"This is the demo set ({dataset.root}), drawn by this program: it tells nothing about eyes.")
    return dataset


def _no_layout_in(place, given):
    course = LAYOUTS[0]
    return (
        f"{place}: no images in a known layout{given}; expected {course.train_images[0]}/*.jpg, "
        f"{course.valid_images[0]}/*.jpg and {course.valid_table}/{course.xlsx} in it"
    )


def archives_in(place):
    return [place / name for name in ARCHIVES if (place / name).is_file()]


def demo_set():
    """The demo set in data/demo, drawn at the first call: 200 training and 100 validation images, course's layout."""
    dataset = Dataset(PROJECT / "data" / "demo", LAYOUTS[0])
    if not dataset.is_demo:
        notice("No images found: drawing a demo set, once.")
        _draw_demo_set(dataset.root)
    try:
        dataset.validate()
    except InputError as error:
        raise InputError(f"{error}\nThe demo set is incomplete: delete {dataset.root}, and it is drawn anew.") from None
    return dataset


def _draw_demo_set(root):
    from palm_cls.data.synthetic import write_demo_set

    with tempfile.TemporaryDirectory(prefix=".demo-", dir=root.parent) as temporary:
        drawn = Path(temporary, "demo")
        write_demo_set(drawn)
        (drawn / DEMO_MARK).write_text(DEMO_TEXT, encoding="utf-8")
        try:
            os.replace(drawn, root)
        except OSError:
            if not (root / DEMO_MARK).is_file():  # unless another process was faster
                raise InputError(f"{root}: in the way of the demo set, and not one; move it away") from None
