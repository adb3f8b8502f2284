"""The house: who may import whom, no data set by name outside the catalogue, one environment in two files."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"demo", "extracting", "list", "model", "vad", "tests", "main", "test", "test2"}
# room → what of ours it may import beside itself
MAY_IMPORT = {
    "model": set(),
    "vad": set(),
    "extracting": {"vad.catalog", "vad.profile", "vad.errors", "vad.files", "vad.device", "vad.splits"},
    "list": {"vad"},
    "demo": {"extracting", "vad"},
}
# within extracting/, imports go down: a floor may import those before it
FLOORS = ("config", "video", "clip", "job", "own_video")
SOURCES = sorted(p for room in MAY_IMPORT for p in (ROOT / room).rglob("*.py"))
DOORS = [ROOT / name for name in ("main.py", "test.py", "test2.py", "figure/architecture.py")]


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from vad import demo` imports vad.demo
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {n for n in names if (ROOT / f"{n.replace('.', '/')}.py").is_file()} or {node.module}
    return {name for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_room_imports_only_what_it_may(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        allowed = name.split(".")[0] == room or any(name == a or name.startswith(f"{a}.") for a in MAY_IMPORT[room])
        assert allowed, f"{path.name} imports {name}"


def test_no_module_imports_itself_through_others():
    graph = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = imports(path)

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for other in graph.get(name, ()):
            visit(other, (*trail, name))

    for name in graph:
        visit(name, ())


def test_imports_within_extraction_go_down():
    for floor, name in enumerate(FLOORS):
        places = [*(ROOT / "extracting" / name).glob("*.py"), ROOT / "extracting" / f"{name}.py"]
        for path in filter(Path.is_file, places):
            used = {found.split(".")[1] for found in imports(path) if found.startswith("extracting.")}
            assert used <= set(FLOORS[: floor + 1]), f"{path.name} imports {used}"


@pytest.mark.parametrize("path", [*SOURCES, *DOORS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_data_set_by_name_outside_the_catalogue(path):
    if path.name == "catalog.py":
        return
    names = {"ucfcrime", "ucf", "xd", "shang", "msad"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            assert not compared & names, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", [*SOURCES, *DOORS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_file_says_what_it_holds_and_pins_no_device(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "the first line says what the file holds"
    assert not re.search(r"\.cuda\(\)|weights_only\s*=\s*False|allow_pickle\s*=\s*True", text)


def test_public_functions_of_the_model_are_documented_and_annotated():
    for path in (ROOT / "model").glob("*.py"):
        tree = ast.parse(path.read_text())
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        for node in [*tree.body, *(inner for c in classes for inner in c.body)]:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
                arguments = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
                assert all(a.annotation for a in arguments), f"{path.name}: {node.name}"


def test_conda_and_pip_describe_one_environment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = re.findall(r"^      - (\S+)$", (ROOT / "env.yaml").read_text(), re.MULTILINE)
    assert conda == project["dependencies"]


def test_the_documented_names_are_there_and_the_misspelt_one_is_not():
    for name in ("ucf", "xd", "shang", "msad"):
        for script in ("gen_img", "gen_event"):
            assert (ROOT / "extracting" / f"{name}_{script}.py").is_file()
        for script in ("generate_file", "generate_gt"):
            assert (ROOT / "list" / f"{name}_{script}.py").is_file()
    assert (ROOT / "extracting" / "msad_gen_image.py").is_file()  # the release's own name for it
    assert not list(ROOT.rglob("*gen_ima.py"))
