"""The PALM data set: its layouts, the places to look for it, the demo set.

Two layouts are recognised, each with its table of labels as .xlsx or, converted, as `labels.csv` beside it:

    the course's                                               the release of 2024
    PALM-Training400/PALM-Training400/*.jpg                    Training/Images/*.jpg
        or PALM-Training400/*.jpg                              Training/Classification Labels.xlsx
    PALM-Validation400/*.jpg                                   Validation/Images/*.jpg
    PALM-Validation-GT/PM_Label_and_Fovea_Location.xlsx        Validation/Classification Labels.xlsx
                                                               Testing/Images/*.jpg
                                                               Testing/Classification Labels.xlsx

Other data sets with a folder for each class are found, too, see `palm_cls.data.class_folders`.

Imports neither paddle nor cv2, unless the demo set must be drawn.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from palm_cls.core.console import command_line, log, log_once
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.files import require_directory
from palm_cls.data.class_folders import describe_folders, find_class_folders
from palm_cls.data.data_root import DEMO_MARK, DataRoot
from palm_cls.data.image_files import has_images
from palm_cls.data.spelling import name_key
from palm_cls.data.tables import read_rows

PROJECT = Path(__file__).resolve().parents[2]
AISTUDIO_WORK = Path("/home/aistudio/work")  # persistent
AISTUDIO_DATA = Path("/home/aistudio/data/data19065")  # the mounted archives of the course
ARCHIVES = ("training.zip", "validation.zip", "valid_gt.zip")


@dataclass(frozen=True)
class Layout:
    """Directories of a data set, relative to its root."""

    train_images: tuple  # candidates; the first that holds images is used
    train_table: str  # of the table of training labels; "": the file names give the labels
    valid_images: tuple
    valid_table: str
    xlsx: str  # name of the tables
    test_images: tuple = ()
    test_table: str = ""


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
        test_images=("Testing/Images",),
        test_table="Testing",
    ),
)


def workbook_difference(table):
    """Compare labels.csv with the workbook beside it.

    Args:
        table: path of a table of labels.

    Returns:
        A message that continues the path of the table, or "" if the labels are the same or there is no workbook.
    """
    table = Path(table)
    workbooks = [table.with_name(layout.xlsx) for layout in LAYOUTS] if table.name == "labels.csv" else []
    return next(filter(None, (_difference(table, workbook) for workbook in workbooks if workbook.is_file())), "")


def _difference(table, workbook):
    beside = f"{workbook.name} beside it; {table.name} is used"
    try:
        own, other = (
            {name_key(row["imgName"]): (row["Label"], row["Group"]) for _, row in read_rows(path)}
            for path in (table, workbook)
        )
    except (InputError, OSError) as error:  # under Windows, while Excel has the workbook open
        return f"cannot be compared with {beside} ({error})"
    differing = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    if not differing:
        return ""
    return (
        f"has other labels or groups for {len(differing)} images (first: {shorten(differing[0])}) than {beside}.\n"
        f"If the workbook is right: {command_line('python', 'tools/xlsx2csv.py', workbook, table)}"
    )


@dataclass(frozen=True)
class Dataset(DataRoot):
    """A directory in one of the known layouts; properties raise InputError for what is missing.

    Args:
        layout: its Layout.
    """

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
    def test_images(self):
        """Directory of the test images, which the release of 2024 has."""
        return self._images("test", self.layout.test_images)

    @property
    def train_labels(self):
        """Table of the training labels, or None if the names of the images give them."""
        return self._table(self.layout.train_table) if self.layout.train_table else None

    @property
    def valid_labels(self):
        """Table of the validation labels: labels.csv, else the .xlsx."""
        return self._table(self.layout.valid_table)

    @property
    def test_labels(self):
        """Table of the test labels, likewise."""
        return self._table(self.layout.test_table)

    @property
    def workbooks(self):
        """The .xlsx tables that exist."""
        folders = self.layout.train_table, self.layout.valid_table, self.layout.test_table
        tables = [self.root / folder / self.layout.xlsx for folder in dict.fromkeys(filter(None, folders))]
        return [table for table in tables if table.is_file()]

    def validate(self):
        """Raise InputError unless training images, validation images and their labels exist."""
        for part in ("train_images", "valid_images", "valid_labels"):
            getattr(self, part)

    def _images(self, what, candidates):
        for directory in candidates:
            if has_images(self.root / directory):
                return self.root / directory
        if not candidates:
            raise InputError(f"{self.root}: no {what} images; the course has none, only the release of 2024")
        raise InputError(f"{self.root}: no {what} images; expected them in {candidates[0]} there{self._hint()}")

    def _table(self, directory):
        for name in ("labels.csv", self.layout.xlsx):
            if (self.root / directory / name).is_file():
                return self.root / directory / name
        raise InputError(
            f"{self.root / directory}: no labels; expected {self.layout.xlsx} or labels.csv in it{self._hint()}"
        )

    def _hint(self):
        return f"\n{_unpack_hint(self.root, self.root)}" if archives_in(self.root) else ""


def detect_layout(root):
    """Return the Dataset in `root`, or None without images in a known layout."""
    for layout in LAYOUTS:
        if any(has_images(Path(root, directory)) for directory in layout.train_images + layout.valid_images):
            return Dataset(Path(root), layout)
    return None


def find_dataset(directory=None):
    """Find the data set: `directory`, else $PALM_DATA, else a usual place, else the demo set.

    Args:
        directory: root of the data set. The usual places are data/palm in the project and /home/aistudio/work/palm.

    Returns:
        A Dataset. Its `train_images` and `valid_images` are directories, `train_labels` (or None) and `valid_labels`
        tables, all Paths; `disclaimer` is the text to print with results. Of a folder for each class it is a
        ClassFolders. A notice announces the demo set.

    Raises:
        InputError: An explicit directory holds no images, or the archives are not unpacked yet.
    """
    explicit = explicit_directory(directory)
    usual = (PROJECT / "data" / "palm", AISTUDIO_WORK / "palm")
    places = (Path(explicit),) if explicit else usual
    for place in places:
        dataset = detect_layout(place) or find_class_folders(place)
        if dataset:
            return _announced(dataset)
    for place in places if explicit else (*usual, AISTUDIO_DATA):
        if archives_in(place):
            raise InputError(f"{place}: no images. {_unpack_hint(place, place if explicit else None)}")
    if explicit:
        given = " (given by the environment variable PALM_DATA)" if directory is None else ""
        require_directory(places[0], f"that of the images{given or ' (--data DIR)'}")
        raise InputError(_no_layout_in(places[0], given))
    return _announced(demo_set())


def find_workbooks(directory=None):
    """List the .xlsx tables in `directory`, else in $PALM_DATA, else in `find_dataset()`."""
    explicit = explicit_directory(directory)
    if explicit:
        tables = [table for layout in LAYOUTS for table in Dataset(Path(explicit), layout).workbooks]
        if tables:  # convertible without the images
            return tables
    dataset = find_dataset(directory)
    if not isinstance(dataset, Dataset) or not dataset.workbooks:
        names = " or ".join(layout.xlsx for layout in LAYOUTS)
        raise InputError(f"{dataset.root}: no {names} in it; name the .xlsx to convert")
    return dataset.workbooks


def explicit_directory(directory):
    """Return `directory`, else $PALM_DATA, else None."""
    return os.environ.get("PALM_DATA") if directory is None else directory


def _unpack_hint(archives, target=None):
    return f"The archives are there; unpack them: {unpack_command(archives, target)}"


def unpack_command(archives, target=None):
    """Return the command that unpacks the archives."""
    options = ["--archives", archives, *(["--data", target] if target else [])]
    return command_line("python", "tools/prepare_data.py", *options)


def _announced(dataset):
    if dataset.is_demo:
        log_once(f"This is the demo set ({dataset.root}), drawn by this program: it tells nothing about eyes.")
    return dataset


def _no_layout_in(place, given):
    course = LAYOUTS[0]
    found = describe_folders(place)
    return (
        f"{place}: no images in a known layout{given}{f', but {found}' if found else ''}. Expected in it: a folder for "
        "each class (train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg), or the course's "
        f"{course.train_images[0]}/*.jpg, {course.valid_images[0]}/*.jpg and {course.valid_table}/{course.xlsx}"
    )


def archives_in(place):
    """List the course's archives in a directory."""
    return [place / name for name in ARCHIVES if (place / name).is_file()]


def demo_set():
    """Return the demo set, 200 training and 100 validation images, drawn at the first call."""
    dataset = Dataset(PROJECT / "data" / "demo", LAYOUTS[0])
    if not dataset.is_demo:
        log("No images found: drawing a demo set, once.")
        _draw_demo_set(dataset.root)
    try:
        dataset.validate()
    except InputError as error:
        raise InputError(f"{error}\nThe demo set is incomplete: delete {dataset.root}, and it is drawn anew.") from None
    return dataset


def _draw_demo_set(root):
    from palm_cls.data.demo_set import draw_demo_set

    try:
        draw_demo_set(root)
    except InputError:
        if not (root / DEMO_MARK).is_file():  # unless another process was faster
            raise InputError(f"{root}: in the way of the demo set, and not one; move it away") from None
