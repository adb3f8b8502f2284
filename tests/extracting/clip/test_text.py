"""The text tower file: equal to open_clip's text encoder, for every data set, and refused where it does not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from extracting.clip.text import save_text_tower, text_part
from extracting.clip.tower import import_open_clip
from tests.conftest import ROOT
from vad.avadclip.method import read_text_tower
from vad.datasets import load_dataset
from vad.files import InputError

CLASSES = load_dataset("xd").prompts


@pytest.fixture(scope="module")
def clip():
    """Return a small CLIP with random weights; a head of its text tower is 64 wide, as in every CLIP."""
    open_clip = import_open_clip()
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    return open_clip.model.CLIP(embed_dim=128, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()


def test_saved_tower_equals_open_clip(clip, tmp_path):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    note = save_text_tower(tmp_path / "text.pt", CLASSES, str(tmp_path / "clip.pt"), 64)
    assert note == "weights of clip.pt"
    tower, tokens = read_text_tower(tmp_path / "text.pt", CLASSES), import_open_clip().tokenize(list(CLASSES))
    with torch.no_grad():
        expected = clip.encode_text(tokens)
        torch.testing.assert_close(tower(tower.words, tower.ends), expected, rtol=1e-4, atol=1e-5)
    # seven prompts need a few rows of the vocabulary
    assert (tmp_path / "text.pt").stat().st_size < 0.2 * (tmp_path / "clip.pt").stat().st_size


@pytest.mark.parametrize("name", ["ucfcrime", "xd", "shang", "msad", "demo_av"])
def test_every_data_set_has_an_untrained_tower(name, tmp_path):
    classes = load_dataset(name).prompts
    save_text_tower(tmp_path / "text.pt", classes, "untrained", 64)
    tower = read_text_tower(tmp_path / "text.pt", classes)
    x = tower(tower.words, tower.ends)
    assert x.shape == (len(classes), 64) and x.isfinite().all()
    assert torch.pdist(x).min() > 0.1  # the classes differ


def test_weights_without_text_are_refused():
    with pytest.raises(InputError, match="these weights have no text tower"):
        text_part({"visual.proj": torch.zeros(2, 2)}, torch.zeros(1, 77, dtype=torch.long))


def test_command_writes_the_tower(tmp_path):
    start = [sys.executable, "-m", "extracting.clip.text", "--dataset", "xd"]
    command = [*start, "--clip_ckpt", "untrained", "--save_path", tmp_path / "t.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and "classes normal, fighting" in done.stdout, done.stderr
    read_text_tower(tmp_path / "t.pt", CLASSES)
    command = [*start, "--clip_ckpt", tmp_path / "none.pt"]
    bad = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert bad.returncode == 2 and "the file does not exist" in bad.stderr
