"""The documents: their links lead somewhere, and the files, options and commands that they name exist."""

import functools
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

import palm_cls
from palm_cls.recipes import RECIPES

DOCUMENTS = ["README.md", "data/README.md", "tools/README.md", "palm_cls/README.md", "palm_cls/eval/README.md"]
PACKAGE = PROJECT / "palm_cls"
TOOLS = sorted(path.stem for path in (PROJECT / "tools").glob("[!_]*.py"))
IMAGES = PROJECT / ".github" / "images"
EXAMPLES = {"models/mynet.py"}  # files that a reader is to write
# of paddle's launcher, VisualDL and tests/helpers
OTHERS = {"--devices", "--log_dir", "--master", "--nnodes", "--nproc_per_node", "--logdir", "--help"}
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FILE = re.compile(r"(?<![\w./-])(?!output/)(?:[\w.-]+/)*[\w-]+\.(?:py|md|ipynb|css|txt|yml)(?![\w/])")

documents = pytest.mark.parametrize("document", DOCUMENTS)
tools = pytest.mark.parametrize("tool", TOOLS)


@functools.cache
def text_of(document):
    return (PROJECT / document).read_text(encoding="utf-8")


def code_in(text):
    """All code in a document: the lines of fenced and of indented blocks, and the inline spans; but not the tree."""
    text = re.sub(r"^## Files\n.*?^(?=## )", "", text, flags=re.MULTILINE | re.DOTALL)
    fenced = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced.findall(text) for line in block.splitlines()]
    text = fenced.sub("", text)
    lines += re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    return [*lines, *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))]


def anchors_of(path):
    """The anchors that GitHub gives the headings of a document."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def options_of(tool):
    """The options that a tool's --help lists."""
    command = [sys.executable, str(PROJECT / "tools" / f"{tool}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    usage = done.stdout.partition("\n\n")[0]
    return set(OPTION.findall(usage))


def test_all_documents_are_listed_here():
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        pytest.skip("not a clone")
    assert sorted(found.stdout.split()) == sorted(DOCUMENTS)


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 180


@documents
def test_links_lead_somewhere(document):
    for image, text, target in LINK.findall(text_of(document)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (PROJECT / document).parent / file if file else PROJECT / document
        assert path.exists(), target
        assert text.strip(), f"{target}: no text"
        if image:
            assert len(text) > 40, f"{target}: what does it show?"
        if anchor:
            assert anchor in anchors_of(path.resolve()), target


@documents
def test_files_that_are_named_exist(document):
    places = [PROJECT, (PROJECT / document).parent, PROJECT / "tools", PACKAGE]
    named = {name for code in code_in(text_of(document)) for name in FILE.findall(code)}
    assert {name for name in named - EXAMPLES if not any((place / name).is_file() for place in places)} == set()


@documents
def test_options_that_are_named_exist(document):
    known = OTHERS.union(*map(options_of, TOOLS))
    for code in code_in(text_of(document)):
        assert set(OPTION.findall(code)) <= known, code
        for command in re.split(r"&&|\|", code):
            before, _, arguments = command.partition(".py ")
            tool = re.split(r"[ /]", before)[-1]
            if tool in TOOLS:
                assert set(OPTION.findall(arguments)) <= options_of(tool), code


@documents
def test_recipes_that_are_named_exist(document):
    names = {name for code in code_in(text_of(document)) for name in re.findall(r"--model ([\w-]+)", code)}
    assert names - {"NAME"} <= RECIPES.keys()


@documents
def test_functions_that_are_named_take_the_arguments_that_are(document):
    code = "\n".join(code_in(text_of(document)))
    for name in re.findall(r"\bpalm_cls\.([a-z]\w*)(?!\w)(?!\.)", code):
        pkgutil.resolve_name(f"palm_cls.{name}")
    for name, arguments in re.findall(r"\b(\w+)\(([^()]*)\)", code):
        if name in dir(palm_cls):
            taken = inspect.signature(getattr(palm_cls, name)).parameters
            assert set(re.findall(r"(\w+)=", arguments)) <= set(taken), f"{name}({arguments})"


def documented_options(tool):
    """The options of a tool that tools/README.md names: in the common table, and in its own part."""
    part = text_of("tools/README.md").partition("## Each tool")[2].partition("\n## ")[0]
    common, *parts = re.split(r"^\*\*`", part, flags=re.MULTILINE)
    (own,) = [part for part in parts if part.startswith(f"{tool}.py")]
    rows = [row.split(" | ") for row in common.splitlines() if row.startswith("| `")]
    shared = {OPTION.search(row[0]).group() for row in rows if tool in re.findall(r"\w+", row[-1])}
    return shared | set(OPTION.findall(own))


@tools
def test_every_option_is_documented_and_no_other(tool):
    assert documented_options(tool) == options_of(tool)


def files_in_tree():
    """The files that palm_cls/README.md lists, relative to palm_cls, in its order."""
    tree, room = text_of("palm_cls/README.md").partition("\n## Files\n")[2].partition("\n## ")[0], ""
    for line in tree.splitlines():
        if found := re.fullmatch(r"    (    )?(\S+)  +\S.*", line):
            indented, name = found.groups()
            if name.endswith("/"):
                room = name
            else:
                yield f"{room}{name}" if indented else name


def test_the_tree_lists_every_file_of_the_package():
    files = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.*")
        if path.suffix != ".pyc" and path.parent.name != "__pycache__"
    }
    rooms = {f"{path.parent.name}/__init__.py" for path in PACKAGE.glob("*/__init__.py")}
    listed = list(files_in_tree())
    assert sorted(listed) == sorted(files - rooms - {"README.md"})


def test_the_readme_lists_every_room():
    tree = text_of("README.md").partition("\n## Files\n")[2].partition("\n## ")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^ +(\w+)/ ", tree, re.MULTILINE))


def test_every_tool_is_in_the_readme():
    assert {name for name in TOOLS if f"python tools/{name}.py" not in text_of("README.md")} == set()


def test_the_images_are_small_and_all_are_shown():
    files = list(IMAGES.iterdir())
    assert sum(path.stat().st_size for path in files) < 600_000
    shown = {Path(target).name for document in DOCUMENTS for _, _, target in LINK.findall(text_of(document))}
    assert {path.name for path in files} <= shown


@documents
def test_plain_words(document):
    assert re.findall(r"\b(?:tell|tells|told|as it comes|taken up)\b", text_of(document)) == []
