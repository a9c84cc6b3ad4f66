"""What all data sets of photographs have in common: a directory, and whether it is the demo set."""

from dataclasses import dataclass
from pathlib import Path

DEMO_MARK = "DEMO.txt"
DEMO_TEXT = "Drawn by palm_cls, to try the program with. No photographs: results on them tell nothing about eyes.\n"
DEMO_DISCLAIMER = "(demo set: drawn images, tells nothing about eyes)"


@dataclass(frozen=True)
class DataRoot:
    """A data set in a directory; alone, one whose images only tables list.

    Args:
        root: the directory.
    """

    root: Path

    @property
    def is_demo(self):
        """Whether this is the demo set of drawn images."""
        return (self.root / DEMO_MARK).is_file()

    @property
    def disclaimer(self):
        """Text to print with every result on this data set ("" for real images)."""
        return DEMO_DISCLAIMER if self.is_demo else ""


def is_in_demo_set(directory):
    """Return whether a directory is in the demo set, up to two levels below its root."""
    directory = Path(directory).resolve()
    return any((place / DEMO_MARK).is_file() for place in (directory, *list(directory.parents)[:2]))
