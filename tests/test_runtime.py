import os
import random
import subprocess
import sys

import numpy as np
import paddle
import pytest
from conftest import PROJECT

from palm_cls import machine, messages, runtime
from palm_cls.messages import InputError


def fresh_python(code, **env):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **env}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


def test_all_cores_are_used_unless_the_user_said_otherwise():
    code = "import palm_cls.runtime as r; print(r.threads(), r.machine.available_cores())"
    threads, cores = fresh_python(code, OMP_NUM_THREADS=None).stdout.split()
    assert threads == cores
    assert fresh_python(code, OMP_NUM_THREADS="1").stdout.split()[0] == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_is_respected():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "import palm_cls.runtime as r; print(r.threads())"
    assert fresh_python(code, OMP_NUM_THREADS=None).stdout.strip() == "1"


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM")
def test_a_handler_of_sigterm_is_still_there_after_paddle_was_imported():
    code = "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('in order')); "
    code += "import palm_cls.runtime; os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "in order\n")


def test_devices():
    assert runtime.choose_device("cpu") == "cpu"
    for wrong in ("tpu", "cpu:1", "gpu:x", "", "gpu:99"):
        with pytest.raises(InputError, match="is none of cpu, gpu|is not there"):
            runtime.choose_device(wrong)


def test_what_it_runs_on_is_told_once_in_one_line(capsys):
    messages.notice_once.cache_clear()
    device = runtime.choose_device()
    runtime.choose_device()
    build = "GPU build" if paddle.is_compiled_with_cuda() else "CPU build"
    threads = f"{runtime.threads()} thread"
    told = capsys.readouterr().err
    assert told.startswith(f"Running on {device}: PaddlePaddle {paddle.__version__} ({build}), {threads}")
    assert told.count("\n") == 1


def test_a_notebook_that_imported_paddle_first_is_told_in_one_line():
    done = fresh_python("import paddle; import palm_cls.runtime", OMP_NUM_THREADS=None)
    told = [line for line in done.stderr.splitlines() if "before palm_cls" in line]
    if machine.available_cores() > 1:
        assert len(told) == 1
        assert "OMP_NUM_THREADS" in told[0]
        assert "`import palm_cls.runtime` first" in told[0]
    assert "before palm_cls" not in fresh_python("import palm_cls.runtime, paddle", OMP_NUM_THREADS=None).stderr


def test_stock_leaves_paddle_as_it_comes():
    code = "import palm_cls.runtime as r; r.choose_device('cpu'); print(r.threads(), r.KEEPS_MEMORY)"
    done = fresh_python(code, OMP_NUM_THREADS=None, PALM_STOCK="1")
    assert done.stdout.split() == ["1", "False"]
    assert "1 thread, speed settings as they come." in done.stderr


def test_a_seed_settles_all_three_generators():
    def draw():
        runtime.set_seed(7)
        return random.random(), np.random.rand(), paddle.rand([1]).item()

    assert draw() == draw()
