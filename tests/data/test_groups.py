"""Which images stay together, and the folds that keep them so."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.core.errors import InputError
from palm_cls.data.groups import find_groups, split_folds
from palm_cls.data.labels import xlsx_to_csv
from palm_cls.data.loaders import ImageLoader, data_loader, valid_data_loader
from palm_cls.data.synthetic import draw_fundus


@pytest.fixture(scope="module")
def eyes():
    rng = np.random.default_rng(0)
    return [draw_fundus(kind, rng)[0] for kind in "NHPPNP"]


def write(directory, photos):
    directory.mkdir()
    for name, photo in photos.items():
        cv2.imwrite(str(directory / name), photo)
    return directory


def partition(groups):
    return sorted(sorted(name for name in groups if groups[name] == number) for number in set(groups.values()))


def test_images_of_the_course_stay_with_their_tens(eyes, tmp_path):
    names = ["N0009.jpg", "N0010.jpg", "P0010.jpg", "P0019.jpg", "P0020.jpg"]
    found, rule = find_groups(data_loader(write(tmp_path / "a", dict(zip(names, eyes))), cache=False))
    assert partition(found) == [["N0009.jpg"], ["N0010.jpg"], ["P0010.jpg", "P0019.jpg"], ["P0020.jpg"]]
    assert rule == "tens of consecutive numbers (P0010 to P0019), and identical or nearly identical images"


def test_a_copy_joins_what_it_is_of(eyes, tmp_path):
    photos = dict(zip(["P0001.jpg", "P0002.jpg", "P0030.jpg", "N0001.jpg"], eyes))
    photos["P0031.jpg"] = cv2.resize(eyes[1], None, fx=0.9, fy=0.9)  # of P0002
    found, _ = find_groups(data_loader(write(tmp_path / "a", photos), cache=False))
    assert partition(found) == [["N0001.jpg"], ["P0001.jpg", "P0002.jpg", "P0030.jpg", "P0031.jpg"]]


def test_elsewhere_numbers_mean_nothing(eyes, tmp_path):
    photos = dict(zip(["P1.jpg", "P2.jpg", "N0001.jpg", "N0002.jpg"], [eyes[0], eyes[1], eyes[1], eyes[2]]))
    found, rule = find_groups(data_loader(write(tmp_path / "a", photos), cache=False))
    assert partition(found) == [["N0001.jpg", "P2.jpg"], ["N0002.jpg"], ["P1.jpg"]]
    assert rule == "identical or nearly identical images"


def test_a_file_of_another_name_does_not_end_the_rule(eyes, tmp_path):
    photos = dict(zip(["P0001.jpg", "P0002.jpg", "P0030.jpg", "P0001_copy.jpg"], [*eyes[:3], eyes[0]]))
    found, _ = find_groups(data_loader(write(tmp_path / "a", photos), cache=False))
    assert partition(found) == [["P0001.jpg", "P0001_copy.jpg", "P0002.jpg"], ["P0030.jpg"]]


def test_images_of_one_colour_are_no_copies(tmp_path):
    black = np.zeros((224, 224, 3), "uint8")
    found, _ = find_groups(data_loader(write(tmp_path / "a", {"Pa.jpg": black, "Pb.jpg": black}), cache=False))
    assert partition(found) == [["Pa.jpg"], ["Pb.jpg"]]


def in_folders(root, photos):
    """Write {"class/name": image}; the loader of these images."""
    classes = sorted({name.split("/")[0] for name in photos})
    for name in classes:
        (root / name).mkdir(parents=True)
    for name, photo in photos.items():
        cv2.imwrite(str(root / name), photo)
    samples = [(root / name, classes.index(name.split("/")[0])) for name in photos]
    return ImageLoader(root, samples, 10, "train", cache=False, classes=classes)


def test_images_of_the_course_in_a_folder_for_each_class(eyes, tmp_path):
    names = ["high/H0001.jpg", "normal/N0001.jpg", "pm/P0011.jpg", "pm/P0012.jpg", "pm/P0021.jpg"]
    found, rule = find_groups(in_folders(tmp_path / "a", dict(zip(names, eyes))))
    assert partition(found) == [names[:1], names[1:2], names[2:4], names[4:]]
    assert rule.startswith("tens of consecutive numbers")


def test_a_copy_is_found_where_folders_and_names_sort_differently(eyes, tmp_path):
    photos = dict(zip(["a/1.jpg", "a/2.jpg", "a b/1.jpg"], [eyes[0], eyes[0], eyes[1]]))
    found, _ = find_groups(in_folders(tmp_path / "a", photos))
    assert partition(found) == [["a b/1.jpg"], ["a/1.jpg", "a/2.jpg"]]


def test_the_column_group_decides_alone(eyes, tmp_path):
    names = ["P0001.jpg", "P0002.jpg", "b.jpg", "c.jpg"]
    directory = write(tmp_path / "a", dict(zip(names, [eyes[0], eyes[0], eyes[1], eyes[2]])))
    table = tmp_path / "own.csv"
    table.write_text("imgName,Label,Group\nP0001.jpg,1,x\nP0002.jpg,1,y\nb.jpg,0,x\nc.jpg,0,\n")
    found, rule = find_groups(valid_data_loader(directory, table, cache=False))
    assert partition(found) == [["P0001.jpg", "b.jpg"], ["P0002.jpg"], ["c.jpg"]]
    assert rule == "by the column Group"


def test_a_converted_table_keeps_its_groups(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["imgName", "GROUP", "Label"], ["a.jpg", "patient 1", 0], ["b.jpg", None, 1]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    written, _ = xlsx_to_csv(tmp_path / "a.xlsx")
    lines = ["ID,imgName,Label,Fovea_X,Fovea_Y,Group", "1,a.jpg,0,,,patient 1", "2,b.jpg,1,,,", ""]
    assert written.read_text() == "\n".join(lines)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=2, max_size=60),
    st.integers(2, 5),
)
def test_no_fold_divides_a_group_or_lacks_a_class(images, num_folds):
    labels, groups = map(list, zip(*images))
    try:
        folds = split_folds(labels, groups, num_folds)
    except InputError:
        return
    assert len({group: set() for group in groups}) == len(set(zip(groups, folds.tolist())))
    for fold in range(num_folds):
        assert {label for label, own in zip(labels, folds) if own == fold} == set(labels)
    assert split_folds(labels, groups, num_folds).tolist() == folds.tolist()


def test_folds_are_of_about_the_same_size_and_share():
    labels = np.array([0] * 187 + [1] * 213)
    folds = split_folds(labels, np.arange(400) // 10, 5)
    assert np.bincount(folds).tolist() == [80] * 5
    assert all(abs(labels[folds == fold].mean() - labels.mean()) < 0.1 for fold in range(5))


@pytest.mark.parametrize(("labels", "groups", "smallest"), [([0, 1, 1, 1], [0, 1, 2, 3], 1), ([0, 1], [0, 0], 1)])
def test_too_few_groups_are_refused(labels, groups, smallest):
    message = f"2 folds need as many groups of images of each class, and the smallest class has {smallest}; take fewer"
    with pytest.raises(InputError, match=message):
        split_folds(labels, groups, 2)
    with pytest.raises(InputError, match="all images have the label 0; a cross-validation takes those of both classes"):
        split_folds([0, 0, 0], [0, 1, 2], 2)


def test_the_class_that_has_too_few_groups_is_named():
    labels, classes = [0, 0, 1, 1, 2], ["k", "m", "重度"]
    with pytest.raises(InputError, match="2 folds .* and the smallest class, 重度, has 1; take fewer --folds"):
        split_folds(labels, range(5), 2, classes)
    with pytest.raises(InputError, match="no image of class 重度; a cross-validation takes those of every class"):
        split_folds(labels[:4], range(4), 2, classes)
    one_group = [0, 1, 0, 1, 0, 1, 2, 2], [0, 0, 1, 1, 2, 3, 0, 1]
    folds = split_folds(*one_group, 2, classes)
    assert all(set(np.array(one_group[0])[folds == fold]) == {0, 1, 2} for fold in range(2))
