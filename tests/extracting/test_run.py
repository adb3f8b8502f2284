"""Runs over a folder: files, manifest, resuming, refusals, failures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.embedder import Target
from extracting.encoder import Encoder, load_encoder
from extracting.manifest import Manifest
from extracting.outputs import EmbeddingFiles, npy_header
from extracting.pipeline import Batches, embed_video, standardise_on
from extracting.run import FolderRun
from extracting.stream import Settings
from extracting.videos import find_videos
from tests.extracting.helpers import ROOT, command, contents, write_video
from vad.errors import InputError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("untrained", "image", tower="tiny", device="cpu")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos of 3, 2 and 1 snippets, two in a class folder and one at the top."""
    root = tmp_path / "videos"
    write_video(root / "Abuse" / "a.b_x264.avi", 50, seed=1)
    write_video(root / "Arson" / "c.avi", 32, seed=2)
    write_video(root / "d.avi", 17, seed=3)
    return root


def run(videos: Path, save_dir: Path, encoder: Encoder, **options: object) -> FolderRun:
    arguments = {"modality": "image", "settings": Settings(), "crops": (5,), **options}
    modality, settings, crops = (arguments.pop(name) for name in ("modality", "settings", "crops"))
    target = Target(modality, save_dir, encoder, settings)
    folder_run = FolderRun(find_videos(videos), [target], settings, crops, **arguments)
    folder_run.run()
    return folder_run


def written(done: FolderRun) -> list[str]:
    (records,) = done.summary.done.values()
    return sorted(record.name for record in records if record.written)


def reused(done: FolderRun) -> int:
    (records,) = done.summary.before.values()
    return len(records)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.npy")}


@pytest.mark.parametrize("modality", ["image", "event"])
def test_files_manifest_and_own_video_agree(videos: Path, tmp_path: Path, encoder: Encoder, modality: str) -> None:
    out = tmp_path / "out"
    done = run(videos, out, encoder, modality=modality, crops=(0, 5, 9), batch_size=48)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.npy")) == sorted(
        f"{name}__{crop}.npy" for name in ("Abuse/a.b_x264", "Arson/c", "d") for crop in (0, 5, 9)
    )
    assert not list(out.rglob(".unfinished"))
    lines = {line["name"]: line for line in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert {name: line["snippets"] for name, line in lines.items()} == {"Abuse/a.b_x264": 3, "Arson/c": 2, "d": 1}
    line = lines["Abuse/a.b_x264"]
    assert (line["video"], line["frames"], line["promised"], line["outcome"]) == ("Abuse/a.b_x264.avi", 50, 50, "ok")
    assert (line["crops"], line["encoder"], line["settings"]["tail"]) == ([0, 5, 9], encoder.hash, "whole")
    assert ("event_threshold" in line["settings"]) == (modality == "event")
    assert len(written(done)) == 3
    # batches that span videos and crops change nothing but the last bits
    alone = embed_video(videos / "Abuse" / "a.b_x264.avi", modality, encoder, Settings(), (0, 5, 9), batch_size=16)
    for crop in (0, 5, 9):
        stored = np.load(out / "Abuse" / f"a.b_x264__{crop}.npy", allow_pickle=False)
        assert (stored.shape, stored.dtype) == ((3, 64), np.float32)
        np.testing.assert_allclose(stored, alone[crop], atol=1e-5)
    assert not np.allclose(alone[0], alone[5])


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_embeddings_return_to_their_crop_and_snippet(videos: Path, encoder: Encoder, batch_size: int) -> None:
    """Whatever the batch size, every row is that of its own crop and snippet, in order."""
    path = videos / "Abuse" / "a.b_x264.avi"
    together = embed_video(path, "event", encoder, Settings(event_threshold=2), range(10), batch_size)
    for crop in range(10):
        alone = embed_video(path, "event", encoder, Settings(event_threshold=2), [crop], 1)[crop]
        assert alone.shape == (3, 64)
        np.testing.assert_allclose(together[crop], alone, atol=1e-5)


def test_finished_videos_are_left_alone_and_a_killed_run_continues(
    videos: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    append = Manifest.append
    finished = []

    def killed_at_the_second(self: Manifest, record: object) -> None:
        if finished:
            raise KeyboardInterrupt  # after the second video's files, before its line
        append(self, record)
        finished.append(record.name)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "append", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(videos, out, encoder, workers=1)
    assert not list(out.rglob(".unfinished"))
    (first,) = finished
    before = stamps(out)
    second = run(videos, out, encoder)
    assert (reused(second), len(written(second))) == (1, 2)
    name = f"{Path(first).name}__5.npy"
    assert stamps(out)[name] == before[name]
    third = run(videos, out, encoder)
    assert (reused(third), third.todo) == (3, [])


def test_ctrl_c_inside_a_video_leaves_no_half_file(
    videos: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "_deliver", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(videos, tmp_path / "out", encoder)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["manifest.jsonl"]


def test_a_torn_line_and_a_missing_or_replaced_file_are_made_again(
    videos: Path, tmp_path: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    run(videos, out, encoder)
    manifest = out / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:2], lines[2][:40]]))  # a kill while the third line was written
    again = run(videos, out, encoder)
    assert reused(again) == 2
    assert Manifest(out).torn == 1
    assert Manifest(out).records.keys() == {"Abuse/a.b_x264", "Arson/c", "d"}
    (out / "Arson" / "c__5.npy").unlink()
    write_video(videos / "d.avi", 40, seed=9)
    again = run(videos, out, encoder)
    assert written(again) == ["Arson/c", "d"]
    assert np.load(out / "d__5.npy").shape == (2, 64)


