"""Compare file names and headers however they are spelled: Unicode forms, invisible characters, slashes."""

import os
import posixpath
import re
import unicodedata

INVISIBLE = re.compile(
    "[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)  # zero width, BOM, ...
LINE_END = re.compile("_x000[9AD]_", re.IGNORECASE)  # CR, LF and tab as an xlsx escapes them; exports keep the escapes


def remove_invisible(text):
    """Return `text` without invisible characters, a space for each escaped line end."""
    return INVISIBLE.sub("", LINE_END.sub(" ", text))


def name_key(name):
    """Return what all spellings of a path have in common.

    Such are "./a//b" and "a\\b", and letters composed and decomposed. A name that is not
    UTF-8 is decoded as GBK, the encoding of archives made under a Chinese Windows.
    """
    if re.search("[\ud800-\udfff]", name):
        name = os.fsencode(name).decode("gb18030", errors="replace")
    name = unicodedata.normalize("NFC", INVISIBLE.sub("", name))
    return posixpath.normpath(name.replace("\\", "/"))


def fold(cell):
    """Return a cell without differences of case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", cell).split()).casefold()


def find_columns(header, names):
    """Return {name: index} of the columns in a row of cells, the first of each name."""
    folded = [fold(cell) for cell in header]
    return {name: folded.index(name.casefold()) for name in names if name.casefold() in folded}
