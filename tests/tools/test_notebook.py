"""The notebook of the lesson: what stands in it, what is kept of its last run, and that it runs."""

import ast
import importlib
import inspect
import json
import re
import shutil

import pytest
from helpers.run_lesson import NOTEBOOK, PROJECT, run

import palm_cls
from palm_cls.training import loop

SIZE = 1_500_000  # bytes, that it opens at once, on GitHub too
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CELLS = CONTENT["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
TEXTS = [cell for cell in CELLS if cell["cell_type"] == "markdown"]
SOURCES = {"lenet-source": palm_cls.LeNet, "alexnet-source": palm_cls.AlexNet, "loop-source": loop.train}


def source(cell):
    return "".join(cell["source"])


def streams(cell, name="stdout"):
    """What a cell printed; name: or "stderr"."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == name)


def shown(cell):
    """What a cell showed besides: a list of sets of MIME types."""
    return [set(output["data"]) for output in cell["outputs"] if "data" in output]


def cell_called(name):
    return next(cell for cell in CODE if cell["id"] == name)


def ids(cells):
    return [cell["id"] for cell in cells]


@pytest.mark.parametrize("cell", TEXTS, ids=ids(TEXTS))
def test_texts_are_chinese_first_and_english(cell):
    text = re.sub(r"```.*?```|`[^`]*`", "", source(cell), flags=re.DOTALL)
    chinese, english = re.search("[\u4e00-\u9fff]", text), re.search("[A-Za-z]+ [a-z]+ [a-z]+", text)
    assert chinese
    assert english
    assert chinese.start() < english.start()


def test_it_repeats_no_code_of_the_package():
    tree = ast.parse("\n".join(map(source, CODE)))
    nodes = list(ast.walk(tree))
    assert not [node for node in nodes if isinstance(node, ast.ClassDef)]
    assert [node.name for node in nodes if isinstance(node, ast.FunctionDef)] == ["show"]
    imported = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    assert not [name for name in imported if name.startswith("paddle")]


def test_what_it_takes_from_the_package_is_there():
    nodes = [node for cell in CODE for node in ast.walk(ast.parse(source(cell)))]
    imported = [(node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names]
    ours = [(module, name) for module, name in imported if module.startswith("palm_cls")]
    assert len(ours) > 15
    for module, name in ours:
        assert hasattr(importlib.import_module(module), name), name
    everything = "\n".join(map(source, CELLS))
    named = set(re.findall(r"palm_cls\.(\w+)\(", everything))
    assert named >= {"choose_device", "train_recipe", "resume_recipe"}
    assert named <= set(dir(palm_cls))


def test_it_is_small_and_tells_nothing_of_the_machine_that_ran_it():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < SIZE
    assert not re.search(r"/tmp/|/root/|/work/(?!palm_cls)|/Users/|C:\\|site-packages|Traceback|%\|", text)
    assert CONTENT["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert len(set(ids(CELLS))) == len(CELLS)
    assert all(cell["metadata"] == {} for cell in CELLS)


def test_its_outputs_are_of_one_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, 1 + len(CODE)))
    assert {output["output_type"] for cell in CODE for output in cell["outputs"]} == {
        "stream",
        "display_data",
        "execute_result",
    }
    assert "This is the demo set" in streams(cell_called("data"), "stderr")
    for name in ("lenet-train", "alexnet-train", "relu"):
        assert len(re.findall(r"^\[validation\] accuracy/loss: ", streams(cell_called(name)), re.MULTILINE)) == 5


@pytest.mark.parametrize("cell", SOURCES)
def test_the_sources_in_its_outputs_are_those_of_the_package(cell):
    assert streams(cell_called(cell)) == inspect.getsource(SOURCES[cell]) + "\n"


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_wherever_it_lies(small_demo, tmp_path):
    pytest.importorskip("nbclient", reason="needs nbclient, which runs notebooks: python -m pip install nbclient")
    pytest.importorskip("ipykernel", reason="needs a kernel for notebooks: python -m pip install ipykernel")
    shutil.copytree(small_demo, tmp_path / "demo")
    ran = [cell for cell in run(tmp_path, "demo").cells if cell.cell_type == "code"]  # raises what a cell raised
    assert (tmp_path / "output" / "lesson-alexnet" / "report.html").is_file()
    assert str(PROJECT) not in "".join(streams(cell) for cell in ran)
    for cell, kept in zip(ran, CODE):
        assert shown(cell) == shown(kept), cell.id
        assert bool(streams(cell)) == bool(streams(kept)), cell.id
        if cell.id.endswith(("-source", "-layers")):
            assert streams(cell) == streams(kept)
