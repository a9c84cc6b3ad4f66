"""The classes of a data set: their names, their order, and the number that a label in a table stands for."""

import unicodedata

from palm_cls.core.errors import InputError, did_you_mean, shorten

MAX_CLASSES = 100  # more are a mistake, such as a folder for each patient
MAX_LENGTH = 100  # characters of a name
RESERVED = {"imgname", "predicted", "error", "note"}  # columns of predictions, which have one for each class, too


def check_classes(names, source):
    """Return the names of classes in composed Unicode, in their order.

    Args:
        names: a list of str.
        source: what they were taken from, for messages.

    Raises:
        InputError: There are fewer than two or more than MAX_CLASSES, or two that differ in nothing but case, or a
            name is empty or too long or that of another column in tables of predictions.
    """
    names = [unicodedata.normalize("NFC", name) for name in names]
    shown = ", ".join(map(shorten, names[:3])) + (", ..." if len(names) > 3 else "")
    if len(names) > MAX_CLASSES:
        raise InputError(
            f"{source}: {len(names)} classes ({shown}); at most {MAX_CLASSES} are possible. Is each of these a class, "
            "and not a patient or a file?"
        )
    if len(names) < 2:
        raise InputError(f"{source}: {f'only the class {shown}' if names else 'no class'}; expected two or more")
    by_case = {}
    for name in names:
        if not (name.strip() and name.isprintable()) or len(name) > MAX_LENGTH or name.casefold() in RESERVED:
            raise InputError(f"{source}: {shorten(repr(name))} cannot be the name of a class; give it another")
        if names.count(name) > 1:
            raise InputError(f"{source}: the class {name} is there twice; name each once")
        if (other := by_case.setdefault(name.casefold(), name)) != name:
            raise InputError(f"{source}: the classes {other} and {name} differ in nothing but case; rename one of them")
    return names


def order_classes(labels, positive=None):
    """Return the labels of tables or folders as classes: sorted, numbers by their value.

    Args:
        labels: different labels, str.
        positive: the label that is to be the last of two.

    Raises:
        InputError: There is no such label, or there are more than two.
    """
    labels = sorted(labels, key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
    if positive is None:
        return labels
    number = find_class(positive, labels, "--positive")
    if len(labels) != 2:
        raise InputError(f"--positive is for two classes, and there are {len(labels)}; leave it out")
    return [labels[1 - number], labels[number]]


def find_class(name, classes, option):
    """Return the number of the class of a name, in any form of Unicode.

    Args:
        name: the name.
        classes: names of the classes, in order.
        option: what the name was given by, for the message.

    Raises:
        InputError: No class has this name.
    """
    name = unicodedata.normalize("NFC", name)
    if name not in classes:
        raise InputError(
            f"{option} {name}: none of the classes {shorten(', '.join(classes))}{did_you_mean(name, classes)}"
        )
    return classes.index(name)


def label_number(label, classes):
    """Return the number of the class that a label in a table stands for, or None.

    Args:
        label: the name of a class or, if no name is a number, the number of a class.
        classes: names of the classes.
    """
    if label in classes:
        return classes.index(label)
    return int(label) if takes_numbers(classes) and label in map(str, range(len(classes))) else None


def takes_numbers(classes):
    """Return whether a label may be the number of a class: if a name is a number itself, labels are names."""
    return not any(name.isdecimal() for name in classes)
