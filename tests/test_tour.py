"""The notebook docs/tour.ipynb: it runs, its numbers are right, and its stored outputs are those of the code."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.tools.tour import TOUR, execute, pictures

PICTURES = ["draw", "effective-variance", "fuse", "filter", "refine", "losses", "masking-figure", "timeline"]
# their numbers depend on the number of videos, and on a processor's rounding of some hundred training steps
TRAINED = ["demo", "results", "masking-figure", "timeline"]


def texts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return cell id → printed text."""
    return {
        cell.id: "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@pytest.fixture(scope="module")
def stored() -> nbformat.NotebookNode:
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture(scope="module")
def executed(stored, tmp_path_factory) -> nbformat.NotebookNode:
    """Return the notebook, run on few videos without its stored outputs; a failing cell raises its error."""
    notebook = nbformat.from_dict(stored)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = "TRAIN, TEST = 8, 8"
    folders = [ROOT / name for name in ("docs", "data", "data/demo", "list/demo", "checkpoints", "figure")]
    before = [listing(folder) for folder in folders]
    temporary = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        execute(notebook)
    assert list(temporary.glob("*/dataset.toml")) == []  # it tidies up
    assert [listing(folder) for folder in folders] == before  # the notebook leaves these folders alone
    return notebook


def test_every_picture_is_drawn(executed, stored):
    for notebook in (executed, stored):
        assert list(pictures(notebook)) == PICTURES
        for data in pictures(notebook).values():
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/png"]), np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape[1] > 400 and picture.std() > 10  # not blank


def test_stored_text_is_that_of_the_code(executed, stored):
    new, old = texts(executed), texts(stored)
    assert new.keys() == old.keys()
    assert {name: new[name] for name in new if name not in TRAINED} == {
        name: old[name] for name in old if name not in TRAINED
    }
    # of the other cells, all but the numbers
    words = re.compile(r"[-+]?\d+(\.\d+)?")
    assert [words.sub("#", new[name]) for name in TRAINED] == [words.sub("#", old[name]) for name in TRAINED]


def test_printed_numbers_equal_hand_computed_ones(executed):
    printed = texts(executed)
    by_hand, counted = re.search(r"Crash: (\d+) events by hand, (\d+)", printed["check-events"]).groups()
    assert by_hand == counted and int(counted) > 1000
    assert "mode 1.1250, precision w 1.1250" in printed["check-curvature"]  # 9/8
    assert "z = 1.4000" in printed["check-fusion"] and "variance = 0.2000" in printed["check-fusion"]  # 7/5 and 1/5
    assert "gain 0.01562 at t = 63; equal to 1/(t + 1) at every t: True" in printed["check-kalman"]  # 1/64
    assert "q = 1: gain 0.61803" in printed["check-kalman"] and printed["check-kalman"].endswith("agree: True\n")
    assert "λ_ref = 0.5: 0.000977 after" in printed["refine"]  # 2^-10
    total = dict(re.findall(r"^(\w+) +([\d.]+)$", printed["losses"], re.MULTILINE))
    cls, cosine, norm, *kl, loss = map(float, total.values())
    assert len(kl) == 3 and loss == pytest.approx(cls + sum(kl) + 0.5 * cosine + 0.5 * norm, abs=3e-4)
    for line in printed["check-losses"].splitlines():
        ours, other = re.findall(r"\d\.\d{4}", line)
        assert ours == other


def test_trained_runs_report_plausible_numbers(executed, stored):
    assert texts(executed)["demo"] == "16 videos, 16 image embeddings\n"
    for notebook in (executed, stored):
        rows = re.findall(r"AUC ([\d.]+)%.* ([\d.]+)% – ([\d.]+)%, mean ŵ_i ([\d.]+)", texts(notebook)["results"])
        assert len(rows) == 3  # seeds
        for auc, low, high, weight in (map(float, row) for row in rows):
            assert 0 <= low <= auc <= high <= 100 and 0.3 < weight < 0.7


def test_stored_notebook_is_small_and_clean(stored):
    text = TOUR.read_text(encoding="utf-8")
    assert len(text) <= 600_000
    outputs = [output for cell in stored.cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} == {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}  # no warning, no progress bar
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/home/|/root/|/tmp/|[A-Z]:\\\\|Warning|\bat 0x", without_pictures)
    assert str(ROOT) not in without_pictures
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # run from top to bottom
    assert {key for cell in stored.cells for key in cell.metadata} == {"tags"}  # no times
    assert stored.metadata == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }


def test_links_of_the_notebook_exist(stored):
    markdown = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", markdown)
    assert len(links) >= 8
    assert [link for link in links if not (TOUR.parent / link).exists()] == []
