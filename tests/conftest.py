import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm_cls.core import console
from palm_cls.data import palm

TESTS = Path(__file__).parent
PROJECT = TESTS.parent


@pytest.fixture(scope="session")
def golden():
    """Numbers of the original under PaddlePaddle 1.6.1: golden("lenet1") -> {name: array}."""
    return lambda name: np.load(TESTS / "golden" / f"{name}.npz")


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory):
    """A demo set of 20 training and 10 validation images."""
    from palm_cls.data.demo_set import write_demo_set

    root = tmp_path_factory.mktemp("small") / "demo"
    write_demo_set(root, train=20, valid=10)
    (root / palm.DEMO_MARK).write_text("small")
    return root


@pytest.fixture
def math_threads():
    """A function: {library and function: number of threads}, asked of paddle's OpenMP and MKL libraries themselves."""
    import ctypes

    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("loaded libraries are listed under Linux only")

    def ask():
        mapped = {line.split()[-1] for line in maps.read_text().splitlines() if ".so" in line}
        libraries = [file for file in mapped if Path(file).name in ("libiomp5.so", "libmklml_intel.so")]
        functions = ("omp_get_max_threads", "MKL_Get_Max_Threads")
        return {
            (Path(file).name, function): getattr(ctypes.CDLL(file), function)()
            for file in libraries
            for function in functions
            if hasattr(ctypes.CDLL(file), function)
        }

    return ask


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data anywhere: project and AI Studio directories are empty ones under tmp_path. Returns the project's."""
    for name in ("project/data", "aistudio_data"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(palm, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(palm, "AISTUDIO_WORK", tmp_path / "aistudio_work")
    monkeypatch.setattr(palm, "AISTUDIO_DATA", tmp_path / "aistudio_data")
    monkeypatch.delenv("PALM_DATA", raising=False)
    console.log_once.cache_clear()
    return tmp_path / "project"


@pytest.fixture(scope="session")
def real_palm():
    """The directory of the real images, in the course's layout."""
    root = Path(os.environ.get("PALM_TEST_DATA", "")) / "palm"
    if "PALM_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs the real images: set PALM_TEST_DATA to a directory that holds palm/")
    return root


@pytest.fixture(scope="session")
def tool():
    """Run a tool as a user would: tool("train", "--epochs", 1) -> CompletedProcess with text output.

    Training writes no report, which takes seconds, unless asked to: tool("train", report=True).
    """

    def run(name, *args, cwd=None, report=False, **env):
        if name == "train" and not report:
            args = (*args, "--no-report")
        command = [sys.executable, str(PROJECT / "tools" / f"{name}.py"), *map(str, args)]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **env}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=600)

    return run


@pytest.fixture
def tool_here(monkeypatch):
    """Run a tool in this process, where paddle is imported already: tool_here("train", "--lr", 0), like `tool`.

    It saves the two seconds in which a new process imports what it needs; for what a tool refuses.
    """
    signals = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
    }

    def run(name, *args, cwd=None):
        script = PROJECT / "tools" / f"{name}.py"
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(os, "environ", os.environ.copy())
            patch.setattr(sys, "argv", [str(script), *map(str, args)])
            patch.syspath_prepend(script.parent)
            patch.chdir(cwd or Path.cwd())
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(script), run_name="__main__")
            printed = [stream.seek(0) or stream.read() for stream in (out, err)]
        return subprocess.CompletedProcess(sys.argv, ended.value.code, *printed)

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
