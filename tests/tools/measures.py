"""Print code metrics of a checkout: `python tests/tools/measures.py [CHECKOUT]`, about two minutes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

COMMANDS = ("main.py", "test.py", "test2.py", "extracting/gen.py")
BRANCHES = 10
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FORKS = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
THIS_SCRIPT = "python tests/tools/measures.py"
# prints the files with a function that is called before the first backward pass
TRACE = """
import importlib, inspect, os, sys, threading
from pathlib import Path
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(root))
from tests.conftest import Tiny
tiny = Tiny.make(folder)
where = ["--checkpoint_dir", str(folder / "checkpoints"), "--figure_dir", str(folder), "--device", "cpu"]
sys.argv = ["main.py", *tiny.flags, *where, "--max_epoch", "1", "--batch_size", "2"]
main, entered = importlib.import_module("main"), {}
def watch(frame, event, _):
    code = frame.f_code
    if event != "call" or not code.co_flags & inspect.CO_OPTIMIZED:
        return
    path = Path(code.co_filename)
    if code.co_name == "backward" and path.name == "_tensor.py":
        print("entered:", *entered)
        sys.stdout.flush()
        os._exit(0)
    if path.is_relative_to(root):
        entered.setdefault(path.relative_to(root).as_posix())
threading.setprofile(watch)
sys.setprofile(watch)
main.main()
"""


def output(checkout: Path, *command: str) -> str:
    """Return the standard output of a command in the checkout."""
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stderr[-2000:]}"
    return done.stdout


def entered_files(checkout: Path) -> list[str]:
    """Return the files entered from `python main.py` to the first loss, in order, on a tiny data set."""
    with tempfile.TemporaryDirectory() as folder:
        printed = output(checkout, sys.executable, "-c", TRACE, str(checkout), folder)
    return next(line.split()[1:] for line in printed.splitlines() if line.startswith("entered:"))


def flags(checkout: Path, script: str, help_flag: str) -> str:
    """Return the number of flags in a script's help, or "-" if it has no such help."""
    try:
        text = output(checkout, sys.executable, script, help_flag)
    except AssertionError:
        return "-"
    return str(len(set(re.findall(r"^ +(?:-\w, )?--(?!help_all)(\w+)", text, re.MULTILINE))))


def functions(paths: list[Path]) -> Iterator[tuple[str, int, int]]:
    """Yield name, lines and branches (cyclomatic complexity) of every function."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, FUNCTIONS):
                nodes = list(ast.walk(node))
                branches = 1 + sum(isinstance(n, FORKS) for n in nodes)
                branches += sum(len(n.values) - 1 for n in nodes if isinstance(n, ast.BoolOp))
                yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1, branches


def rows(checkout: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and command of every metric."""
    listed = [Path(name) for name in output(checkout, "git", "ls-files", "*.py").splitlines()]
    lines = {path: len((checkout / path).read_text(encoding="utf-8").splitlines())
             for path in listed if (checkout / path).is_file()}  # fmt: skip
    sources = {path: count for path, count in lines.items() if path.parts[0] != "tests"}
    tests = {path: count for path, count in lines.items() if path.parts[0] == "tests"}
    tests = {path: count for path, count in tests.items() if "bench" not in path.parts[1]}
    git = "git ls-files '*.py'"
    yield "source lines / files", f"{sum(sources.values())} / {len(sources)}", f"{git} ':!tests' | xargs wc -l"
    yield "test lines without benchmarks", str(sum(tests.values())), f"{git} tests ':!tests/bench*' | xargs wc -l"
    entered = [name for name in entered_files(checkout) if Path(name) in sources]
    model = sum(name.startswith("model/") for name in entered)
    yield "files to the first loss", f"{len(entered)}, {model} of them in model/", THIS_SCRIPT
    packages = Counter(path.parent.as_posix() for path in sources if path.parts[0] == "vad" and path.stem != "__init__")
    yield "modules of vad", ", ".join(f"{name} {count}" for name, count in sorted(packages.items())), "ls vad vad/*/"
    for script in COMMANDS:
        counts = " / ".join(flags(checkout, script, text) for text in ("--help", "--help_all"))
        yield f"flags of {script}, --help / all", counts, f"python {script} --help_all"
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    yield "README words / lines", f"{len(readme.split())} / {len(readme.splitlines())}", "wc -wl README.md"
    grep = ("git", "grep", "-c", "StudentT", "--", "*.py", ":!tests")
    counts = [int(line.rpartition(":")[2]) for line in output(checkout, *grep).splitlines()]
    yield "lines / files that name StudentT", f"{sum(counts)} / {len(counts)}", " ".join(grep)
    measured = list(functions([checkout / path for path in sources]))
    complex_ones = [name for name, _, branches in measured if branches > BRANCHES]
    value = f"{len(complex_ones)} of {len(measured)} {' '.join(complex_ones[:5])}"
    yield f"functions with more than {BRANCHES} branches", value, THIS_SCRIPT
    name, longest, _ = max(measured, key=lambda function: function[1])
    yield "longest function", f"{longest} lines, {name}", THIS_SCRIPT
    path = max(sources, key=sources.get)
    yield "longest module", f"{sources[path]} lines, {path}", f"{git} ':!tests' | xargs wc -l | sort -n"


if __name__ == "__main__":
    for metric, value, command in rows(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()):
        print(f"{metric:<42}{value:<58}  {command}", flush=True)
