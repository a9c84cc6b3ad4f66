"""Cores, memory and processes of this machine, and the environment variables that paddle reads when imported.

Imports neither paddle nor OpenCV: `import palm_cls` sets the variables before either is imported. By default paddle
computes on one thread, and on AMD uses an old code path of the MKL library that it bundles. Variables that are set
already stay as they are; `PALM_STOCK=1` (the tools' `--stock`) keeps all of Paddle's defaults.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of mallopt, in <malloc.h>
MKL_AVX512, MKL_AVX2 = "7", "5"  # values of MKL_DEBUG_CPU_TYPE
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # which MKL's path needs

MAX_PIXELS = 100_000_000  # fundus cameras give up to 50 million; a header of 100 bytes can state any number
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when cv2 is imported; its default is 2**30

TRAINER = {
    "PADDLE_TRAINERS_NUM": "1",
    "PADDLE_TRAINER_ID": "0",
}  # the launcher's variables, and their values for a single process
_configured = {}  # {variable: value} that `configure` has set


def use_paddle_defaults():
    """Whether the environment requests Paddle's defaults (`PALM_STOCK=1`)."""
    return os.environ.get("PALM_STOCK", "") not in ("", "0")


def world_size():
    """Number of processes that paddle's launcher has started to train together; 1 without a launcher."""
    return int(os.environ["PADDLE_TRAINERS_NUM"]) if _is_launched() else 1


def rank():
    """Rank of this process, from 0."""
    return int(os.environ["PADDLE_TRAINER_ID"]) if _is_launched() else 0


def _is_launched():
    """Whether all of the launcher's variables are set; clusters set some of them for their own jobs."""
    number, rank = (os.environ.get(name, "") for name in TRAINER)
    return (
        bool(os.environ.get("PADDLE_CURRENT_ENDPOINT")) and _is_number(number) and _is_number(rank, below=int(number))
    )


def _is_number(text, below=1 << 30):
    return text.isascii() and text.isdecimal() and int(text) < below


def drop_stray_launch_variables():
    """Remove launcher variables that no launcher has set; return those of more than one process, {name: value}."""
    stray = {} if _is_launched() else {name: os.environ.pop(name) for name in TRAINER if name in os.environ}
    return {name: value for name, value in stray.items() if value != TRAINER[name]}


def local_world_size():
    """Number of processes on this machine that train together."""
    here = os.environ.get("PADDLE_LOCAL_SIZE", "")
    return max(1, int(here)) if world_size() > 1 and _is_number(here) else 1


def available_cores():
    """Number of cores that this process may use, at least 1.

    The minimum of its CPU affinity and the container's quota, divided among the processes of a distributed training.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, min(cores, _cgroup_quota(cores)) // local_world_size())


@contextlib.contextmanager
def thread_pool():
    """Yield a ThreadPoolExecutor with a thread for each core; at the end, tasks not yet started are cancelled."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(available_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _cgroup_quota(unlimited):
    """Cores granted by Linux control groups (v2, then v1); `unlimited` without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return unlimited
    try:
        return int(quota) // int(period) if int(quota) > 0 else unlimited
    except ValueError:  # "max"
        return unlimited


def mkl_cpu_type(cpuinfo):
    """Choose MKL_DEBUG_CPU_TYPE for a processor.

    MKL before 2020.1 uses its SSE path on every processor that is not Intel's. A path that needs missing instructions
    would crash the process.

    Args:
        cpuinfo: Linux's /proc/cpuinfo (str).

    Returns:
        A value (str), or None if MKL finds its best path itself.
    """
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())  # of the first core
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = set(fields.get("flags", "").split())
    if fields.get("vendor_id") not in ("AuthenticAMD", "HygonGenuine") or not {"avx2", "fma"} <= flags:
        return None
    return MKL_AVX512 if flags >= AVX512 else MKL_AVX2


def paddle_environment():
    """Return {variable: value} to set before paddle is imported; {} for Paddle's defaults."""
    if use_paddle_defaults():
        return {}
    wanted = {"OMP_NUM_THREADS": str(available_cores())}
    try:
        cpu_type = mkl_cpu_type(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        cpu_type = None
    if cpu_type:
        wanted["MKL_DEBUG_CPU_TYPE"] = cpu_type
    return wanted


def configure():
    """Set the variables of `paddle_environment` that are not set yet; warn if paddle was imported too early."""
    from palm_cls.core.console import log, log_once  # which imports this module

    if stray := drop_stray_launch_variables():
        settings = " ".join(f"{name}={value}" for name, value in stray.items())
        log(f"{settings} is set, but not by paddle.distributed.launch, and is ignored: this process trains alone.")
    wanted = paddle_environment()
    if "paddle" not in sys.modules:
        for name in wanted.keys() - os.environ.keys():
            os.environ[name] = _configured[name] = wanted[name]
        return
    defaults = {"OMP_NUM_THREADS": "1"}  # set by `import paddle`
    missed = {name: value for name, value in wanted.items() if os.environ.get(name) == defaults.get(name) != value}
    if missed:
        settings = " ".join(f"{name}={value}" for name, value in missed.items())
        log_once(
            f"paddle was imported before palm_cls, without {settings}, and is slow. To change that, restart and "
            "`import palm_cls` first."
        )


def restore():
    """Undo `configure`, also for child processes; without effect after paddle is imported."""
    if "paddle" in sys.modules:
        return
    for name, value in _configured.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _configured.clear()


def tune_malloc():
    """Make the C library keep freed memory for the next allocation.

    Otherwise the kernel provides and takes back every large array (a decoded photograph, a gradient): thousands of page
    faults in each step.

    Returns:
        Whether it does: with glibc, unless Paddle's defaults are requested.
    """
    if use_paddle_defaults():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return False
    largest = (1 << 30, 1 << 25)  # bytes; older versions of glibc accept at most the latter
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in largest) and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
