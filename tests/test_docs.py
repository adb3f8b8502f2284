"""README and docs: limits, links, commands that the real parsers accept, and the generated table."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from vad.options import as_text, option_fields, resolve
from vad.report.differences import differences_table

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("list", "checkpoints", "extracting")]
HELP_LINES = 40  # one screen
OTHERS = ("git", "cd", "pip", "source")  # commands that are not ours


class Parsed(BaseException):
    """Raised in place of returning from parse_args: the command line was accepted."""


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page: lines of its bash blocks, and inline code that begins like one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            yield from (part.strip() for part in line.split("&&") if part.strip())
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        # a command with … or <name> in it is a pattern
        if re.match(r"(python |make |torchrun )", code) and not re.search(r"[…<]", code):
            yield code


def every_command() -> list[tuple[str, str]]:
    """(page, command), each command once."""
    found = {command: page for page in PAGES for command in commands(page)}
    return [(str(page.relative_to(ROOT)), command) for command, page in found.items()]


def targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a Python command up to its parsed flags; SystemExit where the parser refuses them."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: object, **more: object) -> None:
        parse_args(self, *args, **more)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        if words[0] == "-m":
            monkeypatch.setattr(sys, "argv", words[1:])
            for name in (words[1], f"{words[1]}.__main__"):  # not imported yet, as on the command line
                monkeypatch.delitem(sys.modules, name, raising=False)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            monkeypatch.setattr(sys, "path", [str((ROOT / words[0]).parent), *sys.path])
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.mark.parametrize(("page", "command"), every_command())
def test_command_of_the_docs_is_accepted(page: str, command: str, monkeypatch) -> None:
    words = shlex.split(command, comments=True)
    while "=" in words[0]:  # VARIABLE=value command
        words.pop(0)
    if words[0] == "make":
        assert words[1] in targets(), page
    elif words[0] == "torchrun":
        parse(words[2:], monkeypatch)
    elif words[:3] == ["python", "-m", "pytest"]:
        assert all((ROOT / path).exists() for path in words[3:]), page
    elif words[0] == "python":
        parse(words[1:], monkeypatch)
    else:
        assert words[0] in OTHERS, f"{page}: {command}"


def test_a_wrong_flag_in_the_docs_is_noticed(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        parse(["main.py", "--no_such_flag"], monkeypatch)
    assert "unrecognized arguments: --no_such_flag" in capsys.readouterr().err


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_of_the_docs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, fragment = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), target
    folders = r"(?:model|vad|extracting|demo|tests|docs|figure)/"
    for name in re.findall(rf"`({folders}[\w/.-]*\w\.\w+|{folders}[\w/]*/)`", text):
        assert (ROOT / name).exists(), name


def test_readme_is_one_front_page() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 1100
    for page in PAGES[1:]:
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 150, page
    linked = set(re.findall(r"\((docs/\w+\.md)\)", text))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_the_table_of_differences_equals_the_options() -> None:
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    written = re.search(r"<!-- generated: .*? -->\n(.*?)<!-- end -->", text, re.DOTALL).group(1)
    rows = [line.split(" | ")[:5] for line in written.splitlines()]
    assert rows == [line.split(" | ")[:5] for line in differences_table().splitlines()]


def test_effects_come_from_runs_that_differ_in_one_option() -> None:
    options = {f.name: as_text(getattr(resolve({"dataset": "demo"}), f.name)) for f in option_fields()}
    base = {**options, "dataset": "demo", "modality": "fusion", "profile": "default"}
    changes = [{}, {"nu": "8.0", "mil": "segment"}, {"mil": "segment", "padding": "attended"}, {"profile": "released"}]
    auc = [(0.9, 0.8), (0.7, 0.64), (0.1, 0.1), (0.9, 0.9)]
    runs = [{**base, **c, "seed": str(k), "AUC": str(a[k])} for c, a in zip(changes, auc, strict=True) for k in (0, 1)]
    cells = {line.split(" | ")[0].strip("| `-"): line.split(" | ")[5].strip(" |")
             for line in differences_table(pd.DataFrame(runs)).splitlines()}  # fmt: skip
    # −20 and −16: mean −18, and t(0.975, 1 degree of freedom) = 12.71 times the standard error 2
    assert cells["mil"] == "`segment` -18.00 [-43.41, +7.41]"
    assert cells["profile released"].startswith("+5.00 [") and cells["padding"] == "not measured"


HELP = ["main.py", "test.py", "test2.py", "extracting/gen.py", "extracting/xd_gen_event.py", "extracting/gen_audio.py",
        "extracting/xd_gen_audio.py", "-m extracting.clip.text", "list/generate_file.py",
        "list/xd_generate_gt.py", "list/audit.py", "list/build_annotations.py", "figure/architecture.py",
        "tests/bench.py", "-m demo", "-m demo.disturbances", "-m demo.missing_sound", "-m vad.report.compare",
        "-m vad.report.differences"]  # fmt: skip


@pytest.mark.parametrize("command", HELP)
def test_help_fits_one_screen_and_has_an_example(command: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        parse([*command.split(), "-h"], monkeypatch)
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and len(out.splitlines()) <= HELP_LINES
    example = out.split("examples:\n")[1].replace("\\\n", " ").splitlines()[0]
    assert shlex.split(example)[0] == "python"
    # the example itself is accepted
    monkeypatch.undo()
    parse(shlex.split(example)[1:], monkeypatch)


def test_help_texts_are_phrases_without_a_full_stop() -> None:
    for f in option_fields():
        assert f.metadata["help"] and not f.metadata["help"].endswith("."), f.name


def test_pictures_of_the_readme_exist() -> None:
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGES[0].read_text(encoding="utf-8")):
        assert os.path.getsize(ROOT / name) > 10_000
