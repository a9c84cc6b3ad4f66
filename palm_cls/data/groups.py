"""Groups of images that belong together, such as those of one patient, and folds that keep them together.

Whoever trains on one eye of a patient and validates on the other measures how well the patient is recognised.
"""

import os
import re

import numpy as np

from palm_cls.core.errors import InputError, shorten
from palm_cls.data.image_info import BLANK, gray_thumbnail, similar_groups
from palm_cls.data.pipeline import iter_resized

COURSE_NAME = re.compile(r"([HNP])(\d{4})\.jpg")
# Images of the course with consecutive numbers are more alike than others, probably as the two eyes of a patient: their
# thumbnails, less the mean of all, correlate by .14 and .10 among the pathological and the normal ones, against 0. So
# those of the same tens stay together: P0010 to P0019. Among the normal ones it is N0002 and N0003 that are alike
# (.23), not N0001 and N0002 (-.03); a border between an even and an odd number would divide such a pair.
RUN_LENGTH = 10


def find_groups(loader):
    """Group the images of a loader.

    By the column Group of their table of labels, if it has one. Else identical and nearly identical images belong
    together, and of the course's images those of consecutive numbers.

    Args:
        loader: An ImageLoader.

    Returns:
        ({name of an image: number of its group}, the rule in words).
    """
    names = sorted(loader.order)
    if loader.groups:
        return _numbered({name: loader.groups.get(name) or name for name in names}), "by the column Group"
    runs = {name: _run(name) for name in names}
    is_course = sum(map(bool, runs.values())) > len(names) / 2
    groups = _numbered({name: (is_course and runs[name]) or name for name in names})
    for alike in _copies(loader):
        joined = {groups[name] for name in alike}
        groups = {name: min(joined) if group in joined else group for name, group in groups.items()}
    tens = "tens of consecutive numbers (P0010 to P0019), and " if is_course else ""
    return _numbered(groups), f"{tens}identical or nearly identical images"


def _run(name):
    """Return the letter of an image of the course and the number of its run; None for other images."""
    match = COURSE_NAME.fullmatch(os.path.basename(name))  # also in a folder for each class
    return match and (match[1], int(match[2]) // RUN_LENGTH)


def _numbered(groups):
    """Replace what stands for a group by numbers from 0, in the order of the names."""
    number_of = {}
    return {name: number_of.setdefault(group, len(number_of)) for name, group in groups.items()}


def _copies(loader):
    """Return lists of names of images that are nearly identical; those of one colour are not compared."""
    names = map(loader.name_of, sorted(loader.samples))  # by path, which is not the order of the names: "a b/1", "a/1"
    thumbnails = dict(zip(names, map(gray_thumbnail, iter_resized(loader))))
    drawn = [name for name in thumbnails if thumbnails[name].std() >= BLANK]
    return [[drawn[index] for index in group] for group in similar_groups([thumbnails[name] for name in drawn])]


def split_folds(labels, groups, num_folds, classes=None):
    """Divide images into folds with about the same share of each label, without dividing a group.

    Args:
        labels: int [N].
        groups: Number of the group of each image, int [N].
        num_folds: Number of folds, from 2.
        classes: Names of the labels, for messages and to check that all of them occur; or None.

    Returns:
        int [N], the fold of each image, from 0; without random numbers, so that results can be compared.

    Raises:
        InputError: There are too few groups, or a fold would lack a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(labels), np.asarray(groups)
    _check_classes(labels, groups, num_folds, classes)
    folds = np.empty(len(labels), "int64")
    for fold, (_, held_out) in enumerate(StratifiedGroupKFold(num_folds).split(labels, labels, groups)):
        folds[held_out] = fold
    missing = [set(labels) - set(labels[folds == fold]) for fold in range(num_folds)]
    if lacking := sorted(set().union(*missing)):
        name = shorten(classes[lacking[0]]) if classes else lacking[0]
        raise InputError(f"one of {num_folds} folds would have no image of class {name}; take fewer --folds")
    return folds


def _check_classes(labels, groups, num_folds, classes):
    """Raise InputError if a class has no image, or not a group for each fold."""
    counts = {label: len(set(groups[labels == label])) for label in sorted(set(labels))}
    if len(counts) < 2:
        raise InputError(f"all images have the label {labels[0]}; a cross-validation takes those of both classes")
    if missing := [name for number, name in enumerate(classes or ()) if number not in counts]:
        raise InputError(f"no image of class {shorten(missing[0])}; a cross-validation takes those of every class")
    smallest = min(counts, key=counts.get)
    if counts[smallest] < num_folds:
        name = f", {shorten(classes[smallest])}," if classes else ""
        raise InputError(
            f"{num_folds} folds need as many groups of images of each class, and the smallest class{name} has "
            f"{counts[smallest]}; take fewer --folds, or divide groups (--no-groups)"
        )
