"""The tools as a user runs them: in a process of their own, from any directory."""

import errno
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import openpyxl
import pytest
from helpers import PROJECT
from helpers.files import archives
from helpers.processes import HEAVY, NOTICES, assert_lines, assert_refused, imported, posix

from palm_cls.data.data_root import DEMO_DISCLAIMER

TOOLS = [
    "train",
    "evaluate",
    "xlsx2csv",
    "prepare_data",
    "draw_demo",
    "show_images",
    "check_data",
    "bench",
    "compare",
    "crossvalidate",
    "predict",
    "report",
    "export",
    "app",
]


@pytest.mark.parametrize("name", TOOLS)
def test_help(tool, name):
    done = tool(name, "--help")
    assert done.returncode == 0
    assert "usage" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", TOOLS)
def test_help_imports_nothing_heavy(name):
    assert not HEAVY & imported(name, "--help")


def test_xlsx2csv_imports_nothing_heavy(small_demo, tmp_path):
    (workbook,) = small_demo.glob("*GT/*.xlsx")
    modules = imported("xlsx2csv", workbook, tmp_path / "labels.csv")
    assert "openpyxl" in modules
    assert not HEAVY & modules


def test_every_tool_is_tested():
    assert sorted(path.stem for path in (PROJECT / "tools").glob("[!_]*.py")) == sorted(TOOLS)


