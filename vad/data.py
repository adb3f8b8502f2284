"""Lists → embeddings on disk, checked before long work → windows → batches (Section 4.1, Appendix F)."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from vad.datasets import IMAGE_FOLDER, Dataset
from vad.files import InputError, read_json, read_text

STREAMS = ("image", "event")  # in this order everywhere
LISTS_METADATA = "lists.json"  # beside train.csv and test.csv
CHECKED_BYTES = 4 << 30  # a larger set of embeddings is checked as it is read


# lists


@dataclass(frozen=True)
class ListRow:
    """One row of train.csv or test.csv: the image embedding of one crop of one video."""

    path: str  # as the list has it
    label: str  # of the data set
    video: str  # name without folder, crop and suffix
    crop: int


def split_crop(stem: str) -> tuple[str, int | None]:
    """A file name without suffix as (video, crop): "a__b__5" → ("a__b", 5), "a" → ("a", None)."""
    found = re.fullmatch(r"(.+)__([0-9]{1,4})", stem)
    return (found[1], int(found[2])) if found else (stem, None)


def read_list(path: Path, dataset: Dataset) -> list[ListRow]:
    """Rows of a `path,label` list, ours or the release's, in its order.

    Raises InputError for a missing or empty file, missing columns, a path without crop, an unknown class, or
    a crop that is listed twice.
    """
    rows: dict[tuple[str, int], ListRow] = {}
    for number, row in list_rows(path, dataset):
        try:
            if isinstance(row, InputError):
                raise row
            dataset.class_names(row.label)
            if rows.setdefault((row.video, row.crop), row) is not row:
                raise InputError(f"crop {row.crop} of {row.video} is listed above already")
        except InputError as error:
            raise InputError(f"{path}, row {number}: {error}") from None
    if not rows:
        raise InputError(f"{path}: the list holds no video; make it again with list/generate_file.py")
    return list(rows.values())


def list_rows(path: Path, dataset: Dataset) -> Iterator[tuple[int, ListRow | InputError]]:
    """Row numbers with their rows, or with what is wrong; labels are not checked.

    Raises InputError for a missing file, one that is no CSV, and missing columns.
    """
    text = read_text(path, "list (make it with list/generate_file.py)")
    try:
        table = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    header = [name.strip() for name in table[0]] if table else []
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise InputError(f"{path}: no column {' and '.join(missing)} in its first line; expected path,label")
    for number, cells in enumerate(table[1:], 2):
        if not cells:
            continue
        if len(cells) != len(header):
            yield number, InputError(f"{len(cells)} columns instead of {len(header)}")
            continue
        row = dict(zip(header, cells, strict=True))
        file, label = row["path"].strip(), unicodedata.normalize("NFC", row["label"].strip())
        video, crop = split_crop(PurePosixPath(file).stem)
        if PurePosixPath(file).suffix != ".npy" or crop is None:
            yield number, InputError(f"{file!r} is not <video>__<crop>.npy")
        else:
            yield number, ListRow(file, dataset.folder_labels.get(label, label), video, crop)


def lists_metadata(csv_path: Path) -> dict[str, object]:
    """What was recorded beside a list when it was made (feature_root, …); empty where nothing was."""
    path = csv_path.parent / LISTS_METADATA
    return read_json(path, "metadata of the lists") if path.is_file() else {}


def feature_root_of(csv_path: Path) -> Path | None:
    """The folder that holds rgb/, as recorded with the list; None for a list that was not made here."""
    root = lists_metadata(csv_path).get("feature_root")
    return Path(root) if isinstance(root, str) else None


def resolve_path(path: str, feature_root: Path | None) -> Path:
    """Where the embedding of a list's row is.

    A relative path is below feature_root. Of an absolute one (the release's lists hold their author's)
    everything from the last `rgb` on is below feature_root; without feature_root it is taken as it is.
    """
    written = PurePosixPath(path)
    if feature_root is None:
        if not written.is_absolute():
            raise InputError(f"{path}: relative to an unknown folder; give --feature_root, the folder of rgb/")
        return Path(path)
    if not written.is_absolute():
        return feature_root / path
    return feature_root.joinpath(*written.parts[_image_folder(written.parts, path) :])


def event_path(image_path: Path, event_folders: Sequence[str]) -> Path:
    """The event embedding of an image embedding: the last `rgb` becomes the first event folder that exists."""
    root = embedding_root(image_path)
    for folder in event_folders:
        if (root / folder).is_dir():
            return root.joinpath(folder, *image_path.relative_to(root).parts[1:])
    names = " or ".join(event_folders)
    raise InputError(f"{root}: no folder {names} beside {IMAGE_FOLDER}/; extract the events first")


def embedding_root(image_path: Path) -> Path:
    """The folder that holds `rgb`, of an image embedding in it; InputError where the path has no `rgb`."""
    return Path(*image_path.parts[: _image_folder(image_path.parts, image_path)])


def _image_folder(parts: Sequence[str], path: Path | str) -> int:
    """Position of the last `rgb` in a path's parts, its file name aside."""
    if IMAGE_FOLDER not in parts[:-1]:
        raise InputError(f"{path}: no folder {IMAGE_FOLDER}/ in this path")
    return len(parts) - 2 - parts[-2::-1].index(IMAGE_FOLDER)


