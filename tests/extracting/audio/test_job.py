"""Runs over a folder: files, manifest, joining with image embeddings, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extracting.audio import job as job_module
from extracting.audio.cli import extract
from extracting.audio.wav2clip import load_audio_encoder, save_weights, untrained
from extracting.job.manifest import Manifest
from tests.extracting.audio.helpers import clicks, segments_of, steady, write_media, write_wav
from tests.extracting.helpers import command, contents, hidden
from vad.files import InputError

Gen = Callable[..., tuple[int, str]]
TINY = ("--encoder", "tiny", "--wav2clip_ckpt", "untrained", "--device", "cpu")


def write_images(folder: Path, frames: dict[str, int], tail: str | None = "whole") -> Path:
    """Write image embeddings by name of the file and number of frames, and their manifest unless `tail` is None."""
    for name, count in frames.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, np.zeros((count // 16, 4), np.float32))
    if tail:
        same = {"bytes": 1, "outcome": "ok", "settings": {"tail": tail}}
        lines = [{"video": name, "name": name.rpartition("__")[0], **same} for name in frames]
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Return a folder with two videos with sound, a silent one, and their image embeddings in rgb/."""
    for name, at in (("Fighting/a.b", 0.1), ("Riot/c", 0.8)):
        write_media(tmp_path / "videos" / f"{name}.mkv", steady(40), clicks(1.6, at=[at]))
    write_media(tmp_path / "videos" / "d.mkv", steady(32))
    write_images(
        tmp_path / "rgb", {"Fighting/a.b__5.npy": 40, "Fighting/a.b__0.npy": 40, "Riot/c__0.npy": 40, "d__5.npy": 32}
    )
    return tmp_path


