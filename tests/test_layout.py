"""The house: who may import whom, how large a room is, no data set by name, one environment in two files."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"demo", "extracting", "figure", "list", "model", "vad", "tests", "main", "test", "test2"}
# package → what of ours it may import beside itself
MAY_IMPORT = {
    "model": set(),
    "vad": {"model"},
    "extracting": {"vad.files", "vad.datasets", "vad.options", "vad.runtime", "vad.prepare.lists"},
    "demo": {"extracting", "vad"},
    "list": {"vad"},
    "figure": {"vad", "model"},
}
# imports go down: a floor may import those before it; two rooms on one floor do not know each other
FLOORS = {
    "vad": (
        {"files"}, {"datasets"}, {"options"}, {"data", "runtime"}, {"scoring", "prepare"}, {"metrics"}, {"statistics"},
        {"evaluation"}, {"train"}, {"experiments"}, {"report"},
    ),
    "extracting": ({"config"}, {"video"}, {"clip"}, {"job"}, {"own_video"}),
}  # fmt: skip
MODULES = 12  # of one folder, its __init__ and __main__ aside
NAME_LENGTH = 60  # of a test
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
COMMANDS = [ROOT / name for name in ("main.py", "test.py", "test2.py")]
BY_NAME = {"build_annotations.py"}  # reads each data set's own sources


def short(path: Path) -> str:
    """Folder and file name."""
    return f"{path.parent.name}/{path.name}"


every_source = pytest.mark.parametrize("path", [*SOURCES, *COMMANDS], ids=short)


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            # `from vad import data` imports vad.data
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                place = ROOT / name.replace(".", "/")
                found.add(name if place.is_dir() or place.with_suffix(".py").is_file() else node.module)
    return {name for name in found if name.split(".")[0] in OURS}


def module_name(path: Path) -> str:
    """Dotted name of a file, as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_a_package_imports_only_what_it_may(path):
    package = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        parts = name.split(".")
        prefixes = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
        assert prefixes & {package, *MAY_IMPORT[package]}, f"{path.name} imports {name}"


def test_no_module_imports_itself_through_others():
    graph = {module_name(path): imports(path) for path in SOURCES}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for other in graph.get(name, ()):
            visit(other, (*trail, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", FLOORS)
def test_imports_within_a_package_go_down(package):
    known = {room: level for level, floor in enumerate(FLOORS[package]) for room in floor}
    used = Counter()
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / package)):
        room = path.relative_to(ROOT / package).with_suffix("").parts[0]
        if room not in known:  # __init__ and the documented scripts
            assert package != "vad" or room == "__init__", f"{path.name} stands on no floor"
            continue
        for other in (name.split(".")[1] for name in imports(path) if name.startswith(f"{package}.")):
            used[room] += 1
            assert other == room or known[other] < known[room], f"{room} imports {other}"
    assert len(used) >= len(known) - 1  # all but the lowest import something: the walk saw them


def test_a_folder_holds_at_most_twelve_modules():
    sizes = Counter(path.parent for path in SOURCES if not path.stem.startswith("__"))
    assert sizes[ROOT / "vad"] > 1
    assert {short(folder): size for folder, size in sizes.items() if size > MODULES} == {}


def test_vad_has_twelve_modules_and_two_rooms():
    """A thirteenth means that one of the twelve was not used for what it is for."""
    rooms = {path.name for path in (ROOT / "vad").iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in (ROOT / "vad").glob("*.py")} - {"__init__"}
    assert rooms == {"prepare", "report"}
    assert modules | rooms == set.union(*FLOORS["vad"])


@every_source
def test_no_data_set_is_compared_by_name(path):
    names = {"ucfcrime", "ucf", "xd", "shang", "msad"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Compare) and path.name not in BY_NAME:
            compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            assert not compared & names, f"{path.name}:{node.lineno}"


@every_source
def test_a_file_says_what_it_holds_and_pins_no_device(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(tree_of(path)), "the first line says what it holds"
    assert not re.search(r"\.cuda\(\)|weights_only\s*=\s*False|allow_pickle\s*=\s*True", text)


def test_the_models_public_functions_are_documented_and_typed():
    seen = 0
    for path in (ROOT / "model").glob("*.py"):
        body = tree_of(path).body
        classes = [n for n in body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        for node in [*body, *(inner for c in classes for inner in c.body)]:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                seen += 1
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
                arguments = [*node.args.args, *node.args.kwonlyargs]
                untyped = [a.arg for a in arguments if a.arg not in ("self", "cls") and not a.annotation]
                assert not untyped, f"{path.name}: {node.name}"
    assert seen > 30  # 10 files of a few functions each


def test_names_of_tests_are_short():
    paths = list((ROOT / "tests").rglob("test_*.py"))
    nodes = [node for path in paths for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    names = [node.name for node in nodes if node.name.startswith("test_")]
    assert len(names) > 300
    assert [name for name in names if len(name) > NAME_LENGTH] == []


def test_conda_and_pip_describe_one_environment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = re.findall(r"^      - (\S+)$", (ROOT / "env.yaml").read_text(), re.MULTILINE)
    assert conda == project["dependencies"]


def test_the_documented_names_are_there_the_misspelt_is_not():
    for name in ("ucf", "xd", "shang", "msad"):
        for script in ("gen_img", "gen_event"):
            assert (ROOT / "extracting" / f"{name}_{script}.py").is_file()
        for script in ("generate_file", "generate_gt"):
            assert (ROOT / "list" / f"{name}_{script}.py").is_file()
    assert (ROOT / "extracting" / "msad_gen_image.py").is_file()  # the release's own name for it
    assert not list((ROOT / "extracting").rglob("*gen_ima.py"))