# embeddings


@dataclass(frozen=True)
class Video:
    """One row of a list with its embeddings found: a video seen through one crop."""

    name: str
    label: str
    anomalous: bool
    crop: int
    streams: Mapping[str, Path]  # of the streams that are used, image before event
    snippets: int  # S
    dtypes: Mapping[str, np.dtype]  # of each stream


@dataclass(frozen=True)
class TestVideo:
    """One test video: its crops and its ground truth."""

    name: str
    label: str
    crops: tuple[Video, ...]
    frame_labels: np.ndarray  # (16·S,) uint8

    @property
    def snippets(self) -> int:
        """S, the same for every crop; the ground truth may hold one fewer."""
        return self.crops[0].snippets


def find_videos(
    rows: Sequence[ListRow], dataset: Dataset, feature_root: Path | None, modality: str
) -> tuple[list[Video], int]:
    """The embeddings of every row, and their width D; only headers are read.

    Raises InputError: a file is missing or unreadable, image and event differ in S, or widths differ.
    """
    videos, width = [], 0
    for row in tqdm(rows, desc="checking embeddings", unit="file", leave=False, delay=1):
        paths = {"image": resolve_path(row.path, feature_root)}
        paths["event"] = event_path(paths["image"], dataset.event_folders) if modality != "image" else Path()
        streams = {stream: paths[stream] for stream in STREAMS if modality in (stream, "fusion")}
        headers = {stream: embedding_header(path) for stream, path in streams.items()}
        counts = [shape[0] for shape, _ in headers.values()]
        if len(set(counts)) > 1:
            raise InputError(
                f"{streams['event']} has {counts[1]} snippets but {streams['image']} has {counts[0]}; extract both "
                f"from the same video with the same tail rule"
            )
        if counts[0] == 0:
            raise InputError(f"{next(iter(streams.values()))} holds no snippet; take {row.video} out of the list")
        for stream, (shape, _) in headers.items():
            width = width or shape[1]
            if shape[1] != width:
                raise InputError(
                    f"{streams[stream]} is {shape[1]} wide, the embeddings before it {width}; extract all with one "
                    f"encoder"
                )
        dtypes = {stream: dtype for stream, (_, dtype) in headers.items()}
        anomalous = dataset.is_anomalous(row.label)
        videos.append(Video(row.video, row.label, anomalous, row.crop, streams, counts[0], dtypes))
    return videos, width


def group_crops(rows: Sequence[ListRow], crops: Sequence[int]) -> list[ListRow]:
    """A row for every video and crop, videos in the list's order; unlisted crops lie beside the listed one."""
    listed = {(row.video, row.crop): row for row in rows}
    first = {row.video: row for row in reversed(rows)}
    order = dict.fromkeys(row.video for row in rows)
    return [
        listed.get((video, crop))
        or replace(first[video], crop=crop, path=f"{first[video].path.rpartition('__')[0]}__{crop}.npy")
        for video in order
        for crop in crops
    ]


def embedding_header(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """(S, D) and number type of an embedding, from the header of its file.

    Raises InputError for a file that is missing, no array of two dimensions, or cut short.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            needed = stream.tell() + int(np.prod(shape)) * dtype.itemsize
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: no such embedding; extract it, or give the right --feature_root") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a .npy embedding ({error}); extract it again") from None
    if len(shape) != 2 or dtype.hasobject:
        raise InputError(f"{path}: shape {shape} and type {dtype} instead of (S, D) numbers; extract it again")
    if size < needed:
        raise InputError(f"{path}: cut short ({size} of {needed} bytes); extract it again")
    return shape, dtype


def load_embedding(path: Path, nan: str) -> np.ndarray:
    """(S, D) float32 from a .npy file; NaN refused, or turned into 0 where `nan` is "zero"."""
    try:
        array = np.load(path, allow_pickle=False)
        x = convert(array, np.dtype(np.float32))
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not a readable array of numbers ({error}); extract it again") from None
    finite = np.isfinite(x)
    if finite.all():
        return x
    infinite = np.isinf(x).any(1).sum()
    if infinite:
        raise InputError(f"{path} has infinite values in {infinite} of its {len(x)} snippets; extract it again")
    if nan == "refuse":
        raise InputError(
            f"{path} has NaN in {(~finite).any(1).sum()} of its {len(x)} snippets; extract it again, or count NaN as "
            f"0, as the released code does, with --nan zero"
        )
    x[~finite] = 0
    return x


def convert(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x in another number type; torch gives numpy's bits for float16 and float32, five times faster."""
    torch_types = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}
    if x.dtype in torch_types and dtype in torch_types:
        return torch.from_numpy(x).to(torch_types[dtype]).numpy()
    return x.astype(dtype)


