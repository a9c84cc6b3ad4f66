"""What the processor and its memory can do, and how many processes share them. Imports neither paddle nor OpenCV.

`import palm_cls` settles all before either is imported. paddle as it comes computes on one thread, and on AMD takes an
old path of the MKL library that it bundles. What the environment sets already is left as it is, but for the single
thread that paddle's launcher leaves there; `PALM_STOCK=1` in it (the tools' `--stock`) leaves everything as it comes.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in <malloc.h>
MKL_AVX512, MKL_AVX2 = "7", "5"  # values of MKL_DEBUG_CPU_TYPE
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # what MKL's path takes for granted

MAX_PIXELS = 100_000_000  # fundus cameras give up to 50 million; a header of 100 bytes can claim any number
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # cv2 reads it when imported, and allowed 2**30


TRAINER = {"PADDLE_TRAINERS_NUM": "1", "PADDLE_TRAINER_ID": "0"}  # and what these are of one process alone
_configured = {}  # what `configure` has set


def use_paddle_defaults():
    """Whether the environment asks for paddle as it comes."""
    return os.environ.get("PALM_STOCK", "") not in ("", "0")


def world_size():
    """Number of processes that paddle's launcher has started to train together; else 1."""
    return int(os.environ["PADDLE_TRAINERS_NUM"]) if _is_launched() else 1


def rank():
    """Number of this process among those that train together, from 0."""
    return int(os.environ["PADDLE_TRAINER_ID"]) if _is_launched() else 0


def _is_launched():
    """Whether the environment has all that paddle's launcher sets; a cluster may set some of it for jobs of its own."""
    number, rank = (os.environ.get(name, "") for name in TRAINER)
    return (
        bool(os.environ.get("PADDLE_CURRENT_ENDPOINT")) and _is_number(number) and _is_number(rank, below=int(number))
    )


def _is_number(text, below=1 << 30):
    return text.isascii() and text.isdecimal() and int(text) < below


def drop_stray_launch_variables():
    """Remove what only the launcher should set, without which paddle trains alone; returns it, as {variable: value}."""
    stray = {} if _is_launched() else {name: os.environ.pop(name) for name in TRAINER if name in os.environ}
    return {name: value for name, value in stray.items() if value != TRAINER[name]}


def local_world_size():
    """Number of those on this machine."""
    here = os.environ.get("PADDLE_LOCAL_SIZE", "")
    return max(1, int(here)) if world_size() > 1 and _is_number(here) else 1


def available_cores():
    """Number of cores this process may use (at least 1): its CPU affinity, cut down to the container's quota.

    Of processes that train together each has its part of them.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, min(cores, _cgroup_quota(cores)) // local_world_size())


@contextlib.contextmanager
def thread_pool():
    """A pool of threads, one for each core; those who leave it early do not wait for what is not begun."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(available_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _cgroup_quota(unlimited):
    """Cores granted by Linux control groups (v2, then v1); `unlimited` where there is no limit."""
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
    """The MKL_DEBUG_CPU_TYPE for a processor, given Linux's /proc/cpuinfo (str); None where MKL finds its best path.

    MKL before 2020.1 takes its SSE path on every processor but Intel's. A path for which flags are missing would end
    the process with an illegal instruction.
    """
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())  # of the first processor
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = set(fields.get("flags", "").split())
    if fields.get("vendor_id") not in ("AuthenticAMD", "HygonGenuine") or not {"avx2", "fma"} <= flags:
        return None
    return MKL_AVX512 if flags >= AVX512 else MKL_AVX2


def paddle_environment():
    """{variable: value}, what paddle should find in the environment when imported; {} where all is as it comes."""
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
    """Set what paddle should find in the environment and is not set yet; say so where paddle was imported too early."""
    from palm_cls.core.console import log, log_once  # which imports this module

    if stray := drop_stray_launch_variables():
        settings = " ".join(f"{name}={value}" for name, value in stray.items())
        log(f"{settings} is set, but not by paddle.distributed.launch, and is ignored: this process trains alone.")
    wanted = paddle_environment()
    if "paddle" not in sys.modules:
        for name in wanted.keys() - os.environ.keys():
            os.environ[name] = _configured[name] = wanted[name]
        return
    as_it_comes = {"OMP_NUM_THREADS": "1"}  # which is what `import paddle` sets
    missed = {name: value for name, value in wanted.items() if os.environ.get(name) == as_it_comes.get(name) != value}
    if missed:
        settings = " ".join(f"{name}={value}" for name, value in missed.items())
        log_once(
            f"paddle was imported before palm_cls, and so without {settings}: it is slow. Unless you want it so, "
            "start anew and `import palm_cls` first."
        )


def restore():
    """Undo `configure`, for paddle and for other processes; nothing where paddle is imported already."""
    if "paddle" in sys.modules:
        return
    for name, value in _configured.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _configured.clear()


def tune_malloc():
    """Have the C library keep freed memory for the next allocation; returns whether it does (glibc, unless stock).

    Otherwise each large array, a decoded photograph or a gradient, comes fresh from the kernel and goes back to it:
    thousands of page faults a step.
    """
    if use_paddle_defaults():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return False
    largest = (1 << 30, 1 << 25)  # bytes; older versions take no more than the latter
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in largest) and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