@pytest.fixture
def gen(street: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gen:
    """Return a function that embeds the street in this process: (exit code, stdout)."""

    def run(*flags: str | Path) -> tuple[int, str]:
        folders = ["--dataset", "xd", "--video_dir", street / "videos", "--image_dir", street / "rgb"]
        monkeypatch.setattr(sys, "argv", ["gen_audio.py", *map(str, (*folders, *TINY, *flags))])
        capsys.readouterr()
        return extract(), capsys.readouterr().out

    return run


def outcomes(folder: Path) -> dict[str, str]:
    """Return the outcome of each video of a manifest."""
    return {name: record.outcome for name, record in Manifest(folder).records.items()}


def test_files_and_manifest(street: Path, gen: Gen) -> None:
    code, out = gen()
    assert code == 0 and "3 videos written" in out and "1 videos are silent; their files are zero" in out
    assert sorted(contents(street / "audio")) == ["Fighting/a.b.npy", "Riot/c.npy", "d.npy"] and not hidden(
        street / "audio"
    )
    sound, silence = np.load(street / "audio" / "Riot" / "c.npy"), np.load(street / "audio" / "d.npy")
    assert sound.shape == (2, 64) and sound.dtype == silence.dtype == np.float32 and silence.shape == (2, 64)
    encoder = load_audio_encoder("untrained", tower="tiny", device="cpu")
    ((part, expected),) = encoder.embed(segments_of(street / "videos" / "Riot" / "c.mkv", 2))
    assert part == [0, 1] and np.array_equal(sound, expected) and not silence.any()
    record = Manifest(street / "audio").records["Riot/c"]
    assert (record.outcome, record.frames, record.snippets, record.crops) == ("ok", 40, 2, [None])
    assert record.encoder == encoder.hash and "folder_fps" not in record.settings
    assert (record.settings["audio_norm"], record.settings["tower"]) == ("video", "tiny")
    record = Manifest(street / "audio").records["d"]
    assert (record.outcome, record.reason, record.snippets) == ("silent", "it has no sound", 2)


def test_second_run_finds_everything_finished(street: Path, gen: Gen) -> None:
    gen()
    before = contents(street / "audio")
    code, out = gen()
    assert code == 0 and "0 videos written, 3 already finished" in out and "1 videos are silent" in out
    assert contents(street / "audio") == before
    # an embedding that is gone, a .wav that appears, and another S are made again
    (street / "audio" / "d.npy").unlink()
    write_wav(street / "videos" / "Riot" / "c.wav", clicks(1.6, at=[0.2]))
    write_images(street / "rgb", {"Fighting/a.b__5.npy": 16, "Fighting/a.b__0.npy": 16}, tail=None)
    code, out = gen()
    assert code == 1 and "2 videos written, 0 already finished" in out
    after = contents(street / "audio")
    assert "Fighting/a.b.npy" not in after and after["d.npy"] == before["d.npy"]
    assert after["Riot/c.npy"] != before["Riot/c.npy"]
    assert outcomes(street / "audio") == {"Fighting/a.b": "other_length", "Riot/c": "ok", "d": "silent"}


def test_other_settings_and_weights_are_refused(street: Path, gen: Gen) -> None:
    gen()
    before = contents(street / "audio")
    with pytest.raises(InputError, match=r"made with audio_norm = video .* uses segment.* --overwrite"):
        gen("--audio_norm", "segment")
    save_weights(street / "w.pt", untrained("tiny", seed=1))
    with pytest.raises(InputError, match="made with encoder = "):
        gen("--wav2clip_ckpt", street / "w.pt")
    assert contents(street / "audio") == before
    gen("--audio_norm", "segment", "--overwrite")
    after = contents(street / "audio")
    assert after["d.npy"] == before["d.npy"] and after["Riot/c.npy"] != before["Riot/c.npy"]


def test_stopped_run_keeps_finished_videos(street: Path, gen: Gen, monkeypatch: pytest.MonkeyPatch) -> None:
    gen("--save_dir", street / "whole")
    read, seen = job_module.read_track, []

    def stop_at_second(job: object, fps: object) -> object:
        seen.append(job)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return read(job, fps)

    monkeypatch.setattr(job_module, "read_track", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        gen()
    assert list(contents(street / "audio")) == ["Fighting/a.b.npy"] and not hidden(street / "audio")
    assert "2 videos written, 1 already finished" in gen()[1]
    assert contents(street / "audio") == contents(street / "whole")


def test_video_of_another_length_is_refused_by_name(street: Path, gen: Gen) -> None:
    write_images(street / "rgb", {"Riot/c__5.npy": 48, "Riot/c__0.npy": 48}, tail=None)
    code, out = gen()
    assert code == 1 and "2 videos written" in out
    assert "Riot/c.mkv" in out and "its 40 frames do not give the 3 snippets of its image embeddings; embed the" in out
    assert not (street / "audio" / "Riot" / "c.npy").exists()


@pytest.mark.parametrize(("tail", "outcome"), [("whole", "other_length"), ("released", "ok"), (None, "ok")])
def test_tail_rule_of_the_images_decides(tail: str | None, outcome: str, street: Path, gen: Gen) -> None:
    # 48 frames give 3 snippets; 528 frames give 33, but the released rule drops the tail of 16 frames
    shutil.rmtree(street / "videos")
    shutil.rmtree(street / "rgb")
    write_media(street / "videos" / "e.mkv", steady(528), clicks(3.0, at=[0.1]))
    write_images(street / "rgb", {"e__5.npy": 512}, tail)
    gen()
    assert outcomes(street / "audio") == {"e": outcome}


def test_videos_without_image_embeddings_are_named(street: Path, gen: Gen) -> None:
    (street / "rgb" / "Riot" / "c__0.npy").unlink()
    code, out = gen()
    assert code == 1 and "1 videos have no image embeddings and are left out: Riot/c.mkv\n" in out
    assert sorted(contents(street / "audio")) == ["Fighting/a.b.npy", "d.npy"]
    shutil.rmtree(street / "rgb")
    with pytest.raises(InputError, match=r"rgb has no image embedding of these videos. Extract"):
        gen()


def test_sound_is_named_as_the_image_embeddings(street: Path, gen: Gen) -> None:
    shutil.move(street / "rgb" / "Riot", street / "rgb" / "Shooting")
    assert gen()[0] == 0
    assert sorted(contents(street / "audio")) == ["Fighting/a.b.npy", "Shooting/c.npy", "d.npy"]
    # two videos for one image embedding
    shutil.copytree(street / "videos" / "Riot", street / "videos" / "Abuse")
    with pytest.raises(InputError, match=r"two videos, Abuse/c.mkv and Riot/c.mkv. Remove one"):
        gen()


def test_damaged_video_does_not_stop_the_run(street: Path, gen: Gen) -> None:
    (street / "videos" / "Riot" / "c.mkv").write_bytes(bytes(4000))
    code, out = gen()
    assert code == 1 and "2 videos written" in out and "not_video" in out and "Riot/c.mkv" in out
    assert outcomes(street / "audio")["Riot/c"] == "not_video"
    code, out = gen("--save_dir", street / "strict", "--strict")
    assert code == 1 and outcomes(street / "strict") == {"Fighting/a.b": "ok", "Riot/c": "not_video"}


def test_dry_run_writes_nothing(street: Path, gen: Gen) -> None:
    code, out = gen("--dry_run")
    assert code == 0 and "3 videos to embed, 0 to embed again, 0 finished" in out and not (street / "audio").exists()


def test_script_of_a_data_set(street: Path) -> None:
    flags = "--video_dir", street / "videos", "--image_dir", street / "rgb", "--save_dir", street / "out"
    done = command("extracting/xd_gen_audio.py", *flags)
    assert done.returncode == 2 and done.stderr.startswith("error: audio embeddings need weights. Download Wav2CLIP.pt")
    done = command("extracting/xd_gen_audio.py", *flags, *TINY)
    assert done.returncode == 0 and "3 videos written" in done.stdout and "UNTRAINED" in done.stdout