def check_values(videos: Sequence[Video], nan: str, width: int) -> None:
    """Read every embedding once before long work, so that a NaN is found now; large sets are skipped."""
    paths = [path for video in videos for path in video.streams.values()]
    if 4 * width * sum(video.snippets * len(video.streams) for video in videos) <= CHECKED_BYTES:
        for path in tqdm(paths, desc="checking values", unit="file", leave=False, delay=1):
            load_embedding(path, nan)


# windows


def train_window(x: np.ndarray, window: int) -> np.ndarray:
    """(S, D) → (min(S, T), D): as it is, or T means over equal parts of the video.

    The parts begin at linspace(0, S, T + 1) cut to integers, as in the released code.
    """
    if len(x) <= window:
        return x
    edges = np.linspace(0, len(x), window + 1).astype(int)
    means = np.empty((window, x.shape[1]), x.dtype)
    for row, start, stop in zip(means, edges[:-1], edges[1:], strict=True):
        np.add.reduce(x[start:stop], axis=0, out=row)  # np.mean's bits in a quarter of its time
    means /= np.diff(edges)[:, None].astype(x.dtype)
    return means


@dataclass(frozen=True)
class Batch:
    """Windows of B videos."""

    streams: Mapping[str, Tensor]  # stream → (B, T, D) float32 or float16
    lengths: Tensor  # (B,) int64, valid steps
    anomalous: Tensor  # (B,) float32, 0 or 1
    names: tuple[str, ...]

    def to(self, device: torch.device, steps: int | None = None) -> Batch:
        """The same on a device, windows cut to their first `steps` steps."""
        streams = {name: x[:, :steps].to(device, non_blocking=True) for name, x in self.streams.items()}
        lengths, anomalous = (x.to(device, non_blocking=True) for x in (self.lengths, self.anomalous))
        return Batch(streams, lengths, anomalous, self.names)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; a DataLoader calls this by name."""
        streams = {name: x.pin_memory() for name, x in self.streams.items()}
        return Batch(streams, self.lengths.pin_memory(), self.anomalous.pin_memory(), self.names)


class Windows(TorchDataset):
    """One training window per video, reduced anew or read from a cache on disk; the numbers are the same."""

    def __init__(self, videos: Sequence[Video], window: int, nan: str, width: int, cache: Path | None) -> None:
        """cache: folder of the cache, which is made here if it is not there; None for none."""
        self.videos, self.window, self.nan, self.width = videos, window, nan, width
        names = videos[0].streams
        half = {name: all(video.dtypes[name] == np.float16 for video in videos) for name in names}
        self.dtypes = {name: np.dtype(np.float16 if half[name] else np.float32) for name in names}
        self.cached: dict[str, np.ndarray] = {}
        try:
            self.cached = {name: cached_windows(self, name, cache) for name in names if cache}
        except OSError as error:
            print(
                f"{cache}: the training windows cannot be kept here ({error.strerror or error}); every epoch reads "
                f"the embeddings anew, which is slower; --cache_dir names another folder"
            )

    def __len__(self) -> int:
        return len(self.videos)

    def valid_steps(self, index: int, stream: str) -> np.ndarray:
        """The valid steps (L, D) of one window; means are taken in float32 and rounded once to float16."""
        x = load_embedding(self.videos[index].streams[stream], self.nan)
        return convert(train_window(x[: self.videos[index].snippets], self.window), self.dtypes[stream])

    def __getitems__(self, indices: list[int]) -> Batch | InputError:
        """A whole batch, as a DataLoader asks for it; an InputError is returned, since workers garble errors."""
        try:
            streams = {name: torch.from_numpy(self._stack(indices, name)) for name in self.dtypes}
        except InputError as error:
            return error
        videos = [self.videos[index] for index in indices]
        lengths = torch.tensor([min(video.snippets, self.window) for video in videos])
        anomalous = torch.tensor([float(video.anomalous) for video in videos])
        return Batch(streams, lengths, anomalous, tuple(video.name for video in videos))

    def _stack(self, indices: list[int], stream: str) -> np.ndarray:
        if stream in self.cached:
            return self.cached[stream][indices]
        out = np.zeros((len(indices), self.window, self.width), self.dtypes[stream])
        for row, index in zip(out, indices, strict=True):
            valid = self.valid_steps(index, stream)
            row[: len(valid)] = valid
        return out


def cached_windows(windows: Windows, stream: str, folder: Path) -> np.ndarray:
    """(N, T, D) of one stream, mapped from disk; made once, under a name that says what it was made from.

    Raises OSError where the folder cannot be written to or is full.
    """
    paths = [video.streams[stream] for video in windows.videos]
    lengths = tuple(min(video.snippets, windows.window) for video in windows.videos)
    names = [os.path.relpath(path, folder.parent) for path in paths]  # a data set may move as a whole
    dtype = windows.dtypes[stream]
    zero = ("zero",) if windows.nan == "zero" else ()
    slot = _hash((1, windows.window, windows.width, dtype.str, names, *zero), 8)
    stats = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (path.stat() for path in paths)]
    path = folder / f"{stream}_{slot}_{_hash((slot, lengths, stats), 16)}.npy"
    shape = (len(paths), windows.window, windows.width)
    if not _is_whole(path, shape, dtype) or _had_nan(path):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            _write_windows(windows, stream, part, shape)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        for old in folder.glob(f"{stream}_{slot}_*"):  # an earlier version's index among them
            if old != path:
                old.unlink()
    return np.load(path, mmap_mode="r")


def _write_windows(windows: Windows, stream: str, part: Path, shape: tuple[int, int, int]) -> None:
    # not through a memory map, where a full disk ends the process; the zeros between windows take no room
    dtype = windows.dtypes[stream]
    with part.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, row_bytes = file.tell(), shape[1] * shape[2] * dtype.itemsize
        file.truncate(start + shape[0] * row_bytes)
        for row in tqdm(range(shape[0]), desc=f"training windows, {stream}", unit="video", delay=1):
            file.seek(start + row * row_bytes)
            file.write(np.ascontiguousarray(windows.valid_steps(row, stream)))


def _is_whole(path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Whether a cache is there, of this shape, and as long as it should be."""
    try:
        array = np.load(path, mmap_mode="r")  # refuses a file that is cut short
    except (OSError, ValueError, EOFError):  # the last for an empty file
        return False
    return array.shape == shape and array.dtype == dtype


