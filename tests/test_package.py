"""The package as its users see it: what `import palm_cls` gives them, and help() tells them."""

import inspect
import os
import pkgutil
import pydoc
import re
import shutil
import subprocess
import sys

import pytest
from helpers import PROJECT
from helpers.processes import fresh_python

import palm_cls

NAMES = dir(palm_cls)
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(palm_cls, name))]


def test_importing_the_package_is_silent_and_imports_no_paddle():
    code = "import palm_cls, sys; print('paddle' in sys.modules, 'cv2' in sys.modules, 'numpy' in sys.modules)"
    done = fresh_python(code)
    assert (done.stdout.split(), done.stderr) == (["False"] * 3, "")
    done = fresh_python(
        "from palm_cls import LeNet; import paddle; LeNet()(paddle.zeros([1, 3, 224, 224])).sum().backward()"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_requirements_of_ai_studio_are_those_but_what_it_has_and_what_tests_need():
    def packages(file):
        return [line for line in (PROJECT / file).read_text().splitlines() if line and not line.startswith("#")]

    left_out = r"(paddlepaddle|paddlepaddle-gpu|numpy|opencv-python|hypothesis|pytest)\b"
    needed = [line for line in packages("requirements.txt") if not re.match(left_out, line)]
    assert packages("tools/requirements-aistudio.txt") == needed


def test_the_names_tab_completes_need_no_paddle():
    code = "import palm_cls, sys; print(*dir(palm_cls), 'paddle' in sys.modules)"
    assert fresh_python(code).stdout.split() == [*NAMES, "False"]


def test_the_help_is_a_page_that_lists_the_public_names_and_no_others():
    page = pydoc.plain(pydoc.render_doc(palm_cls))
    head, _, modules = page.partition("PACKAGE CONTENTS")
    listed = re.findall(r"^ {8}(\w+(?:, \w+)*)  +\S", head, re.MULTILINE)
    assert sorted(", ".join(listed).split(", ")) == NAMES
    assert max(map(len, page.splitlines())) <= 4 + 120  # pydoc indents
    assert not re.search("^(CLASSES|FUNCTIONS|DATA)", modules, re.MULTILINE)  # a page for each network, and more


def snippet(part):
    """The README's lines of Python in which that stands, for where the clone is here."""
    found = re.findall(r"^```python\n(.*?)^```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    (lines,) = [lines for lines in found if part in lines]
    return lines.replace("/home/aistudio/work/palm_cls", str(PROJECT))


def run_elsewhere(code, cwd, **env):
    """Run code as the kernel of a notebook in the directory `cwd` would, which knows of no clone by itself."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, env={**environment, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_package_is_found_from_another_directory_as_the_readme_says(tmp_path):
    (tmp_path / "palm_cls").mkdir()  # as the clone itself looks from /home/aistudio/work: a package without content
    code = f"{snippet('sys.path')}print(palm_cls.LeNet.__module__, palm_cls.__file__)"
    told = run_elsewhere(code, tmp_path).stdout
    assert told.split() == ["palm_cls.models.lenet", str(PROJECT / "palm_cls" / "__init__.py")]


@pytest.mark.slow
def test_the_lesson_in_python_runs_as_the_readme_has_it(small_demo, tmp_path):
    shutil.copytree(small_demo, tmp_path / "data")
    (workbook,) = tmp_path.glob("data/*GT/*.xlsx")
    palm_cls.xlsx_to_csv(workbook)
    code = f"{snippet('sys.path')}{snippet('train(model')}".replace("epochs=5", "epochs=1")
    done = run_elsewhere(code, tmp_path / "data", PYTHONIOENCODING="utf-8")
    assert "[validation] accuracy/loss: " in done.stdout
    assert (tmp_path / "data" / "output" / "mine" / "report.html").is_file()


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'LetNet'"):
        palm_cls.LetNet  # noqa: B018


def test_names_of_the_version_before_are_there_for_one_more_release():
    from palm_cls import format_measures, predictions, trained_network

    assert (trained_network, predictions) == (palm_cls.load_model, palm_cls.predict_images)
    assert format_measures is palm_cls.format_metrics
    assert not {"format_measures", "predictions", "trained_network"} & set(NAMES)


def test_no_module_takes_the_place_of_a_public_name():
    assert not {path.stem for path in (PROJECT / "palm_cls").glob("*.py")} & set(NAMES)


def test_names_in_docstrings_and_comments_are_there():
    texts = [path.read_text(encoding="utf-8") for path in (PROJECT / "palm_cls").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"`palm_cls\.([\w.]+)`", text)}
    assert {"load", "data.augment", "eval.report"} <= named
    for name in named:
        pkgutil.resolve_name(f"palm_cls.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_of_its_own(name):
    public = getattr(palm_cls, name)
    first = public.__dict__["__doc__"] if inspect.isclass(public) else public.__doc__
    assert re.match(r"\S.*[.:]", first.splitlines()[0])


def without_self(function):
    """Names of a function's parameters, without what a class gives by itself."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "args", "kwargs")]


@pytest.mark.parametrize("name", FUNCTIONS + ["LeNet", "AlexNet"])
def test_every_parameter_is_told_of(name):
    public = getattr(palm_cls, name)
    missing = [word for word in without_self(public) if not re.search(rf"\b{word}\b", public.__doc__)]
    assert missing == []


@pytest.mark.parametrize(
    "name", ["read_image", "transform_img", "data_loader", "grad_cam", "overlay", "LeNet", "AlexNet", "build_model"]
)
def test_arrays_are_told_of_with_type_and_shape(name):
    assert re.search(r"(uint8|float32)( BGR)? \[\w", getattr(palm_cls, name).__doc__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_the_function_itself_are_told_of(name):
    public = getattr(palm_cls, name)
    raised = set(re.findall(r"raise (\w+Error)\(", inspect.getsource(public)))
    assert {error for error in raised if error not in public.__doc__} == set()
