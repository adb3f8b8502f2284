"""Run docs/tour.ipynb and store it with its outputs: `python tests/tools/tour.py`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

TOUR = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"
SECONDS = 900  # limit of one cell
COLOURS = 128  # of a stored picture


def execute(notebook: nbformat.NotebookNode, folder: Path = TOUR.parent) -> None:
    """Run all cells with a new kernel in `folder` and put the outputs in place, without times and versions."""
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=where, record_timing=False, coalesce_streams=True
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}


def pictures(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """Return cell id → output data with a PNG; each cell shows at most one picture."""
    data = {cell.id: o.data for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o}
    return {name: bundle for name, bundle in data.items() if "image/png" in bundle}


def shrink(png: str) -> str:
    """Return a base64 PNG with `COLOURS` colours, a third of its size."""
    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


if __name__ == "__main__":
    notebook = nbformat.read(TOUR, as_version=4)
    execute(notebook)
    for data in pictures(notebook).values():
        data["image/png"] = shrink(data["image/png"])
    nbformat.write(notebook, TOUR)
    print(f"{TOUR}: {TOUR.stat().st_size / 1000:.0f} kB")