def _had_nan(path: Path) -> bool:
    """Whether an earlier version counted NaN as 0 in this cache, under the same name; its index says so."""
    index = path.with_name(f"{path.name}.index")
    return index.is_file() and bool(np.load(index)["missing"].any())


def _hash(content: object, digits: int) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:digits]


class PairedBatches:
    """Batch sampler: `batch_size` normal and as many anomalous videos, normal ones first.

    Not paired: `batch_size` videos as they come. The order depends on seed and epoch alone, so any step can be
    entered again. Of `world` processes that share every batch, number `rank` gets its part of each side.
    """

    def __init__(
        self, videos: Sequence[Video], batch_size: int, paired: bool, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        anomalous = np.array([video.anomalous for video in videos])
        if anomalous.all() or not anomalous.any():
            only = "anomalous" if anomalous.any() else "normal"
            raise InputError(f"the training list holds {only} videos only; learning needs normal and anomalous ones")
        self.sides = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)] if paired else [np.arange(len(videos))]
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.epoch = self.start = 0  # where the next iteration begins
        largest = max(min(batch_size, len(side)) for side in self.sides)
        if world > largest:
            raise InputError(
                f"a batch of {largest} cannot be shared by {world} processes; start at most {largest}, or give a "
                f"larger --batch_size"
            )

    def __len__(self) -> int:
        """Batches an epoch; a last, smaller batch is left out, unless it is the only one."""
        return max(1, min(len(side) for side in self.sides) // self.batch_size)

    @property
    def videos(self) -> int:
        """Videos of one batch, of all processes together."""
        return sum(min(self.batch_size, len(side)) for side in self.sides)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed % 2**64, self.epoch))  # a negative seed counts too
        sides = [rng.permutation(side) for side in self.sides]
        for k in range(self.start, len(self)):
            chosen = [side[k * self.batch_size : (k + 1) * self.batch_size] for side in sides]
            parts = [np.array_split(side, self.world)[self.rank] for side in chosen]
            yield np.concatenate(parts).tolist()


def data_fingerprint(videos: Sequence[Video], files: Sequence[Path]) -> str:
    """Hash that tells whether two runs saw the same data: lists, ground truth, sizes, and 16 embeddings whole."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    digest.update(repr([(video.name, video.crop, video.snippets) for video in videos]).encode())
    for video in videos[:: max(1, len(videos) // 16)]:
        for path in video.streams.values():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
