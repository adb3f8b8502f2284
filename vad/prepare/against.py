"""Compare two folders of embeddings of the same videos, and name the causes of their difference.

"Here" is the folder of --feature_root, "there" the folder of --against. Thresholds were set on EfficientNet-Lite0 and
-Lite1 embeddings of ten real videos; the comment beside each gives the measured values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from vad import data
from vad.datasets import IMAGE_FOLDER, SNIPPET_FRAMES, Dataset
from vad.files import InputError
from vad.prepare.audit import in_threads
from vad.prepare.lists import scan_folder, shorten

VIDEOS, SNIPPETS = 32, 256  # videos that are read, and the first snippets of each
LAGS, CHANGES = 16, 600  # largest shift that is searched, in snippets; rows of a CKA
ROUNDING, NORM_ROUNDING = 5e-4, 0.01  # largest 1 − cosine, and error of a norm, under float16 and bf16
CLEARLY = 0.75  # a shift or another order of crops must reduce the mean of 1 − cosine to this share
REORDERED = 0.2  # the best match in any order must reduce it to this share
SAME_TOWER = 0.4  # least centred cosine; colour order 0.7–0.9, another crop 0.8, another tower 0.0
SAME_VIDEO = 0.4  # least CKA; another tower 0.6–0.9, other videos or another order in time at most 0.3
OTHER_FRAMES = 0.4  # largest persistence of a difference; one frame −0.2–0.1, colour order or another crop 0.6–0.9
ONE_FRAME = 1.3  # least ratio of variation; one frame to the mean of sixteen 1.6–2.5, the mean of four 1.2

# tail rule → S of a video of f frames; the last explains published arrays that are a snippet short
TAIL_RULES = {
    "whole": lambda f: f // SNIPPET_FRAMES,
    "released": lambda f: (f - np.where(f % 512 <= SNIPPET_FRAMES, f % 512, 0)) // SNIPPET_FRAMES,
    "ceil (padded last snippet)": lambda f: -(-f // SNIPPET_FRAMES),
    "whole without the last frame": lambda f: (f - 1) // SNIPPET_FRAMES,
}
Files = Mapping[str, Mapping[int, Path]]  # video → crop → file
Arrays = Sequence[np.ndarray]  # an array for each video


def compare(dataset: Dataset, here: Path, there: Path) -> dict[str, list[str]]:
    """Return modality → causes, none if equal up to rounding; raise InputError for folders without a common one."""
    own, others = _files(here, dataset), _files(there, dataset)
    causes = {name: _compare(own[name], others[name]) for name in own if name in others}
    if not causes:
        raise InputError(f"{here} has only {min(own)} embeddings, {there} only {min(others)} embeddings.")
    if len(causes) == 2 and all(causes.values()):
        crossed = _compare(own["image"], others["event"]) + _compare(own["event"], others["image"])
        if not crossed:
            return {name: ["the image and event folders are interchanged"] for name in causes}
    for name, other in permutations(own, 2):
        if causes.get(name) and not _compare(own[other], others[name]):
            causes[name] = [f"those there are the {other} embeddings of here"]
    return causes


def sentence(causes: Mapping[str, Sequence[str]]) -> str:
    """Return one sentence with the causes of every modality."""
    ends = {name: f"differ: {', and '.join(c)}" if c else "are equal up to rounding" for name, c in causes.items()}
    return f"The {'; the '.join(f'{name} embeddings {end}' for name, end in ends.items())}."


def _files(root: Path, dataset: Dataset) -> dict[str, Files]:
    files = {}
    for name in (IMAGE_FOLDER, *dataset.event_folders):
        modality = "image" if name == IMAGE_FOLDER else "event"
        if (root / name).is_dir() and modality not in files:
            videos = scan_folder(root / name, dataset)
            files[modality] = {v: {c: root / path for c, path in sorted(crops.items())} for v, crops in videos.items()}
    if not files:
        raise InputError(f"{root} contains neither {IMAGE_FOLDER}/ nor {' nor '.join(dataset.event_folders)}/.")
    return files


def _compare(here: Files, there: Files) -> list[str]:
    causes = []
    for place, one, other in (("here", here, there), ("there", there, here)):
        names = sorted(one.keys() & other.keys())
        crops = [f"{name}__{crop}" for name in names for crop in one[name] if crop not in other[name]]
        for title, lost in (("videos", sorted(one.keys() - other.keys())), ("crops", crops)):
            if lost:
                causes.append(f"{len(lost):,} {title} are only {place} ({shorten(lost, 3)})")
    if not names:
        return causes
    paths = [next(iter(files[name].values())) for name in names for files in (here, there)]
    S = np.array([shape[0] for shape, _ in in_threads(data.embedding_header, paths, "headers")]).reshape(-1, 2)
    groups = [(tuple(here[name]), tuple(there[name])) for name in names]
    own, other = Counter(groups).most_common(1)[0][0]  # crops of most videos
    usual = [name for name, group in zip(names, groups, strict=True) if group == (own, other)]
    sample = sorted(np.random.default_rng(0).permutation(usual)[:VIDEOS].tolist())
    x, y = _read(here, sample), _read(there, sample)
    lag, i, j = _align(x, y, own, other)
    if lag:  # which changes S
        causes.append(f"they start {abs(lag)} snippets later {'there' if lag > 0 else 'here'}")
    else:
        causes += _tail_causes(S)
    moved = [(own[p], other[q]) for p, q in zip(i, j, strict=True) if own[p] != other[q]]
    if moved:
        mirrored = all(abs(p - q) == 5 for p, q in moved)
        text = "mirrored and unmirrored crops are swapped" if mirrored else "crops are numbered differently"
        causes.append(f"{text} (crop here is crop there: {', '.join(f'{p} is {q}' for p, q in moved)})")
    X, Y, video = _join(x, y, lag)
    return causes + _value_causes(X[:, i], Y[:, j], np.array(sample)[video])


def _tail_causes(S: np.ndarray) -> list[str]:
    """Return the pair of tail rules that explains S (V, 2) of most videos; of equal pairs, by most video lengths f."""
    f = SNIPPET_FRAMES * (S.min(1, keepdims=True) - 1) + np.arange(4 * SNIPPET_FRAMES)
    scores = {}
    for one, other in permutations(TAIL_RULES, 2):
        if not {one, other} & {"whole", "released"}:  # the others differ in S always, but nobody uses both
            continue
        fits = (TAIL_RULES[one](f) == S[:, :1]) & (TAIL_RULES[other](f) == S[:, 1:])
        scores[one, other] = fits.any(1).sum(), fits.sum()
    one, other = max(scores, key=scores.get)
    differing = np.count_nonzero(S[:, 0] != S[:, 1])
    cause = f"because the tail rule is {one} here but {other} there"
    if scores[one, other][0] <= len(S) - differing / 2:
        cause = f"by {np.median(np.diff(S)):+.0f} in the median, which no tail rule explains"
    return [f"S differs in {differing:,} of {len(S):,} videos {cause}"] if differing else []


def _read(files: Files, names: Sequence[str]) -> Arrays:
    """Return the first snippets of each video (S, C, D); NaN becomes 0."""
    videos = []
    for name in names:
        crops = [data.load_embedding(path, nan="zero")[:SNIPPETS] for path in files[name].values()]
        if len({array.shape[-1] for array in (*crops, *videos)}) > 1:
            raise InputError(f"{name} has embeddings of another width D than the videos before it. Extract it again.")
        videos.append(np.stack([crop[: min(map(len, crops))] for crop in crops], axis=1))
    return videos


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def _join(x: Arrays, y: Arrays, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join all videos, with snippet t + lag of x beside snippet t of y. The third array is the video of each row."""
    X, Y = [v[max(lag, 0) :] for v in x], [v[max(-lag, 0) :] for v in y]
    S = [min(len(p), len(q)) for p, q in zip(X, Y, strict=True)]
    X, Y = (np.concatenate([v[:s] for v, s in zip(side, S, strict=True)]) for side in (X, Y))
    return X, Y, np.repeat(np.arange(len(S)), S)


