"""Imports paddle, settled for this machine and without its start-up chatter; device and seeds.

Every module that uses paddle takes it from here: `from palm_cls.core.device import paddle`. What must be settled before
the import is in `palm_cls.core.environment`.
"""

import contextlib
import ctypes
import io
import os
import random
import signal
import threading
import warnings
import zlib  # noqa: F401  before paddle: 2.6.2 brings its own, which breaks the system's for SciPy if it is loaded first

import numpy as np

from palm_cls.core import environment
from palm_cls.core.console import log_once
from palm_cls.core.errors import InputError, error_reason, is_out_of_memory, missing_library


def _has_nvidia_driver():
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _gpus():
    """Number of GPUs that paddle sees; 1 if it fails to count them, for the trial of the first to say why."""
    try:
        return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    except Exception:  # of a driver that is too old
        return 1


environment.configure()
MALLOC_TUNED = environment.tune_malloc()

# `import paddle` warns of more than one thread, of a missing ccache, of a missing GPU; and the GPU build's C++ side
# tells at length that there is no cuDNN, where no driver is there to use it either.
if not _has_nvidia_driver():
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors only
with contextlib.redirect_stderr(io.StringIO()):
    import paddle

    if paddle.is_compiled_with_cuda() and _gpus() == 0:
        paddle.set_device("cpu")  # settled here, the GPU build has no reason to warn at the first tensor

# What every training with batch normalisation would begin each epoch with.
warnings.filterwarnings("ignore", "When training, we now always track global mean")
# paddle's C++ side takes SIGTERM for itself, and would end the process at once, with its temporary files left behind.
if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGTERM)):
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def num_threads():
    """Number of threads that paddle computes with on the CPU."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])  # set by `import paddle` where nobody else did


def choose_device(name=None):
    """Run on device `name` ("cpu", "gpu", "gpu:1", ...), or without one on the GPU if there is one, else on the CPU.

    Says once what it runs on. Returns the device's name as paddle spells it ("cpu", "gpu:0"). A GPU is tried first:
    without a name the CPU takes the place of one that does not work, and a notice says why. Raises InputError for a
    named device that is not there or does not work. Where paddle's launcher has started several processes, it has also
    chosen their GPUs, and each of these must work.
    """
    gpus, named = _gpus(), name is not None or environment.world_size() > 1
    if name is None:
        name = "gpu" if gpus else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "gpu") or (index and not (kind == "gpu" and index.isdecimal())):
        raise InputError(f"device {name!r} is none of cpu, gpu, gpu:0, gpu:1, ...")
    if index and environment.world_size() > 1:
        raise InputError(f"device {name!r} is for one process; the launcher's --devices tells the GPUs of several")
    if kind == "gpu" and int(index or 0) >= gpus:
        raise InputError(f"device {name!r} is not there: PaddlePaddle sees {gpus} GPUs; use --device cpu")
    failure = _failure_of(name) if kind == "gpu" else None
    if failure and named:
        raise InputError(f"device {name!r} does not work: {failure}, or use --device cpu")
    if failure:
        log_once(f"The GPU does not work, so the CPU is used: {failure}.")
    paddle.set_device("cpu" if failure else name)
    log_once(f"Running on {paddle.get_device()}: {_description()}.")
    return paddle.get_device()


def _failure_of(name):
    """Why a small convolution and its gradient fail on a GPU, and what to do, in words; None if they do not fail.

    What can be wrong with a GPU shows here: driver, CUDA, cuDNN, memory, a card that the build has no code for.
    """
    try:
        paddle.set_device(name)
        weight = paddle.ones([1, 1, 3, 3])
        weight.stop_gradient = False
        output = paddle.nn.functional.conv2d(paddle.ones([1, 1, 4, 4]), weight)
        output.sum().backward()
        if (output.numpy() == 9).all() and (weight.grad.numpy() == 4).all():
            return None
        failure = "a small convolution gives wrong numbers", OTHER_BUILD
    except Exception as error:  # paddle's are of many types
        failure = error_reason(error).rstrip("."), _remedy(error)
    paddle.set_device("cpu")  # where nothing fails that is computed before another choice
    return f"{failure[0]}; {failure[1]}"


OTHER_BUILD = "install a PaddlePaddle built for this card and driver (https://www.paddlepaddle.org.cn/install/quick)"


def _remedy(error):
    if is_out_of_memory(error):
        return "free memory on the GPU that other programs hold"
    if library := missing_library(error):
        wanted = f"cuDNN {paddle.version.cudnn()}" if library == "cudnn" else library
        return f"install {wanted} for CUDA {paddle.version.cuda()} where the loader finds it (LD_LIBRARY_PATH)"
    if "driver version is insufficient" in str(error):
        return f"install an NVIDIA driver for CUDA {paddle.version.cuda()} or newer"
    return OTHER_BUILD


def _description():
    build = "GPU build" if paddle.is_compiled_with_cuda() else "CPU build"
    several = f"{environment.world_size()} processes with " if environment.world_size() > 1 else ""
    parts = [
        f"PaddlePaddle {paddle.__version__} ({build})",
        f"{several}{num_threads()} thread{'s' if num_threads() > 1 else ''}{' each' if several else ''}",
    ]
    if environment.use_paddle_defaults():
        return ", ".join([*parts, "speed settings as they come"])
    if "MKL_DEBUG_CPU_TYPE" in os.environ:
        parts.append(f"MKL_DEBUG_CPU_TYPE={os.environ['MKL_DEBUG_CPU_TYPE']}")
    if MALLOC_TUNED:
        parts.append("freed memory kept")
    return ", ".join(parts)


def seed_step(base, step):
    """Seed paddle's random numbers (dropout) for training step `step` of a run that started from seed `base`.

    paddle 2.6 cannot write down the state of its random numbers. So each step's are a function of the run's seed and
    the step's number alone, and a run can go on from any step; of processes that train together each has its own.
    """
    own = [environment.rank()] if environment.rank() else []
    paddle.seed(int(np.random.SeedSequence([base, step, *own]).generate_state(1)[0]))


def current_seed():
    """The seed that paddle's random numbers were last given."""
    return paddle.get_rng_state()[0].current_seed()


def set_seed(seed):
    """Seed Python's, NumPy's and paddle's random numbers, and ask cuDNN for repeatable kernels.

    seed: a whole number from 0 to 2**32 - 1. The same seed on the same machine with the same number of threads then
    gives the same numbers, bit for bit.
    """
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
    if paddle.is_compiled_with_cuda():
        paddle.set_flags({"FLAGS_cudnn_deterministic": True})
