"""Warnings of libjpeg about a damaged JPEG, which `cv2.imdecode` does not pass on.

libjpeg decodes damaged data to some picture, and OpenCV returns it like any other. The warning is only printed on
standard error, which the threads share. Therefore another process decodes the file once more, its standard error on a
pipe (`read_warning`). That takes half as long again. If the system counts the writes of each thread (Linux),
`count_writes` shows beforehand that there was no warning.
"""

import atexit
import functools
import os
import subprocess
import sys
import threading

from palm_cls.core.errors import RunError, shorten

WRITE_COUNTS = "/proc/thread-self/io"
END = b"\0\n"  # of an answer
# Answers once when it has started, then for each JPEG (8 bytes of length, content): libjpeg's warning, if any, and END.
# An eighth of the size spares most of the work but none of the reading.
CHECKER_SCRIPT = f"""
import sys
sys.path = list(filter(None, sys.path))  # "", the current directory, may hold a signal.py of the user's
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; this ends with its input
import cv2, numpy
while True:
    sys.stdout.buffer.write({END})
    sys.stdout.buffer.flush()
    size = sys.stdin.buffer.read(8)
    if not size:
        break
    content = numpy.frombuffer(sys.stdin.buffer.read(int.from_bytes(size, "big")), numpy.uint8)
    cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_8)
"""


def count_writes():
    """Return the number of write calls of this thread; None if the system has no count."""
    return _read_write_count() if _counts_writes() else None


def read_warning(content):
    """Return libjpeg's warning about a JPEG (bytes), one line, or "".

    Raises:
        RunError: The process that decodes for it cannot be started, or has ended.
    """
    return _checker(os.getpid()).read_warning(content)


@functools.cache
def _counts_writes():
    before = _read_write_count()
    try:
        os.write(2, b"")
    except OSError:  # standard error is closed, so that warnings would not count
        return False
    return before is not None and _read_write_count() == before + 1


def _read_write_count():
    try:
        file = os.open(WRITE_COUNTS, os.O_RDONLY)
        try:
            return int(os.read(file, 1000).partition(b"syscw:")[2].split()[0])
        finally:
            os.close(file)
    except (OSError, IndexError, ValueError):
        return None


@functools.cache
def _checker(process_id):
    """Return the checker of this process; a fork must not use that of its parent."""
    return _Checker()


class _Checker:
    """A process that decodes JPEGs for their warnings, one at a time, started when first needed."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None
        atexit.register(self._stop)

    def read_warning(self, content):
        with self.lock:
            try:
                if self.process is None:
                    self._start()
                self.process.stdin.write(len(content).to_bytes(8, "big") + content)
                self.process.stdin.flush()
                return self._answer()
            except OSError as error:
                self._stop()
                raise RunError(f"the process that checks JPEGs: {error.strerror or error}; start again") from error
            except BaseException:  # or its answer would be taken for that on the next file
                self._stop()
                raise

    def _start(self):
        # The other process must find the same packages.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHECKER_SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # or it ends with a closed terminal, before this process has saved
        )
        self._answer()

    def _answer(self):
        lines = []
        while (line := self.process.stdout.readline()) != END:
            if not line:
                reason = shorten(lines[-1].decode(errors="replace").strip()) if lines else "no message"
                raise RunError(f"the process that checks JPEGs has ended ({reason}); start again")
            lines.append(line)
        return shorten(b" ".join(lines).decode(errors="replace").strip())

    def _stop(self):
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()
