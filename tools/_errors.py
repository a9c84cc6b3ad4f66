"""Explain errors to the user: `explain_error`. Faults of this project keep their traceback."""

import errno
import os
import re
import sys
import traceback

from palm_cls.core.errors import InputError, RunError, error_reason, is_out_of_memory, missing_library

DISK_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)}
GPU_ERROR = re.compile(r"(CUDA|CUDNN|CUBLAS|NCCL) ?error|(CUDNN|CUBLAS)_STATUS", re.IGNORECASE)  # in paddle's words
OURS = {"__main__", "_bench_images", "_bench_jobs", "_bench_reading", "_cli", "_errors", "_lesson_baseline", "palm_cls"}
REQUIREMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "requirements.txt")

# Packages that have another name for pip than for Python.
PACKAGES = {
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "distutils": "setuptools",
    "google": "protobuf",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Messages of packages that do not fit the installed version of another, and what to install by pip.
MISFITS = (
    (r"Descriptors cannot be created directly", '"protobuf<4"'),
    (r"compiled using NumPy 1|_ARRAY_API not found|numpy\.core\.multiarray failed", '"numpy<2"'),
    (r"has no attribute '(bool|int|float|object)'|np\.(bool|int|float|object)\b", '"numpy<1.24"'),
)
# Libraries of the system, as messages name them, and Debian's packages.
LIBRARIES = (
    (r"lib(GL|EGL|gthread|glib)\b", "libgl1 libglib2.0-0"),
    (r"libgomp", "libgomp1"),
    (r"libSM|libX", "libsm6 libxext6"),
)


def explain_error(error, again="run this again"):
    """Explain an error that the user can cause or mend.

    Args:
        error: The exception.
        again: What continues after the error, in words.

    Returns:
        (message, exit status), or None for a fault of this project.
    """
    if isinstance(error, InputError):
        return error, 2
    if isinstance(error, RunError):
        return error, 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if is_out_of_memory(error):
        return f"out of memory: {error_reason(error)}\nFree memory, or begin anew with a smaller --batch-size.", 1
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{error.filename or 'standard output'}: {error.strerror}; make room, then {again}", 1
    if packages := _packages_being_imported(error):
        return _explain_import(error, packages)
    if (library := missing_library(error)) or GPU_ERROR.search(str(error)):
        problem = f"{library} cannot be loaded" if library else "the GPU failed"
        return f"{problem}: {error_reason(error)}\nInstall what is missing, or use --device cpu.", 1
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{error.filename}: a file, where a directory is expected; give another name", 1
    if isinstance(error, OSError):  # permission denied, ...
        return f"{error.filename}: {error.strerror}" if error.filename else error, 1
    return None


def _packages_being_imported(error):
    """List the packages that were being imported when `error` was raised, the outermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [frame.f_globals.get("__name__", "") for frame in frames if frame.f_code.co_name == "<module>"]
    if isinstance(error, ImportError) and error.name:
        modules.append(error.name)
    packages = dict.fromkeys(module.partition(".")[0] for module in modules)
    others = [package for package in packages if package not in OURS]
    return others or (["a package"] if isinstance(error, ImportError) and "palm_cls" not in packages else [])


def _explain_import(error, packages):
    first, last = packages[0], packages[-1]
    cause = error
    while cause := cause.__cause__ or cause.__context__:
        if isinstance(cause, KeyboardInterrupt):  # while an extension module was loading
            return "interrupted", 130
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; {_how_to_install(last)}", 2
    if library := missing_library(error):
        debian = next((names for pattern, names in LIBRARIES if re.search(pattern, library)), None)
        install = f"On Debian: apt-get install {debian}" if debian else f"Install what brings {library}."
        return f"{first} cannot be imported: {error_reason(error)}\n{install}", 2
    misfit = next((names for pattern, names in MISFITS if re.search(pattern, str(error))), None)
    remedy = misfit or (f"--upgrade {PACKAGES.get(last, last)}" if last not in ("paddle", "a package") else None)
    install = f"python -m pip install {remedy}" if remedy else "python -m pip check"
    return f"{first} cannot be imported: {error_reason(error)}\nPackages that do not fit each other? {install}", 2


def _how_to_install(module):
    if module == "paddle":  # any other command could install a second one over a paddle that is there
        return f"install what is needed: python -m pip install -r {REQUIREMENTS}"
    if module in getattr(sys, "stdlib_module_names", ()) and module not in PACKAGES:
        return f"this Python ({sys.executable}) was built without it; take another Python"
    return f"python -m pip install {PACKAGES.get(module, module)}"