@pytest.fixture(scope="module")
def trained(tool, small_demo, tmp_path_factory):
    """The lesson in two epochs, run in an empty directory: (CompletedProcess, directory of the run)."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = tool("train", "--model", "lenet", "--data", small_demo, "--epochs", 2, "--seed", 3, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "output" / "lenet"


def test_train_prints_the_lesson_and_says_what_to_do_next(trained, small_demo):
    done, run = trained
    remark = re.escape("(demo set: drawn images, tells nothing about eyes)")
    number = r"[0-9.e-]+"
    expected = [
        r"start training \.\.\. ",
        *[
            rf"epoch: {e}, batch_id: 0, loss is: {number}|\[validation\] accuracy/loss: {number}/{number} {remark}"
            for e in (0, 0, 1, 1)
        ],
        rf"last epoch 1: accuracy {number}; best epoch [01]: accuracy {number}; on 10 validation images {remark}",
        r"The run lies in output.lenet\. Evaluate its best epoch:",
        r"    python .*evaluate\.py --weights output.lenet",
        r"LeNet with sigmoid is not meant to converge .*",
        r"Try the same network with ReLU \(--model lenet-relu\), or AlexNet \(--model alexnet\)\.",
    ]
    assert_lines(done.stdout, expected)
    assert "tells nothing about eyes" in done.stderr
    assert "%|" not in done.stderr  # no progress bar in a pipe
    settings = json.loads((run / "settings.json").read_text())
    assert settings["model"] == "lenet"
    assert (settings["seed"], settings["demo"], settings["train_images"]) == (3, True, 20)
    assert settings["data"] == str(small_demo)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the command is quoted for another shell")
def test_the_command_it_ends_with_evaluates_what_it_trained(trained):
    done, run = trained
    command = next(line for line in done.stdout.splitlines() if line.startswith("    python "))
    words = [sys.executable, *shlex.split(command)[1:]]
    printed = subprocess.run(words, cwd=run.parent.parent, capture_output=True, text=True, check=True).stdout
    best = re.search(r"best epoch \d: accuracy ([0-9.]+)", done.stdout)[1]
    assert f"{float(re.search('acc=([0-9.]+)', printed)[1]):.4f}" == best


@pytest.mark.slow
def test_our_own_recipe_from_training_to_predicting(tool, small_demo, tmp_path):
    """With what it alone has: batch normalisation, of which paddle would warn; and all that a user does with it."""
    done = tool("train", "--model", "palm", "--epochs", 3, "--data", small_demo, "--output", tmp_path, report=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith(NOTICES)] == []
    assert (tmp_path / "report.html").is_file()
    photo = next(small_demo.glob("PALM-Validation400/*.jpg"))
    printed = tool("predict", "--weights", tmp_path, "--cam", tmp_path / "cam", photo).stdout
    assert re.search(r"^V\d+\.jpg,[0-9.]+,[01],", printed, re.MULTILINE)


@pytest.mark.slow
def test_threads_stock_and_no_cache(tool, small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "data", ignore=shutil.ignore_patterns(".palm_cls-*"))
    run = ("--data", tmp_path / "data", "--epochs", 1, "--output")
    done = tool("train", *run, tmp_path / "stock", "--stock", "--threads", 1, "--no-cache")
    assert done.returncode == 0, done.stderr
    assert "1 thread, Paddle's default speed settings." in done.stderr
    assert not list((tmp_path / "data").rglob(".palm_cls-*"))
    done = tool("train", *run, tmp_path / "ours", "--threads", 3)
    assert done.returncode == 0, done.stderr
    assert ", 3 threads" in done.stderr
    assert len(list((tmp_path / "data").rglob(".palm_cls-*"))) == 2
    stock, ours = (json.loads((tmp_path / name / "settings.json").read_text()) for name in ("stock", "ours"))
    assert [(run["threads"], run["stock"]) for run in (stock, ours)] == [(1, True), (3, False)]
    errors = tool("train", "--resume", tmp_path / "stock", "--threads", 2).stderr
    assert "begun with threads 1, now 2; stock True, now False: the last bits" in errors


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits(trained, tool, small_demo, tmp_path):
    _, run = trained
    tool("train", "--model", "lenet", "--data", small_demo, "--epochs", 2, "--seed", 3, "--output", tmp_path / "again")
    for name in ("log.csv", "best.pdparams"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_evaluate_gives_what_training_gave(trained, tool, small_demo):
    done, run = trained
    best = re.search(r"best epoch (\d)", done.stdout)[1]
    row = (run / "log.csv").read_text().splitlines()[1 + int(best)].split(",")[1:]  # the rate is a column of its own
    evaluated = tool("evaluate", "--weights", run, "--data", small_demo)
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.startswith(f"start evaluation .......\nloss={row[3]}, acc={row[4]} (demo set")
    assert "10 images" in evaluated.stdout


@pytest.mark.slow
def test_training_starts_from_weights(trained, tool, small_demo, tmp_path):
    done, run = trained
    table = tmp_path / "own labels.csv"
    table.write_text("imgName,Label\nN0001.jpg,0\nP0001.jpg,1\n")
    again = tool(
        "train", "--data", small_demo, "--epochs", 1, "--weights", run, "--train-csv", table, "--output", tmp_path / "r"
    )
    assert again.returncode == 0, again.stderr
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    assert (settings["train_images"], settings["weights"]) == (2, str(run))


@pytest.mark.slow
def test_evaluate_refuses_what_it_cannot_use(trained, tool, tool_here, small_demo, tmp_path):
    _, run = trained
    assert_refused(tool_here("evaluate", "--weights", tmp_path), "no weights there")
    assert_refused(
        tool("evaluate", "--weights", run, "--model", "alexnet", "--data", small_demo),
        "weights of another network (lenet). missing: conv4.weight, ",
    )
    shutil.copy(run / "best.pdparams", tmp_path / "stray.pdparams")
    evaluated = tool("evaluate", "--weights", tmp_path / "stray.pdparams", "--data", small_demo)
    assert f"\nlenet, {tmp_path / 'stray.pdparams'}: 10 of 10 images {DEMO_DISCLAIMER}\n" in evaluated.stdout
    content = (tmp_path / "stray.pdparams").read_bytes()
    (tmp_path / "stray.pdparams").write_bytes(content.partition(b"palm_cls about:")[0])  # as it was once written
    assert_refused(tool_here("evaluate", "--weights", tmp_path / "stray.pdparams"), "does not name its network")
    assert_refused(tool_here("evaluate"), "--weights")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs", "0"], "argument --epochs: '0' is not a whole number from 1"),
        (["--epochs", "2.5"], "--epochs"),
        (["--batch-size", "-1"], "--batch-size"),
        (["--lr", "nan"], "argument --lr: 'nan' is not a number above 0"),
        (["--lr", "0"], "--lr"),
        (["--momentum", "1"], "--momentum"),
        (["--seed", "-1"], "--seed"),
        (["--model", "vgg"], "argument --model: invalid choice: 'vgg'; did you mean vgg16?"),
        (["--model", "AlexNet"], "did you mean alexnet?"),
        (["--model", "zzz"], "choose from"),
        (["--device", "tpu"], "device 'tpu' is none of cpu, gpu"),
        (["--data", "nowhere"], "nowhere: no such directory; expected that of the images (--data DIR)"),
        (["--weights", "nowhere"], "nowhere: no weights there"),
        (["--train-csv", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--output", "PALM-Validation-GT"], "not empty, and not the output of a run"),
        (["--output", "."], "the current directory lies in it"),
        (["--output", ""], "argument --output: an empty path"),
        (["--weights", ""], "argument --weights: an empty path"),
        (["--epoch", "2", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_train_refuses_wrong_values_in_a_line(tool_here, small_demo, args, message):
    data = [] if "--data" in args else ["--data", small_demo]
    done = tool_here("train", *data, *args, cwd=small_demo)
    assert_refused(done, message)
    assert "Traceback" not in done.stderr


def test_summary(tool_here):
    done = tool_here("train", "--model", "lenet", "--summary")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == [
        "fc2    [10, 1]             [64, 1]          [1]",
        "parameters: 19,233,841",
    ]


@pytest.mark.slow
def test_a_damaged_image_ends_training_with_its_name(tool, small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    image = tmp_path / "demo" / "PALM-Training400" / "PALM-Training400" / "P0001.jpg"
    image.write_bytes(b"gone")
    done = tool("train", "--data", tmp_path / "demo", "--epochs", 1, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert f"{image}: not an image that can be decoded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_skip_bad_trains_on_the_rest_and_says_so(tool, tool_here, small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    folder = tmp_path / "demo" / "PALM-Training400" / "PALM-Training400"
    (folder / "P0001.jpg").write_bytes((folder / "P0001.jpg").read_bytes()[:-50])
    (folder / "N0001.jpg").write_bytes(b"")
    train = ("train", "--data", tmp_path / "demo", "--epochs", 2, "--output", tmp_path / "run")
    assert_refused(tool_here(*train), f"{folder / 'N0001.jpg'}: empty (0 bytes)")  # before the first step
    done = tool(*train, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"Skipped: {folder / 'P0001.jpg'}: not an image that can be decoded (it is trunc") == 1
    assert done.stderr.count(f"Skipped: {folder / 'N0001.jpg'}: not an image that can be decoded (it is empty)") == 1
    assert done.stderr.count("2 of 20 training images are skipped.") == 1
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["skip_bad"] is True

    (tmp_path / "demo" / "PALM-Validation400" / "V0001.jpg").write_bytes(b"gone")
    done = tool(*train, "--skip-bad")
    assert done.returncode == 2
    assert "V0001.jpg: not an image that can be decoded" in done.stderr


def test_xlsx2csv(tool, tool_here, small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "demo")
    gt = tmp_path / "demo" / "PALM-Validation-GT"
    xlsx = gt / "PM_Label_and_Fovea_Location.xlsx"
    for args, written in (
        ([xlsx, tmp_path / "out.csv"], tmp_path / "out.csv"),
        ([xlsx], gt / "labels.csv"),
        (["--data", tmp_path / "demo"], gt / "labels.csv"),
    ):
        done = tool("xlsx2csv", *args)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{written}: 10 images, ")
        assert len(written.read_text().splitlines()) == 11
        written.unlink()
    assert tool("xlsx2csv", PALM_DATA=str(tmp_path / "demo")).returncode == 0

    book = openpyxl.Workbook()
    book.active.append(["imgName", "Label"])
    book.active.append(["a.jpg", 3])
    book.save(tmp_path / "wrong.xlsx")
    assert_refused(tool_here("xlsx2csv", tmp_path / "wrong.xlsx"), "row 2: label '3' of 'a.jpg' is neither 0 nor 1")
    assert_refused(tool_here("xlsx2csv", tmp_path / "missing.xlsx"), "missing.xlsx: no such file")
    assert_refused(tool_here("xlsx2csv", "--data", ""), "argument --data: an empty path")
    assert_refused(tool_here("xlsx2csv", xlsx, "--data", tmp_path / "demo"), "not both")
    assert not list(tmp_path.glob("labels.csv"))


def test_prepare_data(tool, tool_here, small_demo, tmp_path):
    folder, target = archives(small_demo, tmp_path / "archives"), tmp_path / "数据 palm"
    done = tool("prepare_data", "--archives", folder, "--data", target)
    assert done.stdout == f"{target}: 20 training, 10 labelled validation images; 32 files written\n", done.stderr
    assert tool("prepare_data", "--archives", folder, "--data", target).stdout.endswith("; 0 files written\n")
    assert_refused(tool_here("prepare_data", "--archives", tmp_path, "--data", target), "no archives in")
    assert_refused(tool_here("train", "--data", folder), "python tools/prepare_data.py --archives")


@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", *(pytest.param(n, marks=pytest.mark.slow) for n in ("agg", "svg"))],
)
def test_show_images_without_a_screen(tool, small_demo, tmp_path, backend):
    done = tool("show_images", "--data", small_demo, cwd=tmp_path, MPLBACKEND=backend, DISPLAY="", WAYLAND_DISPLAY="")
    assert done.returncode == 0, done.stderr
    assert [line.partition(" (demo set")[0] for line in done.stdout.splitlines()] == [
        "N0001.jpg: (512, 512, 3)",
        "P0001.jpg: (512, 512, 3)",
        f"figure: {Path('output', 'images.png')}",
    ]
    assert (tmp_path / "output" / "images.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def explain_error():
    """(message, exit status) as the tools give it for an exception; None for a fault of this project."""
    sys.path.insert(0, str(PROJECT / "tools"))
    import _errors

    sys.path.remove(str(PROJECT / "tools"))
    return _errors.explain_error


CUDNN = "(PreconditionNotMet) Cannot load cudnn shared library. Cannot invoke method x.\n  [Hint: x] (at a:1)"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("(ResourceExhausted) Fail to alloc memory of 64 size.\n  [Hint: x] (at a.cc:44)"), "of 64 size."),
        (MemoryError(), "out of memory: MemoryError"),
        (
            RuntimeError("\n\nError Message Summary:\n---\nResourceExhaustedError:\n\nOut of memory error on GPU 0."),
            "GPU 0.",
        ),
        (SystemError("(Fatal) Operator raises an thrust::system::system_error: std::bad_alloc"), "bad_alloc"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (
            cv2.error("OpenCV(4.11.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
            "Failed",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (ImportError("libphi.so: failed to map segment from shared object"), "libphi.so"),
    ],
)
def test_a_lack_of_memory_is_a_failed_run(explain_error, error, message):
    text, status = explain_error(error)
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith("out of memory: ")
    assert message in text
    assert text.endswith("smaller --batch-size.")
    assert "Hint" not in text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(CUDNN), "cudnn cannot be loaded: Cannot load cudnn shared library. "),
        (
            OSError("(External) CUDA error(719), unspecified launch failure.\n  [Hint: x] (at a:1)"),
            "the GPU failed: CUDA",
        ),
        (
            OSError("(External) CUDNN error(1), CUDNN_STATUS_NOT_INITIALIZED.\n  [Hint: x] (at a:1)"),
            "the GPU failed: CUDNN",
        ),
        (RuntimeError("libnccl.so.2: cannot open shared object file: No such file"), "libnccl.so.2 cannot be loaded"),
    ],
)
def test_a_library_or_a_gpu_that_fails_is_named(explain_error, error, message):
    text, status = explain_error(error)
    assert status == 1
    assert text.startswith(message)
    assert text.endswith("\nInstall what is missing, or use --device cpu.")


def test_a_full_disk_is_named_and_how_to_go_on(explain_error):
    error = OSError(errno.ENOSPC, "No space left on device", "output/lenet/log.csv")
    message = "output/lenet/log.csv: No space left on device; make room, then --resume"
    assert explain_error(error, "--resume") == (message, 1)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch on GPU"), ValueError("x"), KeyError("palm"), TypeError()]
)
def test_our_own_faults_keep_their_traceback(explain_error, error):
    assert explain_error(error) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
@pytest.mark.slow
def test_training_without_memory_ends_in_a_line(small_demo, tmp_path):
    words = [sys.executable, PROJECT / "tools" / "train.py", "--model", "vgg16", "--data", small_demo, "--epochs", "1"]
    command = f"ulimit -v 2500000; exec {' '.join(shlex.quote(str(word)) for word in words)}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-2].startswith("train.py: out of memory: ")


def test_a_file_in_the_place_of_a_directory_is_called_one(explain_error, tmp_path):
    (tmp_path / "file").touch()
    for make in ((tmp_path / "file").mkdir, (tmp_path / "file" / "below").mkdir):
        with pytest.raises(OSError, match="file") as raised:
            make(exist_ok=True)
        text, status = explain_error(raised.value)
        assert "file: a file, where a directory is expected" in text or "below: a file, where" in text
        assert status == 1


MODULE = "ModuleNotFoundError(\"No module named '{0}'\", name='{0}')"


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        ("cv2", MODULE.format("cv2"), "python -m pip install opencv-python"),
        ("openpyxl", MODULE.format("openpyxl"), "python -m pip install openpyxl"),
        ("paddle", MODULE.format("paddle"), f"python -m pip install -r {PROJECT / 'requirements.txt'}"),
        ("paddle", MODULE.format("google.protobuf"), "python -m pip install protobuf"),
        ("cv2", "ImportError('libGL.so.1: cannot open shared object file')", "apt-get install libgl1 libglib2.0-0"),
        ("cv2", "ImportError('libgthread-2.0.so.0: cannot open shared object file')", "apt-get install libgl1 libgl"),
        ("paddle", "ImportError('libgomp.so.1: cannot open shared object file')", "apt-get install libgomp1"),
        ("paddle", "TypeError('Descriptors cannot be created directly.')", 'python -m pip install "protobuf<4"'),
        ("cv2", "ImportError('numpy.core.multiarray failed to import')", 'python -m pip install "numpy<2"'),
        ("pandas", "ValueError('numpy.dtype size changed')", "python -m pip install --upgrade pandas"),
        ("paddle", "ImportError('something else')", "python -m pip check"),
    ],
)
def test_a_package_that_is_missing_or_misfits_is_named(explain_error, tmp_path, monkeypatch, module, error, message):
    (tmp_path / f"{module}.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises((ImportError, TypeError, ValueError)) as raised:  # noqa: PT011  its text is looked at below
        importlib.import_module(module)
    text, status = explain_error(raised.value)
    assert status == 2
    assert message in text
    assert text.count("\n") <= 1
    assert ("apt-get" in text) == ("apt-get" in message)
    assert ("requirements.txt" in text) == ("requirements.txt" in message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MODULE.format("cv2"), "python -m pip install opencv-python"),
        ("TypeError('Descriptors cannot be created directly.')", 'python -m pip install "protobuf<4"'),
    ],
)
def test_what_is_not_installed_is_named_without_a_traceback(tool, small_demo, tmp_path, error, message):
    (tmp_path / "cv2.py").write_text(f"raise {error}")
    assert_refused(tool("show_images", "--data", small_demo, PYTHONPATH=str(tmp_path)), message)


def test_names_that_the_terminal_cannot_show(tool, small_demo, tmp_path):
    done = tool("show_images", "--data", small_demo, "--output", tmp_path / "图.png", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "图.png").is_file()


@pytest.mark.slow
@posix
def test_a_reader_that_has_had_enough():
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(PROJECT / 'tools' / 'train.py'))} --summary | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("layer ")
    assert done.stderr == ""


@pytest.mark.slow
@posix
def test_a_terminal_shows_a_progress_bar_and_whole_lines(small_demo, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, PROJECT / "tools" / "train.py", "--data", small_demo, "--output", tmp_path / "run"]
    process = subprocess.Popen([*command, "--epochs", "1"], stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # closed at the other end
            break
    assert process.wait(timeout=60) == 0
    assert re.search(rb"epoch 0: +50%", shown)
    assert re.search(rb"validation: +0%", shown)
    assert re.search(rb"\repoch: 0, batch_id: 0, loss is: [0-9.]+\r\n", shown)
