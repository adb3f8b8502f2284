"""Made-up embeddings of UCF-Crime's size, to time loading, training, evaluation: `python -m vad.demo --ucf_sized DIR`.

1610 training videos of ten crops, 290 test videos of the real lengths, embeddings 768 wide in float16. Only a few
snippets of a training embedding hold numbers; the rest are zeros that take no room on disk. Nothing can be learned from
it about the method.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.catalog import IMAGE_FOLDER, ROOT, SNIPPET_FRAMES, UCFCRIME
from vad.errors import InputError
from vad.files import write_whole

NAME = "ucf_sized"
WIDTH = 768
TRAIN_CROPS, TEST_CROPS = tuple(range(10)), (5,)
TRAIN_VIDEOS = {"normal": 800, "anomalous": 810}
# 128 hours at 30 frames a second, less those of the test videos: snippets that the training videos have together
TRAIN_SNIPPETS = 128 * 3600 * 30 // SNIPPET_FRAMES - 69_355
FILLED = 4  # snippets with numbers at the start of a training embedding, one or two blocks of a disk
FOLDERS = (IMAGE_FOLDER, UCFCRIME.event_folders[0])
LENGTHS = Path(__file__).resolve().parent / "ucf_test_lengths.json"  # snippets of the 290 test videos, by kind
TOML = f"""\
# made by `python -m vad.demo --ucf_sized`
name = "{NAME}"
title = "UCF-Crime's size, made up"
normal = "{UCFCRIME.normal}"
classes = {json.dumps(list(UCFCRIME.classes))}

[annotation]
file = "annotations.txt"
train_list = "train.txt"
test_list = "test.txt"
"""
COMMANDS = ("list/generate_file.py", "list/generate_gt.py")


@dataclass(frozen=True)
class Made:
    """One video of the set: S snippets, of which the half-open interval is anomalous in a test video."""

    name: str
    label: str
    snippets: int
    test: bool

    @property
    def anomalous(self) -> tuple[int, int] | None:
        """First anomalous snippet and the one after the last; None in a normal video."""
        if self.label == UCFCRIME.normal:
            return None
        start = self.snippets // 3
        return start, min(self.snippets, start + max(2, self.snippets // 4))

    @property
    def annotation(self) -> str:
        """`name class s e`, in frames; −1 −1 for a normal video."""
        s, e = (SNIPPET_FRAMES * x for x in self.anomalous) if self.anomalous else (-1, -1)
        return f"{self.name} {self.label} {s} {e}"

    def files(self, out: Path) -> Iterator[tuple[Path, int]]:
        """Every embedding of the video with its number: crops of the images, then of the events."""
        crops = TEST_CROPS if self.test else TRAIN_CROPS
        for modality, folder in enumerate(FOLDERS):
            for crop in crops:
                yield out / folder / self.label / f"{self.name}__{crop}.npy", modality * len(TRAIN_CROPS) + crop


def plan(seed: int) -> list[Made]:
    """Training videos, then test videos; normal ones first, anomalous ones in the classes' turn.

    Training lengths are drawn from the test lengths and stretched unevenly, to the sum that UCF-Crime's have.
    """
    rng = np.random.default_rng(seed)
    test = json.loads(LENGTHS.read_text())
    kinds = [kind for kind, count in TRAIN_VIDEOS.items() for _ in range(count)]
    drawn = np.array([rng.choice(test[kind]) for kind in kinds]) * rng.lognormal(0, 0.8, len(kinds))
    lengths = np.maximum(1, np.rint(drawn * TRAIN_SNIPPETS / drawn.sum())).astype(int)
    rows = [(kind, int(length), False) for kind, length in zip(kinds, lengths, strict=True)]
    rows += [(kind, length, True) for kind in ("normal", "anomalous") for length in test[kind]]
    classes = tuple(UCFCRIME.classes)
    videos = []
    for number, (kind, length, is_test) in enumerate(rows):
        label = UCFCRIME.normal if kind == "normal" else classes[number % len(classes)]
        videos.append(Made(f"{label}{number:04d}", label, length, is_test))
    return videos


def write_embedding(path: Path, video: Made, number: int, seed: int, index: int) -> None:
    """Write one embedding (S, 768) float16: whole in a test video, its first snippets alone in a training video.

    Every eighth dimension is raised where it is anomalous, so that training has something to find.
    """
    rng = np.random.default_rng((seed, index, number))
    filled = video.snippets if video.test else min(FILLED, video.snippets)
    x = rng.standard_normal((filled, WIDTH), np.float32)
    if video.anomalous:
        start, stop = video.anomalous if video.test else (0, filled)
        x[start:stop, ::8] += 0.5
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (video.snippets, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        whole = file.tell() + 2 * WIDTH * video.snippets
        file.write(x.astype(np.float16).tobytes())
        file.truncate(whole)
    part.replace(path)


def make(out: Path, *, seed: int = 0, say: Callable[[str], None] = print) -> None:
    """Write embeddings, lists, annotation and ground truth into `out`; files that are there are kept.

    Raises InputError where `out` holds something else or cannot be written to.
    """
    toml, note = out / f"{NAME}.toml", f"# seed {seed}\n"
    if out.is_dir() and any(out.iterdir()) and not toml.is_file():
        raise InputError(f"{out} is not empty and holds no {toml.name}; give a folder of its own")
    if toml.is_file() and not toml.read_text().endswith(note):
        raise InputError(f"{out} was made with another --seed or version; give another folder, or remove it")
    videos = plan(seed)
    write_whole(toml, (TOML + note).encode())
    texts = {
        "annotations.txt": [video.annotation for video in videos if video.test],
        "train.txt": [f"{video.label}/{video.name}" for video in videos if not video.test],
        "test.txt": [f"{video.label}/{video.name}" for video in videos if video.test],
    }
    for name, lines in texts.items():
        write_whole(out / name, "".join(f"{line}\n" for line in lines).encode())
    try:
        _write_all(out, videos, seed)
    except OSError as error:
        raise InputError(f"{out}: cannot write here ({error.strerror})") from None
    for script in COMMANDS:
        command = [script, "--dataset", str(toml.absolute())]
        say("$ python " + " ".join(command))
        if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
            raise InputError(f"`python {' '.join(command)}` failed; what it printed above says why")
    say(f"train on it with: python main.py --dataset {toml}")


def _write_all(out: Path, videos: list[Made], seed: int) -> None:
    files = sum(len(FOLDERS) * len(TEST_CROPS if video.test else TRAIN_CROPS) for video in videos)
    for folder in FOLDERS:
        for label in (UCFCRIME.normal, *UCFCRIME.classes):
            (out / folder / label).mkdir(parents=True, exist_ok=True)
    with tqdm(total=files, desc="embeddings", unit="file") as bar:
        for index, video in enumerate(videos):
            for path, number in video.files(out):
                if not path.is_file():
                    write_embedding(path, video, number, seed, index)
                bar.update()
