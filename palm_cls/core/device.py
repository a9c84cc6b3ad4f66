"""Import paddle, configured for this machine and without its start-up messages; device and seeds.

Every module imports paddle from here: `from palm_cls.core.device import paddle`. What must be configured before that is
in `palm_cls.core.environment`.
"""

import contextlib
import ctypes
import io
import os
import random
import signal
import threading
import warnings
import zlib  # noqa: F401  before paddle: 2.6.2 bundles a zlib that breaks SciPy if it is loaded first

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
    """Number of GPUs that paddle sees; 1 if counting fails, so that the test of the first one gives the reason."""
    try:
        return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    except Exception:  # the driver is too old
        return 1


environment.configure()
MALLOC_TUNED = environment.tune_malloc()

# `import paddle` warns of several threads, of a missing ccache and of a missing GPU; without a driver, the C++ code
# of the GPU build reports at length that cuDNN is missing.
if not _has_nvidia_driver():
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors only
with contextlib.redirect_stderr(io.StringIO()):
    import paddle

    if paddle.is_compiled_with_cuda() and _gpus() == 0:
        paddle.set_device("cpu")  # so that the GPU build does not warn at the first tensor

# Every epoch with batch normalisation would begin with this warning.
warnings.filterwarnings("ignore", "When training, we now always track global mean")
# paddle's C++ code handles SIGTERM by ending the process at once, and leaves its temporary files behind.
if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGTERM)):
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def num_threads():
    """Number of threads that paddle uses on the CPU."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])  # set by `import paddle` at the latest


def choose_device(name=None):
    """Select the device that paddle computes on, and log it once.

    A GPU is tested first. If it fails, the CPU replaces it, and a log line says why; but a GPU that was named, or that
    paddle's launcher has chosen for one of several processes, must work.

    Args:
        name: "cpu", "gpu", "gpu:1", ...; by default the GPU if there is one, else the CPU.

    Returns:
        The name of the device in paddle ("cpu", "gpu:0").

    Raises:
        InputError: the named device is not there or does not work.
    """
    gpus, named = _gpus(), name is not None or environment.world_size() > 1
    if name is None:
        name = "gpu" if gpus else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "gpu") or (index and not (kind == "gpu" and index.isdecimal())):
        raise InputError(f"device {name!r} is none of cpu, gpu, gpu:0, gpu:1, ...")
    if index and environment.world_size() > 1:
        raise InputError(
            f"device {name!r} is for one process; choose the GPUs of several with the launcher's --devices"
        )
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
    """Test a GPU with a small convolution and its gradient; why it fails and what to do, in words, or None.

    This detects a missing or wrong driver, CUDA or cuDNN, lack of memory, and a card that the build has no code for.
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
    except Exception as error:  # paddle raises many types
        failure = error_reason(error).rstrip("."), _remedy(error)
    paddle.set_device("cpu")  # what is computed before the next choice must not fail
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
        return ", ".join([*parts, "Paddle's default speed settings"])
    if "MKL_DEBUG_CPU_TYPE" in os.environ:
        parts.append(f"MKL_DEBUG_CPU_TYPE={os.environ['MKL_DEBUG_CPU_TYPE']}")
    if MALLOC_TUNED:
        parts.append("freed memory kept")
    return ", ".join(parts)


def seed_step(base, step):
    """Seed paddle's random numbers (dropout) for a training step.

    paddle 2.6 cannot save the state of its random numbers. So those of a step follow from the seed of the run, the
    number of the step and the rank alone, and a run can be resumed at any step.

    Args:
        base: seed of the run.
        step: number of the step, from 0.
    """
    rank = [environment.rank()] if environment.rank() else []
    paddle.seed(int(np.random.SeedSequence([base, step, *rank]).generate_state(1)[0]))


def current_seed():
    """Return the seed that paddle's random numbers were last given."""
    return paddle.get_rng_state()[0].current_seed()


def set_seed(seed):
    """Seed Python's, NumPy's and paddle's random numbers, and select deterministic cuDNN kernels.

    The same seed on the same machine with the same number of threads gives the same numbers, bit for bit.

    Args:
        seed: int from 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
    if paddle.is_compiled_with_cuda():
        paddle.set_flags({"FLAGS_cudnn_deterministic": True})
