"""The cache of resized images: one SQLite file for a directory of images and a size.

Decoding the photographs takes most of the lesson's time, and gives the same pixels every epoch. Here they are kept on
disk, for later epochs and later runs. SQLite lets several processes read and write, and undoes what a killed one left
half-written. Whatever goes wrong with the cache, the images are decoded as if there were none.
"""

import hashlib
import os
import platform
import shutil
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np

from palm_cls.core.console import notice_once
from palm_cls.core.errors import excerpt
from palm_cls.data.palm import CACHE_PREFIX

try:
    import sqlite3
except ImportError:  # a Python that was built without it: there is no cache
    sqlite3 = None

SCHEMA = "CREATE TABLE images (name BLOB PRIMARY KEY, state BLOB, checksum INTEGER, pixels BLOB)"
# What decides the pixels besides the file: the builds of OpenCV have different JPEG libraries.
DECODER = f"{platform.machine()}, OpenCV {cv2.__version__}, build {zlib.crc32(cv2.getBuildInformation().encode()):x}"
# In messages of SQLite's OperationalError, where the file is not to blame:
TRANSIENT_ERRORS = ("locked", "unable to open", "full", "disk I/O")
PAGE = 4096  # bytes
LIMIT = 4 << 30  # bytes of one cache: 28,000 images of 224 x 224
MIN_FREE_BYTES = 1 << 30  # bytes left free on the disk, for checkpoints
LOCK_TIMEOUT = 2.0  # seconds to wait for another process that is writing


class ImageCache:
    """Resized images of a directory, from any thread. A context manager: the file is closed at its end.

    An image is found again while its name, size, times of modification and of change (ctime) and the build of OpenCV
    are the same, and its checksum is right. (Under Windows ctime is that of creation.) What fails in SQLite ends the
    use of the cache until it is opened again; a full disk, or a cache that has grown to LIMIT, ends the writing only.
    The file is `.palm_cls-SIDE.cache` in the directory, or in the user's cache directory where that one cannot be
    written. `path`: the file; None where there can be none, and all images are made anew.
    """

    def __init__(self, directory, side):
        """side: pixels, height and width to which the images are resized."""
        self.directory, self.shape = Path(os.path.abspath(directory)), (side, side, 3)
        self.lock = threading.Lock()  # of the connection, which the threads share
        self.path = self.db = None
        self.pruned, self.pruning = False, threading.Lock()
        for path in _places(self.directory, side) if sqlite3 else ():
            try:
                self.db = _open(path)
                self.file_number = path.stat().st_ino
            except (sqlite3.Error, OSError):
                continue
            self.path = path
            break
        self.writable = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.lock:
            self._close()

    def log_location(self, images):
        """Say, once, where the cache is and how large it gets with so many images."""
        if self.path is None:
            notice_once(f"{self.directory}: no cache of resized images can be written; every epoch decodes them.")
        else:
            megabytes = images * int(np.prod(self.shape)) / 1e6
            notice_once(f"Resized images are kept in {self.path}, {megabytes:.0f} MB in all (not with --no-cache).")

    def get_or_compute(self, path, make):
        """The resized image of the file at `path`, uint8 [side, side, 3]: from here, else by `make(path)` and kept."""
        try:
            key = self._key(path)  # before it is read: what replaces the file meanwhile is another state
        except OSError:
            return make(path)
        img = self._get(key)
        if img is None:
            img = make(path)
            self._put(key, img)
        return img

    def _key(self, path):
        status = os.stat(path)
        name = os.fsencode(os.path.relpath(path, self.directory))
        # Tools that write into a file (the EXIF orientation) may restore its modification time, but not the other.
        return name, f"{status.st_size} bytes, {status.st_mtime_ns} ns, {status.st_ctime_ns} ns, {DECODER}".encode()

    def _get(self, key):
        size = int(np.prod(self.shape))
        query = "SELECT checksum, pixels FROM images WHERE name = ? AND state = ? AND length(pixels) = ?"
        for checksum, pixels in self._execute(query, (*key, size)):
            if isinstance(pixels, bytes) and checksum == _checksum(key, pixels):
                return np.frombuffer(pixels, np.uint8).reshape(self.shape)
        return None

    def _put(self, key, img):
        if self.writable and self.path and self._free_bytes() < MIN_FREE_BYTES:
            self._stop_writing("the disk is nearly full")
        if self.writable:
            with self.pruning:  # other threads wait: what they kept meanwhile would make the file grow
                if not self.pruned:
                    self._prune()
            pixels = img.tobytes()
            self._execute("REPLACE INTO images VALUES (?, ?, ?, ?)", (*key, _checksum(key, pixels), pixels))

    def _free_bytes(self):
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError:  # the directory is gone
            return 0

    def _prune(self):
        """Make room: forget the images whose files are gone."""
        for (name,) in self._execute("SELECT name FROM images"):
            if not (isinstance(name, bytes) and os.path.isfile(os.path.join(os.fsencode(self.directory), name))):
                self._execute("DELETE FROM images WHERE name = ?", (name,))
        self.pruned = True

    def _execute(self, statement, values=()):
        """The rows that SQLite gives; none where it fails."""
        with self.lock:
            if self.db is None:
                return []
            try:
                return self.db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                self._stop_writing(error)
                if "full" not in str(error):
                    self._close()  # or each image might wait for the lock of another process
                    if self._is_still_this_file():
                        _remove_if_damaged(self.path, error)
        return []

    def _is_still_this_file(self):
        """Whether no other process has removed it, and perhaps begun it anew."""
        try:
            return self.path.stat().st_ino == self.file_number
        except OSError:
            return False

    def _stop_writing(self, reason):
        self.writable = False
        notice_once(f"{self.path}: {excerpt(reason)}; images that are not in this cache are decoded again.")

    def _close(self):
        if self.db is not None:
            self.db.close()
            self.db = None


def _places(directory, side):
    """Where the cache of a directory may lie: there, or under the user's cache directory."""
    yield directory / f"{CACHE_PREFIX}{side}.cache"
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "palm_cls")
        home.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):  # no home, or one that cannot be written
        return
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()
    yield home / f"{digest[:16]}-{side}.cache"


def _open(path):
    """A connection to the cache at `path`, which is begun, or begun anew where it is damaged or none of ours."""
    try:
        return _connect(path)
    except sqlite3.Error as error:
        if not _remove_if_damaged(path, error):
            raise
        return _connect(path)


def _remove_if_damaged(path, error):
    """Remove the file if that is what SQLite's error is about; returns whether it is gone."""
    if isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in TRANSIENT_ERRORS):
        return False
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _connect(path):
    db = sqlite3.connect(str(path), timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute(f"PRAGMA max_page_count = {LIMIT // PAGE}")
        db.execute("PRAGMA synchronous = OFF")  # a power cut may damage it: it can be begun anew
        db.execute("BEGIN IMMEDIATE")  # which fails where nothing can be written
        if not _schema(db):
            db.execute(SCHEMA)
        if _schema(db) != [(SCHEMA,)]:
            raise sqlite3.DatabaseError("not a cache of images")
        db.execute("COMMIT")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _schema(db):
    return db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()


def _checksum(key, pixels):
    return zlib.crc32(pixels, zlib.crc32(b"\n".join(key)))