def _align(x: Arrays, y: Arrays, own: Sequence[int], other: Sequence[int]) -> tuple:
    """Return the shift in snippets, and the positions of the crops here and there that belong together."""
    common = [crop for crop in own if crop in other]  # belong together, unless other pairs are clearly closer
    i = [own.index(crop) for crop in common] or list(range(min(len(own), len(other))))
    j = [other.index(crop) for crop in common] or i
    a, b = [_unit(v[:, i].mean(1)) for v in x], [_unit(v[:, j].mean(1)) for v in y]
    reach = min(LAGS, int(np.median([len(v) for v in a])) // 2)
    lags = sorted(range(-reach, reach + 1), key=abs)  # of equal shifts the shortest is found
    if _centred_cosine(*_join(a, b, 0)[:2]) < SAME_TOWER:  # between towers the cosine tells nothing
        ckas = {lag: np.nan_to_num(_changes_cka(*_join(a, b, lag))) for lag in lags}
        best = max(lags, key=ckas.get)
        if ckas[best] >= SAME_VIDEO and ckas[0] < CLEARLY * ckas[best]:
            return best, i, j
    if x[0].shape[2] != y[0].shape[2]:
        return 0, i, j
    errors = {}
    for lag in lags:
        A, B, _ = _join(a, b, lag)
        errors[lag] = 1 - (A * B).sum() / max(len(A), 1)
    best = min(errors, key=errors.get)
    shifted = errors[0] > ROUNDING and errors[best] < CLEARLY * errors[0]
    lag = best if shifted and _best_match(a, b) >= REORDERED * errors[best] else 0
    X, Y, _ = _join(x, y, lag)
    error = 1 - np.tensordot(_unit(X), _unit(Y), ([0, 2], [0, 2])) / max(len(X), 1)  # (crops here, crops there)
    found = linear_sum_assignment(error)
    if error[i, j].mean() > ROUNDING and error[found].mean() < CLEARLY * error[i, j].mean():
        i, j = map(list, found)
    return lag, i, j


def _best_match(a: Arrays, b: Arrays) -> float:
    """Return the mean of 1 − cosine of each snippet to the closest one of its video, whatever its time."""
    return float(np.concatenate([1 - (p @ q.T).max(1) for p, q in zip(a, b, strict=True) if len(p) and len(q)]).mean())


def _centred_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the median cosine of rows after each side lost its mean, 0 for different widths."""
    if a.shape[1] != b.shape[1] or not len(a):
        return 0.0
    return float(np.median((_unit(a - a.mean(0)) * _unit(b - b.mean(0))).sum(1)))


def _value_causes(X: np.ndarray, Y: np.ndarray, video: np.ndarray) -> list[str]:
    """Return the causes that remain after shift and order of crops: NaN, norms, then the content."""
    N, M, causes = np.linalg.norm(X, axis=2), np.linalg.norm(Y, axis=2), []
    for place, lost in (("here", (N == 0) & (M > 0)), ("there", (N > 0) & (M == 0))):
        if lost.any():
            causes.append(f"{lost.any(1).sum():,} snippets are NaN or 0 only {place}")
    valid = (N > 0).all(1) & (M > 0).all(1)
    x, y, N, M, video = _unit(X[valid]), _unit(Y[valid]), N[valid], M[valid], video[valid]
    own, other = x.shape[2], y.shape[2]
    cosines = (x * y).sum(2) if own == other else np.zeros(N.shape)
    same = ((cosines >= 1 - ROUNDING) & (abs(M - N) <= NORM_ROUNDING * N)).all(1)
    if same.all():
        return causes
    different, videos = np.unique(video[~same]), len(np.unique(video))
    if len(different) < videos / 2:  # the medians below would hide the cause
        return [*causes, f"{len(different)} of {videos} videos read are different ({shorten(different, 3)})"]
    causes += _norm_causes(N, M)
    cosine = np.median(cosines)
    if causes and cosine > 1 - ROUNDING:
        return causes
    a, b = _unit(x.mean(1)), _unit(y.mean(1))
    if own == other:
        sides = ([side[video == name] for name in np.unique(video)] for side in (a, b))
        if _best_match(*sides) < REORDERED * (1 - (a * b).sum(1).mean()):
            return [*causes, "the snippets are in another order (shuffled or reversed in time)"]
    # the mean of one or two videos is too close to their snippets
    if _centred_cosine(a, b) >= SAME_TOWER or (videos < 3 and cosine > 0.9):
        return [*causes, _frames_cause(a, b, np.flatnonzero(video[1:] == video[:-1]), cosine)]
    cka = _changes_cka(a, b, video)
    cause = "the tower or the videos are different"  # too few snippets to tell which
    if not np.isnan(cka):
        cause = "another tower embedded the same videos" if cka >= SAME_VIDEO else "the content is unrelated"
    return [*causes, f"{cause} (width {own} here, {other} there, CKA {cka:.2f})"]


def _norm_causes(N: np.ndarray, M: np.ndarray) -> list[str]:
    """Return the cause of different norms (rows, C): rows or frames L2-normalised on one side, or a factor."""
    unit = [bool((abs(norms - 1) < NORM_ROUNDING).all()) for norms in (N, M)]
    low, factor, high = np.quantile(M / N, (0.05, 0.5, 0.95))
    if unit[0] != unit[1]:
        return [f"the rows are L2-normalised only {'here' if unit[0] else 'there'}"]
    constant = high < low * (1 + 2 * NORM_ROUNDING) and abs(factor - 1) > NORM_ROUNDING
    if constant:
        return [f"the values there are {factor:.4g} times those here"]
    averaged = [bool(norms.max() < 1 + NORM_ROUNDING and np.median(norms) > 0.8) for norms in (N, M)]
    if averaged[0] != averaged[1]:
        return [f"frames were L2-normalised before their mean only {'here' if averaged[0] else 'there'}"]
    return []


def _frames_cause(a: np.ndarray, b: np.ndarray, after: np.ndarray, cosine: float) -> str:
    """Return whether one side embeds one frame of a snippet and the other the mean of sixteen.

    Such a difference is new in every snippet; one in colour or resize persists. One frame varies more than the mean.
    """
    r = a - b
    persistence = (r[after] * r[after + 1]).sum() / max((r[after] ** 2 + r[after + 1] ** 2).sum() / 2, 1e-30)
    if len(after) and persistence <= OTHER_FRAMES:
        one, other = (np.median(1 - (v[after] * v[after + 1]).sum(1)) for v in (a, b))
        if max(one, other) > ONE_FRAME * min(one, other):
            frame, mean = ("here", "there") if one > other else ("there", "here")
            return f"a snippet is one frame {frame} but the mean of its sixteen frames {mean}"
    return f"a small but systematic difference (cosine {cosine:.3f}), such as colour order, resize or precision"


def _changes_cka(a: np.ndarray, b: np.ndarray, video: np.ndarray) -> float:
    """Return the CKA of changes between snippets, NaN for fewer than eight.

    As embeddings change slowly, their own CKA with other videos is 0.9.
    """
    after = np.flatnonzero(video[1:] == video[:-1])
    after = after[:: len(after) // CHANGES + 1]
    return _cka(a[after + 1] - a[after], b[after + 1] - b[after]) if len(after) > 7 else np.nan


def _cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Return the linear CKA (Kornblith et al. 2019) with the unbiased HSIC, by U-centring (Székely & Rizzo 2014)."""
    n, grams = len(X), (X @ X.T, Y @ Y.T)
    for K in grams:
        np.fill_diagonal(K, 0)
        sums = K.sum(0)
        K += sums.sum() / (n - 1) / (n - 2) - (sums + sums[:, None]) / (n - 2)
        np.fill_diagonal(K, 0)
    K, L = grams
    return float((K * L).sum() / np.sqrt(max((K * K).sum() * (L * L).sum(), 1e-30)))
