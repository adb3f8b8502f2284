"""The sound of the synthetic videos: what is heard when, and that the pictures stay those of the demo."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import demo
from demo import commands
from demo.script import FPS, write_script
from demo.sounds import RATE, record_sound, wav_file
from demo.videos import DATASET, SIZES, SOUND, dataset_in, plan_videos, write_video
from vad.datasets import load_dataset

AV = load_dataset("demo_av")
INDICES = range(12)


def sounds(label: str, **options) -> list[tuple[object, np.ndarray]]:
    """Return scripts with the sound of those videos that have it."""
    scripts = [write_script(0, index, label) for index in INDICES]
    recorded = [(script, record_sound(script, **options)) for script in scripts]
    return [(script, sound) for script, sound in recorded if sound is not None]


def seconds(sound: np.ndarray) -> np.ndarray:
    """Return the loudness of each second, in units of the largest value."""
    parts = sound[: len(sound) // RATE * RATE].reshape(-1, RATE) / 32767
    return np.sqrt((parts**2).mean(1))


def test_sound_depends_on_the_script_alone():
    for label in AV.classes:
        one, other = (sounds(label) for _ in range(2))
        assert all(np.array_equal(x, y) for (_, x), (_, y) in zip(one, other, strict=True))
        assert not np.array_equal(one[0][1][:RATE], one[1][1][:RATE])


def test_samples_match_the_version_of_the_sound():
    """If the sound changes on purpose, change `SOUND` and this hash together."""
    digest = hashlib.sha256()
    for label in [AV.normal, *AV.classes]:
        for _, sound in sounds(label)[:2]:
            digest.update(sound.astype("<i2").tobytes())
    assert (SOUND, digest.hexdigest()[:16]) == (1, "0dd7500c66442927")


def test_sound_is_as_long_as_the_video():
    for script, sound in sounds("Normal"):
        assert abs(len(sound) / RATE - script.frames / FPS) < 1 / RATE and sound.dtype == np.int16


@pytest.mark.parametrize("label", ["Scream", "Crash"])
def test_anomaly_is_heard_inside_its_intervals_alone(label):
    for (script, with_it), (_, without) in zip(sounds(label), sounds(label, anomaly=False), strict=True):
        inside = np.zeros(len(with_it), bool)
        for start, end in script.intervals:
            inside[round(start * RATE / FPS) : round(end * RATE / FPS)] = True
        changed = with_it != without
        assert not changed[~inside].any()
        # clipping wind and drop-outs hide some of it
        assert changed[inside].mean() > 0.5


@pytest.mark.parametrize("label", ["Intruder", "Running"])
def test_anomaly_that_is_only_seen_changes_no_sound(label):
    for (_, with_it), (_, without) in zip(sounds(label), sounds(label, anomaly=False), strict=True):
        assert np.array_equal(with_it, without)


def test_scream_is_not_seen():
    """Its pictures are those of a normal video: no actor belongs to it."""
    for index in INDICES:
        script = write_script(0, index, "Scream")
        assert script.intervals and not script.anomalies and not any(p.runs for p in script.pedestrians)


def test_loudness_alone_does_not_find_screams():
    """Everyday noises are as loud: ranking seconds by loudness finds the screams poorly."""
    loud, labels = [], []
    for label in ("Normal", "Scream"):
        for script, sound in sounds(label):
            loud.append(seconds(sound))
            times = (np.arange(len(loud[-1])) + 0.5) * FPS
            labels.append(np.any([(start <= times) & (times < end) for start, end in script.intervals], axis=0))
            labels[-1] = np.broadcast_to(labels[-1], times.shape)
    assert 0.6 < roc_auc_score(np.concatenate(labels), np.concatenate(loud)) < 0.85


def test_microphone_drops_out_in_some_videos():
    """A drop-out is silence of at least 0.3 s; the street alone is never zero for so long."""
    silences = []
    for _, sound in sounds("Normal"):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], sound == 0, [0]]).astype(int)))
        silences.append(np.diff(edges)[::2].max(initial=0) / RATE)
    assert 0 < sum(length >= 0.29 for length in silences) < len(silences)


def test_about_a_tenth_of_the_videos_is_silent_but_no_scream():
    videos = plan_videos(0, *SIZES["demo_av"], AV)
    silent = [v.label for v in videos if record_sound(write_script(0, v.index, v.label)) is None]
    assert 0.05 < len(silent) / len(videos) < 0.15 and "Scream" not in silent


def test_wav_is_written_beside_the_video(tmp_path: Path):
    video = plan_videos(0, 2, 2, AV)[1]
    write_video(video, 0, tmp_path, sound=True)
    path = tmp_path / "videos" / video.file
    with wave.open(str(path.with_suffix(".wav"))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    expected = record_sound(write_script(0, video.index, video.label))
    assert np.array_equal(samples, expected) and len(wav_file(expected)) == 44 + 2 * len(expected)
    other = tmp_path / "other"
    write_video(video, 0, other)
    assert path.read_bytes() == (other / "videos" / video.file).read_bytes()  # the picture does not depend on it
    assert not (other / "videos" / video.file).with_suffix(".wav").exists()


def test_commands_embed_sound_only_where_there_is_some():
    text = [" ".join(command) for command in commands(AV)]
    assert sum("gen_audio" in command for command in text) == 1
    assert not any("gen_audio" in " ".join(command) for command in commands(DATASET))
    assert all("--dataset demo_av" in command for command in text)


def test_folder_can_hold_a_demo_with_sound(tmp_path: Path):
    made = dataset_in(tmp_path / "street", AV)
    assert made.sound and made.name == "small_demo_av" and made.annotation_path.parent == tmp_path / "street"
    assert tuple(made.classes) == ("Intruder", "Running", "Scream", "Crash")


def test_existing_folder_with_sound_keeps_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`python -m demo --folder DIR` names no --dataset; the folder says which demo it holds."""
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(demo, "render_videos", lambda _, __, ___, train, test, *____: sizes.append((train, test)))
    monkeypatch.setattr(demo, "commands", lambda _: ())
    dataset_in(tmp_path, AV)
    demo.prepare(folder=tmp_path)
    assert sizes == [SIZES["demo_av"]] == [(336, 96)]