def test_more_crops_are_added_to_what_is_there(videos: Path, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "out"
    run(videos, out, encoder, crops=(5,))
    assert reused(run(videos, out, encoder, crops=(0,))) == 0
    assert Manifest(out).records["d"].crops == [0, 5]
    assert reused(run(videos, out, encoder, crops=(0, 5))) == 3


def test_changed_settings_or_weights_are_refused_unless_overwritten(
    videos: Path, tmp_path: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    run(videos, out, encoder, crops=(0, 5))
    released = Settings(tail="released")
    with pytest.raises(InputError, match=r"made with tail = whole .*this run has released.*--overwrite"):
        run(videos, out, encoder, settings=released)
    other = load_encoder("untrained", "image", tower="tiny", device="cpu")
    other.hash = "0123"
    with pytest.raises(InputError, match=f"made with encoder = {encoder.hash}"):
        run(videos, out, other)
    # a switch that does not bear on images is no change
    assert reused(run(videos, out, encoder, settings=Settings(event_clamp=3))) == 3
    done = run(videos, out, encoder, settings=released, overwrite=True)
    assert len(written(done)) == 3
    assert not (out / "d__0.npy").exists()  # crop 0 was made otherwise and is not made now: it does not stay
    assert Manifest(out).records["d"].settings["tail"] == "released"


def test_overwriting_that_is_stopped_leaves_no_mixture_and_continues_without_the_flag(
    videos: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the first of a video's two crops has been replaced: neither the old nor the new settings take it."""
    out, released = tmp_path / "out", Settings(tail="released")
    run(videos, out, encoder, crops=(0, 5))
    replaced = []

    def stopped(self: EmbeddingFiles) -> int:
        (first, *_), file = self._temporary, self._open
        for each in file.values():
            each.close()
        os.replace(self._temporary[first], self._final[first])
        replaced.append(self._final[first])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingFiles, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(videos, out, encoder, crops=(0, 5), settings=released, overwrite=True)
    assert len(replaced) == 1
    assert {record.outcome for record in Manifest(out).records.values()} == {"unfinished"}
    back = shutil.copytree(out, tmp_path / "back")
    run(videos, tmp_path / "old", encoder, crops=(0, 5))
    run(videos, tmp_path / "new", encoder, crops=(0, 5), settings=released)
    for folder, expected, settings in ((out, "new", released), (back, "old", Settings())):
        done = run(videos, folder, encoder, crops=(0, 5), settings=settings)
        assert (reused(done), len(written(done))) == (0, 3)
        assert contents(folder) == contents(tmp_path / expected)


def test_overwriting_in_the_same_way_takes_nothing_away(
    videos: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    run(videos, tmp_path / "out", encoder)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingFiles, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(videos, tmp_path / "out", encoder, overwrite=True)
    assert reused(run(videos, tmp_path / "out", encoder)) == 3


def test_embeddings_without_a_manifest_are_not_overwritten(videos: Path, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "out"
    out.mkdir()
    np.save(out / "d__5.npy", np.zeros((7, 64)))
    with pytest.raises(InputError, match=r"d__5\.npy is there, but no manifest\.jsonl says how it was made"):
        run(videos, out, encoder)
    assert np.load(out / "d__5.npy").shape == (7, 64)
    run(videos, out, encoder, overwrite=True)
    assert np.load(out / "d__5.npy").shape == (1, 64)


def test_released_block_scaling_does_not_depend_on_our_batches(tmp_path: Path, encoder: Encoder) -> None:
    path = write_video(tmp_path / "long.avi", 16 * 34, seed=4)
    settings = Settings(tail="released", event_clamp=16, event_scaling="block", event_threshold=3)
    rows = [embed_video(path, "event", encoder, settings, (5,), batch_size)[5] for batch_size in (5, 64)]
    assert rows[0].shape == (34, 64)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_an_untrained_encoder_is_standardised_on_the_videos_that_open(videos: Path) -> None:
    (videos / "Arson" / "broken.mp4").write_bytes(b"not a video")
    paths = [job.path for job in find_videos(videos)]
    fresh = load_encoder("untrained", "image", tower="tiny", device="cpu")
    before = fresh.hash
    standardise_on(fresh, "image", paths, Settings())
    assert fresh.hash != before
    assert "3 videos" in fresh.note  # four files, one of them broken
    whole = np.concatenate([embed_video(p, "image", fresh, crops=(0,))[0] for p in paths if p.name != "broken.mp4"])
    np.testing.assert_allclose(whole.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(whole.var(0, ddof=1).mean(), 1, rtol=1e-3)


def test_one_snippet_has_no_spread_to_standardise_by(videos: Path) -> None:
    fresh = load_encoder("untrained", "image", tower="tiny", device="cpu")
    before = fresh.hash
    standardise_on(fresh, "image", [videos / "d.avi"], Settings())
    assert fresh.hash == before
    assert np.isfinite(embed_video(videos / "d.avi", "image", fresh, crops=(5,))[5]).all()


def test_bad_embeddings_end_the_run_with_a_sentence(videos: Path, tmp_path: Path) -> None:
    broken = load_encoder("untrained", "image", tower="tiny", device="cpu")
    broken.tower.proj.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite embeddings"):
        run(videos, tmp_path / "out", broken)
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_rewritten_header_is_numpys(tmp_path: Path) -> None:
    files = EmbeddingFiles(tmp_path, "Class/v", (5,), 3)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    for row in rows:
        files.append(5, row)
    assert list((tmp_path / "Class").iterdir()) == []  # nothing under the final name before the last row
    assert files.commit() == 4
    assert (np.load(tmp_path / "Class" / "v__5.npy", allow_pickle=False) == rows).all()
    assert len(npy_header("<f4", (0, 3))) == len(npy_header("<f4", (10**9, 768))) == 128


def test_folders_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_videos(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no video"):
        find_videos(tmp_path / "empty")


def test_settings_that_mean_nothing() -> None:
    for wrong in ({"tail": "x"}, {"event_threshold": 300}, {"event_clamp": 0}, {"event_scaling": "x"}):
        with pytest.raises(InputError):
            Settings(**wrong)


@pytest.mark.parametrize(("script", "cwd"), [("extracting/gen_img.py", "."), ("gen_event.py", "extracting")])
def test_doors_write_and_tell_failures(videos: Path, tmp_path: Path, script: str, cwd: str) -> None:
    (videos / "Arson" / "broken.mp4").write_bytes(b"not a video")
    write_video(videos / "Arson" / "short.avi", 10)
    out = tmp_path / "out"
    told = command(
        script, "--dataset", "demo", "--video_dir", videos, "--save_dir", out, "--crops", "5", cwd=ROOT / cwd
    )
    assert told.returncode == 1, told.stderr
    assert "UNTRAINED" in told.stdout
    assert "3 videos written" in told.stdout
    assert "2 videos are not ok:" in told.stdout
    assert "not_video     Arson/broken.mp4  does not open as a video" in told.stdout
    assert "too_short     Arson/short.avi   has 10 frames, one snippet needs at least 16 frames" in told.stdout
    assert len(list(out.rglob("*__5.npy"))) == 3
    outcomes = {line["name"]: line["outcome"] for line in map(json.loads, (out / "manifest.jsonl").open())}
    assert (outcomes["Arson/broken"], outcomes["Arson/short"]) == ("not_video", "too_short")


@pytest.mark.parametrize("name", ["ucf", "xd", "shang", "msad"])
def test_documented_scripts_answer_wrong_input_with_one_sentence(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    image = command(f"extracting/{name}_gen_img.py", "--video_dir", tmp_path / "none", "--save_dir", out)
    event = command(f"{name}_gen_event.py", "--save_dir", out, cwd=ROOT / "extracting")
    for told, sentence in ((image, "none: no such folder"), (event, "--video_dir is missing")):
        assert told.returncode == 2
        assert told.stderr.startswith("error: ")
        assert sentence in told.stderr
        assert "Traceback" not in told.stderr
    assert not out.exists()


def test_a_documented_script_runs_with_a_checkpoint(videos: Path, tmp_path: Path, encoder: Encoder) -> None:
    weights = encoder.tower.state_dict()
    torch.save({"checkpoint": {f"encoder_k.{name}": value for name, value in weights.items()}}, tmp_path / "event.pt")
    arguments = ("--video_dir", videos, "--save_dir", tmp_path / "event_thr_10", "--crops", "5")
    arguments += ("--profile", "released")
    told = command(
        "ucf_gen_event.py", *arguments, "--event_threshold", "25", "--clip_ckpt", tmp_path / "event.pt",
        cwd=ROOT / "extracting",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    record = Manifest(tmp_path / "event_thr_10").records["Abuse/a.b_x264"]
    assert record.encoder == encoder.hash
    # the typed flag beats the profile, the profile beats the default
    assert record.settings == {
        "modality": "event",
        "tail": "released",
        "event_threshold": 25,
        "event_clamp": 16,
        "event_scaling": "block",
        "precision": "fp32",
    }
    again = command("extracting/ucf_gen_event.py", *arguments, "--clip_ckpt", tmp_path / "event.pt")
    assert again.returncode == 2
    assert "made with event_threshold = 25" in again.stderr


def test_the_misspelt_script_does_not_exist() -> None:
    assert not (ROOT / "extracting" / "ucf_gen_ima.py").exists()


def test_frames_missing_from_a_container_are_noted(realdata: Path, tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("intel_asl_again.mkv", "torchcodec_av1_undecodable.mkv"):
        (tmp_path / "videos" / name).symlink_to(realdata.resolve() / "videos" / name)
    done = run(tmp_path / "videos", tmp_path / "out", encoder)
    record, failed = sorted(done.summary.done["image"], key=lambda record: record.name)
    assert (record.outcome, record.frames, record.promised, record.snippets) == ("short", 77, 78, 4)
    assert record.reason == "the container promises 78 frames, 77 could be decoded"
    assert failed.outcome == "no_frames"
    assert failed.reason.startswith("opens but gives no frame although it promises 125")
