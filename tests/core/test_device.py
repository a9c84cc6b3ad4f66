import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT
from helpers.processes import fresh_python

from palm_cls.core import console, device, environment
from palm_cls.core.errors import InputError

import paddle


@pytest.mark.slow
def test_all_cores_are_used_unless_the_user_said_otherwise():
    code = "import palm_cls.core.device as r; print(r.num_threads(), r.environment.available_cores())"
    threads, cores = fresh_python(code, OMP_NUM_THREADS=None).stdout.split()
    assert threads == cores
    assert fresh_python(code, OMP_NUM_THREADS="1").stdout.split()[0] == "1"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_is_respected():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "import palm_cls.core.device as r; print(r.num_threads())"
    assert fresh_python(code, OMP_NUM_THREADS=None).stdout.strip() == "1"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM")
def test_a_handler_of_sigterm_is_still_there_after_paddle_was_imported():
    code = "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit('in order')); "
    code += "import palm_cls.core.device; os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "in order\n")


@pytest.mark.slow
def test_who_trains_alone_against_the_environment_is_told():
    code = "import palm_cls.core.device as r; r.paddle.set_device('cpu'); print(r.environment.world_size())"
    done = fresh_python(code, PADDLE_TRAINER_ID="", PADDLE_TRAINERS_NUM="4")
    assert done.stdout == "1\n"
    told = "PADDLE_TRAINERS_NUM=4 PADDLE_TRAINER_ID= is set, but not by paddle.distributed.launch, and is ignored"
    assert told in done.stderr


def test_devices():
    assert device.choose_device("cpu") == "cpu"
    for wrong in ("tpu", "cpu:1", "gpu:x", "", "gpu:99"):
        with pytest.raises(InputError, match="is none of cpu, gpu|is not there"):
            device.choose_device(wrong)


CUDNN = """(PreconditionNotMet) Cannot load cudnn shared library. Cannot invoke method cudnnGetVersion.
  [Hint: cudnn_dso_handle should not be null.] (at /paddle/paddle/phi/backends/dynload/cudnn.cc:64)"""
DRIVER = """(External) CUDA error(35), CUDA driver version is insufficient for CUDA runtime version.
  [Hint: 'cudaErrorInsufficientDriver'. This indicates that the driver is older.] (at /paddle/gpu_info.cc:78)"""
CARD = """(Fatal) Operator uniform_random raises an thrust::system::system_error exception.
The exception content is
:parallel_for failed: cudaErrorNoKernelImageForDevice: no kernel image is available for execution on the device."""
MEMORY = """

--------------------------------------
C++ Traceback (most recent call last):
--------------------------------------
0   phi::GetCurrentTraceBackString[abi:cxx11]()

----------------------
Error Message Summary:
----------------------
ResourceExhaustedError:

Out of memory error on GPU 0. Cannot allocate 98.0MB memory on GPU 0, 6.0GB memory has been allocated.

Please check whether there is any other process using GPU 0.
 (at /paddle/paddle/fluid/memory/allocation/cuda_allocator.cc:95)"""
FAILURES = [
    (RuntimeError(CUDNN), r"Cannot load cudnn shared library\. .*; install cuDNN \S+ for CUDA \S+ where the loader"),
    (OSError(DRIVER), r"CUDA error\(35\), CUDA driver version is insufficient .*; install an NVIDIA driver"),
    (SystemError(CARD), r"no kernel image is available .*; install a PaddlePaddle built for this card"),
    (MemoryError(MEMORY), r": Out of memory error on GPU 0\. Cannot .* allocated; free memory on the GPU"),
]


@pytest.fixture
def gpu_that(monkeypatch):
    """gpu_that(fail): paddle sees one GPU, and to choose it calls `fail`, which may raise; it is the CPU in truth."""
    set_device = paddle.set_device

    def pretend(fail):
        monkeypatch.setattr(device, "_gpus", lambda: 1)
        monkeypatch.setattr(paddle, "set_device", lambda name: fail() if name.startswith("gpu") else set_device(name))
        console.log_once.cache_clear()

    yield pretend
    set_device("cpu")


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(("error", "told"), FAILURES)
def test_a_gpu_that_does_not_work_is_told_and_the_cpu_takes_its_place(gpu_that, error, told, capsys):
    gpu_that(raising(error))
    assert device.choose_device() == "cpu"
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("The GPU does not work, so the CPU is used: ")
    assert re.search(told, first)
    assert second.startswith("Running on cpu: ")
    for name in ("gpu", "gpu:0"):
        with pytest.raises(InputError, match="^device 'gpu(:0)?' does not work: .*, or use --device cpu$"):
            device.choose_device(name)


def test_one_that_cannot_be_counted_is_tried(monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", raising(OSError(DRIVER)))
    assert device._gpus() == 1


def test_so_is_one_that_computes_something_else(gpu_that, monkeypatch, capsys):
    conv2d = paddle.nn.functional.conv2d
    gpu_that(lambda: None)
    monkeypatch.setattr(paddle.nn.functional, "conv2d", lambda *args: conv2d(*args) * 0)
    assert device.choose_device() == "cpu"
    assert "a small convolution gives wrong numbers" in capsys.readouterr().err


def test_a_gpu_that_works_is_taken_and_the_trial_draws_no_random_number(gpu_that, capsys):
    gpu_that(lambda: None)
    device.set_seed(3)
    drawn = paddle.rand([2]).tolist()
    device.set_seed(3)
    device.choose_device()
    assert paddle.rand([2]).tolist() == drawn
    assert "does not work" not in capsys.readouterr().err


def test_of_processes_that_train_together_none_falls_back_alone(gpu_that, monkeypatch):
    gpu_that(raising(RuntimeError(CUDNN)))
    monkeypatch.setattr(environment, "world_size", lambda: 2)
    with pytest.raises(InputError, match="does not work: Cannot load cudnn"):
        device.choose_device()


def test_what_it_runs_on_is_told_once_in_one_line(capsys):
    console.log_once.cache_clear()
    chosen = device.choose_device()
    device.choose_device()
    build = "GPU build" if paddle.is_compiled_with_cuda() else "CPU build"
    threads = f"{device.num_threads()} thread"
    told = capsys.readouterr().err
    assert told.startswith(f"Running on {chosen}: PaddlePaddle {paddle.__version__} ({build}), {threads}")
    assert told.count("\n") == 1


@pytest.mark.slow
def test_a_notebook_that_imported_paddle_first_is_told_in_one_line():
    done = fresh_python("import paddle; import palm_cls.core.device", OMP_NUM_THREADS=None)
    told = [line for line in done.stderr.splitlines() if "before palm_cls" in line]
    if environment.available_cores() > 1:
        assert len(told) == 1
        assert "OMP_NUM_THREADS" in told[0]
        assert "`import palm_cls` first" in told[0]
    assert (
        "before palm_cls"
        not in fresh_python("import palm_cls, paddle, palm_cls.core.device", OMP_NUM_THREADS=None).stderr
    )


@pytest.mark.slow
def test_stock_leaves_paddle_as_it_comes():
    code = "import palm_cls.core.device as r; r.choose_device('cpu'); print(r.num_threads(), r.MALLOC_TUNED)"
    done = fresh_python(code, OMP_NUM_THREADS=None, PALM_STOCK="1")
    assert done.stdout.split() == ["1", "False"]
    assert "1 thread, Paddle's default speed settings." in done.stderr


def test_a_seed_settles_all_three_generators():
    def draw():
        device.set_seed(7)
        return random.random(), np.random.rand(), paddle.rand([1]).item()

    assert draw() == draw()
