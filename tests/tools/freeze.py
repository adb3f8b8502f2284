"""Record weights and logs of ten short runs: `python tests/tools/freeze.py CHECKOUT OUT.json [OTHER.json]`.

Each run trains three epochs on the synthetic data set: three profiles × image and fusion, two profiles also without
the recursion of Eq. 5. OTHER.json comes from another checkout; the bitwise equal results of both are printed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

PROFILES = ("default", "paper", "released", "default none", "paper none")
MODALITIES = ("image", "fusion")
EVALUATED = ("step", "epoch", "AUC", "AP", "Ano-AUC", "Brier")


def run(checkout: Path, profile: str, modality: str, folder: Path) -> dict[str, object]:
    """Train one short run; return a hash of its encoder weights, their norm, its metrics and its log."""
    name, _, update = profile.partition(" ")
    flags = ["--dataset", "demo", "--profile", name, "--modality", modality, "--max_epoch", "3"]
    flags += ["--temporal_update", update] if update else []
    where = ["--test_crops", "5", "--exp_name", "run", "--checkpoint_dir", str(folder), "--figure_dir", str(folder)]
    command = [sys.executable, "main.py", *flags, "--lr", "1e-3", "--batch_size", "16", *where]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    content = torch.load(folder / "run.pth", map_location="cpu", weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(content["model"].items()):
        if "encoder" in name:
            digest.update(tensor.numpy().tobytes())
    with (folder / "run.csv").open() as stream:
        rows = [{k: row[k] for k in EVALUATED if k in row} for row in csv.DictReader(stream)]
    norm = sum(float(tensor.double().square().sum()) for tensor in content["model"].values())
    return {"weights": digest.hexdigest(), "norm": norm, "metrics": content["metrics"], "log": rows}


def main() -> None:
    checkout, out = Path(sys.argv[1]), Path(sys.argv[2])
    runs = {}
    for profile in PROFILES:
        for modality in MODALITIES:
            with tempfile.TemporaryDirectory() as folder:
                runs[f"{profile} {modality}"] = run(checkout, profile, modality, Path(folder))
    out.write_text(json.dumps(runs, indent=1) + "\n")
    if len(sys.argv) > 3:
        for name, other in json.loads(Path(sys.argv[3]).read_text()).items():
            new = runs[name]
            equal = [key for key in ("weights", "metrics", "log") if new[key] == other[key]]
            print(f"{name}: equal {', '.join(equal) or 'nothing'}; norm² {new['norm']:.9g} / {other['norm']:.9g}")


if __name__ == "__main__":
    main()
