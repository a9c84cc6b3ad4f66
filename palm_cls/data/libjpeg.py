"""What libjpeg warns of when it decodes a JPEG, which `cv2.imdecode` does not pass on.

Of damaged data libjpeg makes some picture, and OpenCV returns it like any other. All that libjpeg does besides is to
print the warning on standard error, where no thread can read it for itself. So another process decodes the file once
more, with its standard error on a pipe: `warning`. That takes half as long again; but where the system counts what each
thread writes (Linux), `count_writes` tells beforehand that there was no warning.
"""

import atexit
import functools
import os
import subprocess
import sys
import threading

from palm_cls.core.errors import RunError, excerpt

COUNTS = "/proc/thread-self/io"
END = b"\0\n"  # of an answer
# Answers once when it has started, then for each JPEG (8 bytes of length, content): libjpeg's warning, if any, and END.
# An eighth of the size spares most of the work but none of the reading.
CHILD = f"""
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
    """Number of write calls of this thread, in which a warning is one; None where the system does not count them."""
    return _counted_writes() if _counts_writes() else None


def warning(content):
    """libjpeg's warning on a JPEG (bytes), one line, or ""; raises RunError where no other process can be asked."""
    return _checker(os.getpid()).warning(content)


@functools.cache
def _counts_writes():
    before = _counted_writes()
    try:
        os.write(2, b"")
    except OSError:  # standard error is closed, and what is printed there would not count
        return False
    return before is not None and _counted_writes() == before + 1


def _counted_writes():
    try:
        file = os.open(COUNTS, os.O_RDONLY)
        try:
            return int(os.read(file, 1000).partition(b"syscw:")[2].split()[0])
        finally:
            os.close(file)
    except (OSError, IndexError, ValueError):
        return None


@functools.cache
def _checker(process_id):
    """The one of this process: a fork must not use that of its parent."""
    return _Checker()


class _Checker:
    """The process that decodes JPEGs for their warnings, one at a time; it is started when it is first needed."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None
        atexit.register(self._stop)

    def warning(self, content):
        """libjpeg's warning on the content of a JPEG (bytes), one line, or ""."""
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
            except BaseException:  # its answer would be taken for that on the next file
                self._stop()
                raise

    def _start(self):
        # What this process imports from its own directories, that one must find, too.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
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
                said = excerpt(lines[-1].decode(errors="replace").strip()) if lines else "no word"
                raise RunError(f"the process that checks JPEGs has ended ({said}); start again")
            lines.append(line)
        return excerpt(b" ".join(lines).decode(errors="replace").strip())

    def _stop(self):
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()
