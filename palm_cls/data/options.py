"""Which images a network is trained or evaluated on, and what their labels mean: `DataOptions`."""

import os
from dataclasses import dataclass, fields
from typing import Optional

from palm_cls.data.labels import CLASSES

VALID_FRACTION = 0.2  # of images that are not divided yet


@dataclass
class DataOptions:
    """Options of a data set; all but the first are for photographs.

    Attributes:
        data: Its directory; None where the recipe's images usually are.
        train_csv: Table of the training labels; None to take them from the data set.
        valid_csv: Table of the validation labels; None to take them from the data set.
        valid_fraction: Share of the images to validate on, if the data set is not divided; None for VALID_FRACTION.
        classes: Names of the classes in order; None for those of the data set.
        positive: Name of the class that is to be the last of two; None to keep their order.
        skip_bad: Whether to leave out training images that cannot be decoded.
    """

    data: Optional[str] = None
    train_csv: Optional[str] = None
    valid_csv: Optional[str] = None
    valid_fraction: Optional[float] = None
    classes: Optional[list] = None
    positive: Optional[str] = None
    skip_bad: bool = False


def stored_options(settings, data=None, **changes):
    """Return the DataOptions in the settings of a run, some of them changed; `data` is where its images are now."""
    settings = {**moved(settings, data), **changes}
    return DataOptions(**{entry.name: settings[entry.name] for entry in fields(DataOptions) if entry.name in settings})


def stored_classes(settings):
    """Return the names of the classes in settings or metadata; the lesson's if they do not state any."""
    names = settings.get("classes")
    return list(map(str, names)) if isinstance(names, list) and len(names) > 1 else CLASSES


def moved(settings, data=None):
    """Return the settings of a run whose directory of images has moved to `data`, with the tables that lie in it."""
    before = settings.get("data")
    if data is None or before is None:
        return {**settings, "data": data or before}
    settings = {**settings, "data": data}
    for key in ("train_csv", "valid_csv"):
        table = settings.get(key)
        if table and os.path.commonpath([os.path.abspath(before), os.path.abspath(table)]) == os.path.abspath(before):
            settings[key] = os.path.join(os.path.abspath(data), os.path.relpath(table, before))
    return settings
