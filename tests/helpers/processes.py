"""The tools and Python in processes of their own, and what they must print."""

import os
import re
import subprocess
import sys

import pytest

from helpers import PROJECT, TESTS

HEAVY = {"paddle", "cv2", "pandas", "torch", "onnx", "onnxruntime", "paddle2onnx", "gradio"}  # to import
# how lines begin that are no errors
NOTICES = ("Running on ", "Resized images are kept", "No images found", "This is the demo set")


def assert_refused(done, *told):
    """Wrong use or input: exit status 2, nothing printed, one or two plain lines on standard error."""
    errors = [line for line in done.stderr.splitlines() if not line.startswith(NOTICES)]
    assert (done.returncode, done.stdout) == (2, "")
    assert 1 <= len(errors) <= 2, done.stderr
    for text in told:
        assert text in done.stderr


def assert_lines(text, patterns):
    """The lines of a text are as many as the regular expressions, and each is matched by its own, whole."""
    lines = text.splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns):
        assert re.fullmatch(pattern, line), line


def imported(name, *args):
    """The top-level modules that a tool imports."""
    command = [sys.executable, "-X", "importtime", str(PROJECT / "tools" / f"{name}.py"), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


def fresh_python(code, **env):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **env}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


TRAIN = [
    sys.executable,
    "-W",
    "ignore",
    str(TESTS / "helpers" / "tiny.py"),
    "--model",
    "tiny",
    "--no-report",
]  # as tools/train.py


def train(*args, cwd=None, **env):
    command, env = [*TRAIN, *map(str, args)], {**os.environ, **env}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=600)
