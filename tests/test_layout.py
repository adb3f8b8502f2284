"""Code structure: allowed imports, folder sizes, no data set names in code, consistent environments."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = {"demo", "extracting", "figure", "list", "model", "vad", "tests", "main", "test", "test2"}
# package → other packages and modules of this project that it may import
MAY_IMPORT = {
    "model": set(),
    "vad": {"model"},
    "extracting": {"vad.files", "vad.datasets", "vad.options", "vad.runtime", "vad.prepare.lists"},
    "demo": {"extracting", "vad"},
    "list": {"vad"},
    "figure": {"vad", "model"},
}
# the one room above both extraction and evaluation
OWN, OWN_MAY_IMPORT = ROOT / "extracting" / "own", {"vad", "model"}
# a module imports only from earlier layers, never from its own layer
LAYERS = {
    "vad": (
        {"files"}, {"datasets"}, {"options"}, {"data", "runtime"}, {"scoring", "prepare"}, {"metrics"}, {"statistics"},
        {"localisation"}, {"avadclip"}, {"evaluation"}, {"train"}, {"experiments"}, {"report"},
    ),
    "extracting": ({"video"}, {"clip"}, {"job"}, {"audio"}, {"own"}),
}  # fmt: skip
MAX_MODULES = 12  # per folder, without __init__ and __main__
MAX_NAME_LENGTH = 60  # of a test
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
COMMANDS = [ROOT / name for name in ("main.py", "test.py", "test2.py")]
BY_NAME = {"build_annotations.py"}  # reads the sources of each data set


def short(path: Path) -> str:
    """Return folder and file name."""
    return f"{path.parent.name}/{path.name}"


every_source = pytest.mark.parametrize("path", [*SOURCES, *COMMANDS], ids=short)


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Return the modules of this project that a file imports."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            # `from vad import data` imports vad.data
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                path = ROOT / name.replace(".", "/")
                names.add(name if path.is_dir() or path.with_suffix(".py").is_file() else node.module)
    return {name for name in names if name.split(".")[0] in PROJECT}


def module_name(path: Path) -> str:
    """Return the dotted module name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_package_imports_only_allowed_packages(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = {package, *MAY_IMPORT[package], *(OWN_MAY_IMPORT if path.is_relative_to(OWN) else ())}
    for name in imports(path):
        parts = name.split(".")
        prefixes = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
        assert prefixes & allowed, f"{path.name} imports {name}"


def test_imports_have_no_cycle():
    graph = {module_name(path): imports(path) for path in SOURCES}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for other in graph.get(name, ()):
            visit(other, (*trail, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", LAYERS)
def test_imports_within_a_package_go_to_lower_layers(package):
    levels = {module: level for level, layer in enumerate(LAYERS[package]) for module in layer}
    import_counts = Counter()
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / package)):
        module = path.relative_to(ROOT / package).with_suffix("").parts[0]
        if module not in levels:  # __init__ and the documented scripts
            assert package != "vad" or module == "__init__", f"{path.name} belongs to no layer"
            continue
        for other in (name.split(".")[1] for name in imports(path) if name.startswith(f"{package}.")):
            import_counts[module] += 1
            assert other == module or levels[other] < levels[module], f"{module} imports {other}"
    assert len(import_counts) >= len(levels) - 1  # every module but the lowest imports another one


def test_folder_has_at_most_twelve_modules():
    sizes = Counter(path.parent for path in SOURCES if not path.stem.startswith("__"))
    assert sizes[ROOT / "vad"] > 1
    assert {short(folder): size for folder, size in sizes.items() if size > MAX_MODULES} == {}


def test_vad_contains_only_the_listed_modules():
    """Put new code into one of the existing modules before adding another."""
    packages = {path.name for path in (ROOT / "vad").iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in (ROOT / "vad").glob("*.py")} - {"__init__"}
    assert packages == {"avadclip", "prepare", "report"}
    assert modules | packages == set.union(*LAYERS["vad"])


@every_source
def test_code_does_not_depend_on_dataset_names(path):
    names = {"ucfcrime", "ucf", "xd", "shang", "msad"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Compare) and path.name not in BY_NAME:
            compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            assert not compared & names, f"{path.name}:{node.lineno}"


@every_source
def test_file_has_docstring_and_safe_device_independent_code(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(tree_of(path)), "the module docstring is missing"
    assert not re.search(r"\.cuda\(\)|weights_only\s*=\s*False|allow_pickle\s*=\s*True", text)


def test_public_functions_of_model_are_documented_and_typed():
    count = 0
    for path in (ROOT / "model").rglob("*.py"):
        body = tree_of(path).body
        classes = [n for n in body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        for node in [*body, *(inner for c in classes for inner in c.body)]:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                count += 1
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
                arguments = [*node.args.args, *node.args.kwonlyargs]
                untyped = [a.arg for a in arguments if a.arg not in ("self", "cls") and not a.annotation]
                assert not untyped, f"{path.name}: {node.name}"
    assert count > 30  # 10 files with a few functions each


def test_names_of_tests_are_short():
    paths = list((ROOT / "tests").rglob("test_*.py"))
    nodes = [node for path in paths for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    names = [node.name for node in nodes if node.name.startswith("test_")]
    assert len(names) > 300
    assert [name for name in names if len(name) > MAX_NAME_LENGTH] == []


def test_conda_and_pip_environments_are_equal():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = re.findall(r"^      - (\S+)$", (ROOT / "env.yaml").read_text(), re.MULTILINE)
    assert conda == project["dependencies"]


def test_documented_scripts_exist():
    for name in ("ucf", "xd", "shang", "msad"):
        for script in ("gen_img", "gen_event"):
            assert (ROOT / "extracting" / f"{name}_{script}.py").is_file()
        for script in ("generate_file", "generate_gt"):
            assert (ROOT / "list" / f"{name}_{script}.py").is_file()
    assert (ROOT / "extracting" / "msad_gen_image.py").is_file()  # the script's name in the released code
    assert not list((ROOT / "extracting").rglob("*gen_ima.py"))
