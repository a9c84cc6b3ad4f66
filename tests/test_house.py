"""The house: which room may import which, where paddle is imported, and how long files and functions are."""

import ast
import itertools

import pytest
from helpers import PROJECT

PACKAGE = PROJECT / "palm_cls"
ROOMS = {  # room: the rooms that it may import, besides itself; "recipes" is the module palm_cls/recipes.py
    "core": set(),
    "models": {"core"},
    "recipes": {"core", "models"},
    "data": {"core"},
    "checkpoints": {"core", "models", "recipes"},
    "eval": {"core", "models", "data", "recipes", "checkpoints"},
    "training": {"core", "models", "data", "recipes", "checkpoints", "eval"},
    "deploy": {"core", "models", "data", "recipes", "checkpoints", "eval"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Dotted names of all that a file imports, in the functions too: [(name, line), ...]."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_every_file_lies_in_a_room():
    outside = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "recipes.py", "runtime.py"}
    assert outside == set()
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == ROOMS.keys() - {"recipes"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_what_it_may(path):
    room = room_of(path)
    if room not in ROOMS:
        pytest.skip("of no room")
    allowed = {room, *ROOMS[room]}
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(path)
        if name.startswith("palm_cls.") and name.split(".")[1] not in allowed
    ]
    assert wrong == []


def top_level(path):
    """The modules that a file imports when it is imported itself, in its order: names as in the source."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_device(name):
    """Whether importing a name of ours ("palm_cls.room.module", or that with a name in it) imports core.device."""
    parts = name.split(".")[1:3]
    path = PACKAGE.joinpath(*parts).with_suffix(".py")
    return parts == ["core", "device"] or (path.is_file() and any(map(imports_device, ours_in(path))))


def ours_in(path):
    return [name for name in top_level(path) if name.startswith("palm_cls.")]


def test_paddle_is_imported_by_core_device_first():
    """By another it would come with its start-up messages, and take SIGTERM for itself."""
    for path in FILES:
        if path.name == "device.py":
            continue
        before, first = itertools.tee(top_level(path))
        before = list(itertools.takewhile(lambda name: name.split(".")[0] != "paddle", before))
        if len(before) < len(list(first)):
            assert any(imports_device(name) for name in before if name.startswith("palm_cls.")), path
        assert "paddle" not in {name for name, _ in imports(path)}, f"{path}: from palm_cls.core.device import paddle"


LESSON = [  # what a student reads first, from top to bottom
    "models/lenet.py",
    "models/alexnet.py",
    "data/images.py",
    "data/labels.py",
    "data/loaders.py",
    "training/loop.py",
    "checkpoints/weights.py",
    "eval/evaluate.py",
]
CODE = [*FILES, *sorted((PROJECT / "tools").glob("*.py"))]


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_the_lesson_is_read_in_one_sitting():
    assert sum(len(lines_of(PACKAGE / name)) for name in LESSON) <= 700


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_files_and_functions_are_short(path):
    lines = lines_of(path)
    assert len(lines) <= 350
    functions = [node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if function.name == "parse_args":  # as long as a tool has options
            continue
        docstring = function.body[0].end_lineno if ast.get_docstring(function) else function.lineno
        code = [line for line in lines[docstring : function.end_lineno] if line.strip()]
        assert len(code) <= 40, f"{function.name}, line {function.lineno}"
        parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        names = [parameter.arg for parameter in parameters if parameter.arg not in ("self", "cls")]
        assert len(names) <= 7, f"{function.name}, line {function.lineno}"
