"""Cache of resized images: one SQLite file for a directory of images and a size.

Decoding the photographs takes most of the lesson's time, and gives the same pixels every epoch. The cache keeps them on
disk for later epochs and runs. SQLite lets several processes read and write, and rolls back what a killed one left
half-written. If the cache fails, the images are decoded as without it.
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

from palm_cls.core.console import log_once
from palm_cls.core.errors import shorten
from palm_cls.data.image_files import CACHE_PREFIX

try:
    import sqlite3
except ImportError:  # a Python that was built without it: there is no cache
    sqlite3 = None

SCHEMA = "CREATE TABLE images (name BLOB PRIMARY KEY, state BLOB, checksum INTEGER, pixels BLOB)"
# The pixels depend on it, too: the builds of OpenCV have different JPEG libraries.
DECODER = f"{platform.machine()}, OpenCV {cv2.__version__}, build {zlib.crc32(cv2.getBuildInformation().encode()):x}"
# Words in messages of SQLite's OperationalError that are no fault of the file:
TRANSIENT_ERRORS = ("locked", "unable to open", "full", "disk I/O")
PAGE_BYTES = 4096
MAX_BYTES = 4 << 30  # of one cache: 28,000 images of 224 x 224
MIN_FREE_BYTES = 1 << 30  # on the disk, for checkpoints
LOCK_TIMEOUT = 2.0  # seconds to wait for another process that is writing


class ImageCache:
    """Resized images of a directory, from any thread; a context manager that closes the file.

    An entry is valid while the name, size, times of modification and of change (ctime) of the image and the build of
    OpenCV are the same, and its checksum is right. (Under Windows ctime is the time of creation.) An error of SQLite
    ends the use of the cache until it is opened again; a full disk, or a cache of MAX_BYTES, ends the writing only. The
    file is `.palm_cls-SIZE.cache` in the directory, else in the user's cache directory.

    Args:
        directory: of the images.
        size: pixels, height and width to which the images are resized.

    Attributes:
        path: the file, or None if none can be written and all images are decoded.
    """

    def __init__(self, directory, size):
        self.directory, self.shape = Path(os.path.abspath(directory)), (size, size, 3)
        self.lock = threading.Lock()  # of the connection, which the threads share
        self.path = self.db = None
        self.pruned, self.pruning = False, threading.Lock()
        for path in _locations(self.directory, size) if sqlite3 else ():
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

    def log_location(self):
        """Print, once, where the cache is and how large it gets."""
        if self.path is None:
            log_once(f"{self.directory}: no cache of resized images can be written; every epoch decodes them.")
        else:
            kilobytes = int(np.prod(self.shape)) / 1000
            log_once(f"Resized images are kept in {self.path}, {kilobytes:.0f} kB each (not with --no-cache).")

    def get_or_compute(self, path, compute):
        """Return a resized image, uint8 [size, size, 3], from the cache or by `compute(path)`."""
        try:
            key = self._key(path)  # before it is read: a file that replaces it meanwhile has another state
        except OSError:
            return compute(path)
        img = self._get(key)
        if img is None:
            img = compute(path)
            self._put(key, img)
        return img

    def _key(self, path):
        status = os.stat(path)
        name = os.fsencode(os.path.relpath(path, self.directory))
        # Tools that write into a file (the EXIF orientation) may restore its modification time, but not its ctime.
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
            with self.pruning:  # other threads wait, or their entries would make the file grow
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
        """Delete the entries whose files are gone."""
        for (name,) in self._execute("SELECT name FROM images"):
            if not (isinstance(name, bytes) and os.path.isfile(os.path.join(os.fsencode(self.directory), name))):
                self._execute("DELETE FROM images WHERE name = ?", (name,))
        self.pruned = True

    def _execute(self, statement, values=()):
        """Return the rows of a statement, or [] if it fails."""
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
        """Return whether no other process has removed or replaced the file."""
        try:
            return self.path.stat().st_ino == self.file_number
        except OSError:
            return False

    def _stop_writing(self, reason):
        self.writable = False
        log_once(f"{self.path}: {shorten(reason)}; images that are not in this cache are decoded again.")

    def _close(self):
        if self.db is not None:
            self.db.close()
            self.db = None


def _locations(directory, size):
    """Yield the paths that the cache of a directory may have: there, or under the user's cache directory."""
    yield directory / f"{CACHE_PREFIX}{size}.cache"
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "palm_cls")
        home.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):  # no home, or not writable
        return
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()
    yield home / f"{digest[:16]}-{size}.cache"


def _open(path):
    """Return a connection to the cache at `path`, created if it is missing, damaged or another file."""
    try:
        return _connect(path)
    except sqlite3.Error as error:
        if not _remove_if_damaged(path, error):
            raise
        return _connect(path)


def _remove_if_damaged(path, error):
    """Remove the file if SQLite's error is about its content; return whether it is gone."""
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
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute(f"PRAGMA max_page_count = {MAX_BYTES // PAGE_BYTES}")
        db.execute("PRAGMA synchronous = OFF")  # a power cut may damage it: it can be created again
        db.execute("BEGIN IMMEDIATE")  # fails if it cannot be written
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
