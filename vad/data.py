"""Data pipeline: lists, embeddings, training windows and batches (Section 4.1, Appendix F)."""

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

from model import MODALITIES
from vad.datasets import AUDIO_FOLDER, IMAGE_FOLDER, Dataset
from vad.files import InputError, read_json, read_text

LISTS_METADATA = "lists.json"  # beside train.csv and test.csv
MAX_CHECKED_BYTES = 4 << 30  # larger sets of embeddings are not read in advance


# lists


@dataclass(frozen=True)
class ListRow:
    """One row of train.csv or test.csv: the image embedding of one crop of a video."""

    path: str  # as written in the list
    label: str  # video-level label
    video: str  # name without folder, crop and suffix
    crop: int


def split_crop(stem: str) -> tuple[str, int | None]:
    """Split a file name without suffix into (video, crop): "a__b__5" → ("a__b", 5), "a" → ("a", None)."""
    match = re.fullmatch(r"(.+)__([0-9]{1,4})", stem)
    return (match[1], int(match[2])) if match else (stem, None)


def read_list(path: Path, dataset: Dataset) -> list[ListRow]:
    """Read a `path,label` list, made here or released by the authors.

    Raises InputError for a missing or empty file, missing columns, a path without crop, an unknown class, or
    a duplicate crop.
    """
    rows: dict[tuple[str, int], ListRow] = {}
    for number, row in list_rows(path, dataset):
        try:
            if isinstance(row, InputError):
                raise row
            dataset.class_names(row.label)
            if rows.setdefault((row.video, row.crop), row) is not row:
                raise InputError(f"crop {row.crop} of {row.video} is already listed above")
        except InputError as error:
            raise InputError(f"{path}, row {number}: {error}") from None
    if not rows:
        raise InputError(f"{path}: the list contains no video. Create it again with list/generate_file.py.")
    return list(rows.values())


def list_rows(path: Path, dataset: Dataset) -> Iterator[tuple[int, ListRow | InputError]]:
    """Yield the number of each row with the row, or with its error. Labels are not checked.

    Raises InputError for a missing file, invalid CSV, and missing columns.
    """
    text = read_text(path, "list (create it with list/generate_file.py)")
    try:
        table = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    header = [name.strip() for name in table[0]] if table else []
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise InputError(f"{path}: the header has no column {' and '.join(missing)}. It must be path,label.")
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
    """Return the metadata in lists.json beside a list (feature_root, …), or an empty dict if there is none."""
    path = csv_path.parent / LISTS_METADATA
    return read_json(path, "metadata of the lists") if path.is_file() else {}


def feature_root_of(csv_path: Path) -> Path | None:
    """Return the folder of rgb/ recorded beside the list, or None for a released list."""
    root = lists_metadata(csv_path).get("feature_root")
    return Path(root) if isinstance(root, str) else None


def resolve_path(path: str, feature_root: Path | None) -> Path:
    """Return the path of the image embedding of a list row.

    A relative path is relative to feature_root. In an absolute path, as in the released lists, feature_root
    replaces everything before the last `rgb`. Without feature_root an absolute path is used unchanged.
    """
    written = PurePosixPath(path)
    if feature_root is None:
        if not written.is_absolute():
            raise InputError(f"{path}: relative to an unknown folder. Set --feature_root to the folder of rgb/.")
        return Path(path)
    if not written.is_absolute():
        return feature_root / path
    return feature_root.joinpath(*written.parts[_image_folder(written.parts, path) :])


def event_path(image_path: Path, event_folders: Sequence[str]) -> Path:
    """Return the event path of an image embedding: the first existing event folder replaces the last `rgb`."""
    root = embedding_root(image_path)
    for folder in event_folders:
        if (root / folder).is_dir():
            return root.joinpath(folder, *image_path.relative_to(root).parts[1:])
    names = " or ".join(event_folders)
    raise InputError(f"{root}: no folder {names} beside {IMAGE_FOLDER}/. Extract the event embeddings first.")


def audio_path(image_path: Path, video: str) -> Path:
    """Return the path of a video's sound embedding, which all crops share: audio/ beside the last `rgb`."""
    root = embedding_root(image_path)
    if not (root / AUDIO_FOLDER).is_dir():
        raise InputError(
            f"{root}: no folder {AUDIO_FOLDER} beside {IMAGE_FOLDER}/. Embed the sound with extracting/gen_audio.py, "
            f"or choose streams without sound with --modality (AVadCLIP: --student)."
        )
    return root.joinpath(AUDIO_FOLDER, *image_path.relative_to(root).parts[1:-1], f"{video}.npy")


def embedding_root(image_path: Path) -> Path:
    """Return the parent of the last folder `rgb` in a path. Raises InputError for a path without `rgb`."""
    return Path(*image_path.parts[: _image_folder(image_path.parts, image_path)])


def _image_folder(parts: Sequence[str], path: Path | str) -> int:
    """Return the index of the last folder `rgb` in the parts of a path."""
    if IMAGE_FOLDER not in parts[:-1]:
        raise InputError(f"{path}: no folder {IMAGE_FOLDER}/ in this path")
    return len(parts) - 2 - parts[-2::-1].index(IMAGE_FOLDER)


# embeddings


@dataclass(frozen=True)
class Video:
    """One crop of a video with its embedding files."""

    name: str
    label: str
    anomalous: bool
    crop: int
    streams: Mapping[str, Path]  # stream → embedding file, in the order of STREAMS
    snippets: int  # S
    dtypes: Mapping[str, np.dtype]  # stream → number type of the file


@dataclass(frozen=True)
class TestVideo:
    """One test video with its crops and its ground truth."""

    name: str
    label: str
    crops: tuple[Video, ...]
    frame_labels: np.ndarray  # (16·S,) uint8

    @property
    def snippets(self) -> int:
        """S, equal for all crops. The ground truth may have one snippet fewer."""
        return self.crops[0].snippets


def find_videos(
    rows: Sequence[ListRow], dataset: Dataset, feature_root: Path | None, modality: str
) -> tuple[list[Video], dict[str, int]]:
    """Return the embedding files of every row, and the width D of each stream. Only file headers are read.

    Raises InputError for a missing or unreadable file, for streams of different S, and for different D of image
    and event, or of two files of a stream.
    """
    videos, widths, sizes = [], {}, {}
    for row in tqdm(rows, desc="checking embeddings", unit="file", leave=False, delay=1):
        paths = {"image": resolve_path(row.path, feature_root)}
        if "event" in MODALITIES[modality]:
            paths["event"] = event_path(paths["image"], dataset.event_folders)
        if "audio" in MODALITIES[modality]:
            paths["audio"] = audio_path(paths["image"], row.video)
        streams = {stream: paths[stream] for stream in MODALITIES[modality]}
        headers = {stream: embedding_header(path) for stream, path in streams.items()}
        first, count = next((path, headers[stream][0][0]) for stream, path in streams.items())
        for stream, (shape, _) in headers.items():
            if shape[0] != count:
                raise InputError(
                    f"{streams[stream]} has {shape[0]} snippets but {first} has {count}. Extract both "
                    f"from the same video with the same tail rule."
                )
        if count == 0:
            raise InputError(f"{first} contains no snippet. Remove {row.video} from the list.")
        for stream, (shape, _) in headers.items():
            # image and event have one width, sound may have another
            width = widths[stream] = sizes.setdefault(stream == "audio", shape[1])
            if shape[1] != width:
                raise InputError(
                    f"{streams[stream]} has width {shape[1]}, but the files before it have {width}. Extract all with "
                    f"the same encoder."
                )
        dtypes = {stream: dtype for stream, (_, dtype) in headers.items()}
        anomalous = dataset.is_anomalous(row.label)
        videos.append(Video(row.video, row.label, anomalous, row.crop, streams, count, dtypes))
    return videos, widths


def group_crops(rows: Sequence[ListRow], crops: Sequence[int]) -> list[ListRow]:
    """Return a row for every video and crop. Unlisted crops get the folder of the first listed crop."""
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
    """Return (S, D) and the number type of an embedding from its file header.

    Raises InputError for a file that is missing, not two-dimensional, or truncated.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            expected = stream.tell() + int(np.prod(shape)) * dtype.itemsize
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: no such embedding. Extract it, or correct --feature_root.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a .npy embedding ({error}). Extract it again.") from None
    if len(shape) != 2 or dtype.hasobject:
        raise InputError(f"{path}: shape {shape} and type {dtype} instead of (S, D) numbers. Extract it again.")
    if size < expected:
        raise InputError(f"{path}: truncated ({size} of {expected} bytes). Extract it again.")
    return shape, dtype


def load_embedding(path: Path, nan: str) -> np.ndarray:
    """Load an embedding (S, D) as float32. NaN raises InputError, or becomes 0 if `nan` is "zero"."""
    try:
        array = np.load(path, allow_pickle=False)
        x = convert(array, np.dtype(np.float32))
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not a readable array of numbers ({error}). Extract it again.") from None
    finite = np.isfinite(x)
    if finite.all():
        return x
    infinite = np.isinf(x).any(1).sum()
    if infinite:
        raise InputError(f"{path} has infinite values in {infinite} of its {len(x)} snippets. Extract it again.")
    if nan == "refuse":
        raise InputError(
            f"{path} has NaN in {(~finite).any(1).sum()} of its {len(x)} snippets. Extract it again, or replace NaN "
            f"by 0, as the released code does, with --nan zero."
        )
    x[~finite] = 0
    return x


def convert(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert x to another number type. For float16 and float32 torch gives numpy's bits five times faster."""
    torch_types = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}
    if x.dtype in torch_types and dtype in torch_types:
        return torch.from_numpy(x).to(torch_types[dtype]).numpy()
    return x.astype(dtype)


def check_values(videos: Sequence[Video], nan: str, widths: Mapping[str, int]) -> None:
    """Read every embedding once, so that a NaN is reported before training. Large sets are skipped."""
    paths = [path for video in videos for path in video.streams.values()]
    if 4 * sum(widths.values()) * sum(video.snippets for video in videos) <= MAX_CHECKED_BYTES:
        for path in tqdm(paths, desc="checking values", unit="file", leave=False, delay=1):
            load_embedding(path, nan)


# windows


def train_window(x: np.ndarray, window: int) -> np.ndarray:
    """Reduce an embedding (S, D) to (min(S, T), D): a long video becomes the means of T equal parts.

    The edges of the parts are linspace(0, S, T + 1), truncated to integers, as in the released code.
    """
    if len(x) <= window:
        return x
    edges = np.linspace(0, len(x), window + 1).astype(int)
    means = np.empty((window, x.shape[1]), x.dtype)
    for row, start, stop in zip(means, edges[:-1], edges[1:], strict=True):
        np.add.reduce(x[start:stop], axis=0, out=row)  # equal to np.mean bit for bit, four times faster
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
        """Return the batch on a device, with windows truncated to `steps` steps."""
        streams = {name: x[:, :steps].to(device, non_blocking=True) for name, x in self.streams.items()}
        lengths, anomalous = (x.to(device, non_blocking=True) for x in (self.lengths, self.anomalous))
        return Batch(streams, lengths, anomalous, self.names)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory. DataLoader calls this method by its name."""
        streams = {name: x.pin_memory() for name, x in self.streams.items()}
        return Batch(streams, self.lengths.pin_memory(), self.anomalous.pin_memory(), self.names)


class Windows(TorchDataset):
    """Data set of one training window per video, with or without a cache on disk. The values are equal."""

    def __init__(
        self, videos: Sequence[Video], window: int, nan: str, widths: Mapping[str, int], cache: Path | None
    ) -> None:
        """widths: stream → D. cache: folder of the window cache, which is built if missing. None disables the cache."""
        self.videos, self.window, self.nan, self.widths = videos, window, nan, widths
        names = videos[0].streams
        half = {name: all(video.dtypes[name] == np.float16 for video in videos) for name in names}
        self.dtypes = {name: np.dtype(np.float16 if half[name] else np.float32) for name in names}
        self.cached: dict[str, np.ndarray] = {}
        try:
            self.cached = {name: cached_windows(self, name, cache) for name in names if cache}
        except OSError as error:
            print(
                f"{cache}: cannot write the window cache ({error.strerror or error}). Every epoch now reads all "
                f"embeddings, which is slower. Set --cache_dir to a writable folder."
            )

    def __len__(self) -> int:
        return len(self.videos)

    def valid_steps(self, index: int, stream: str) -> np.ndarray:
        """Return the valid steps (L, D) of a window. Means are computed in float32 and rounded once to float16."""
        x = load_embedding(self.videos[index].streams[stream], self.nan)
        return convert(train_window(x[: self.videos[index].snippets], self.window), self.dtypes[stream])

    def __getitems__(self, indices: list[int]) -> Batch | InputError:
        """Return a whole batch. An InputError is returned, since DataLoader workers alter the text of a raised one."""
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
        out = np.zeros((len(indices), self.window, self.widths[stream]), self.dtypes[stream])
        for row, index in zip(out, indices, strict=True):
            valid = self.valid_steps(index, stream)
            row[: len(valid)] = valid
        return out


def cached_windows(windows: Windows, stream: str, folder: Path) -> np.ndarray:
    """Return the windows (N, T, D) of one stream, memory-mapped from a cache that is built if needed.

    The file name contains hashes of the sources and options. Raises OSError if the cache cannot be written.
    """
    paths = [video.streams[stream] for video in windows.videos]
    lengths = tuple(min(video.snippets, windows.window) for video in windows.videos)
    names = [os.path.relpath(path, folder.parent) for path in paths]  # relative: the data set may move
    dtype = windows.dtypes[stream]
    zero = ("zero",) if windows.nan == "zero" else ()
    slot = _hash((1, windows.window, windows.widths[stream], dtype.str, names, *zero), 8)
    stats = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (path.stat() for path in paths)]
    path = folder / f"{stream}_{slot}_{_hash((slot, lengths, stats), 16)}.npy"
    shape = (len(paths), windows.window, windows.widths[stream])
    if not _is_complete(path, shape, dtype) or _had_nan(path):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            _write_windows(windows, stream, part, shape)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        for stale in folder.glob(f"{stream}_{slot}_*"):  # includes the index of an earlier version
            if stale != path:
                stale.unlink()
    return np.load(path, mmap_mode="r")


def _write_windows(windows: Windows, stream: str, part: Path, shape: tuple[int, int, int]) -> None:
    # no memory map: a full disk would kill the process. The padding is sparse and takes no disk space
    dtype = windows.dtypes[stream]
    with part.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, row_bytes = file.tell(), shape[1] * shape[2] * dtype.itemsize
        file.truncate(start + shape[0] * row_bytes)
        for row in tqdm(range(shape[0]), desc=f"training windows, {stream}", unit="video", delay=1):
            file.seek(start + row * row_bytes)
            file.write(np.ascontiguousarray(windows.valid_steps(row, stream)))


def _is_complete(path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Return whether a cache file exists and has this shape, type and full length."""
    try:
        array = np.load(path, mmap_mode="r")  # fails for a truncated file
    except (OSError, ValueError, EOFError):  # EOFError: an empty file
        return False
    return array.shape == shape and array.dtype == dtype


def _had_nan(path: Path) -> bool:
    """Return whether an earlier version replaced NaN by 0 in this cache, according to its index file."""
    index = path.with_name(f"{path.name}.index")
    return index.is_file() and bool(np.load(index)["missing"].any())


def _hash(content: object, digits: int) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:digits]


class PairedBatches:
    """Batch sampler of `batch_size` normal and `batch_size` anomalous videos, normal ones first.

    If not paired, a batch has `batch_size` videos of any label. The order depends only on seed and epoch, so a run
    can resume at any step. Process `rank` of `world` gets its share of the normal and of the anomalous videos.
    """

    def __init__(
        self, videos: Sequence[Video], batch_size: int, paired: bool, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        anomalous = np.array([video.anomalous for video in videos])
        if anomalous.all() or not anomalous.any():
            label = "anomalous" if anomalous.any() else "normal"
            raise InputError(f"the training list contains {label} videos only. Training needs both labels.")
        self.groups = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)] if paired else [np.arange(len(videos))]
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.epoch = self.start = 0  # position of the next iteration
        largest = max(min(batch_size, len(group)) for group in self.groups)
        if world > largest:
            raise InputError(
                f"a batch of {largest} cannot be shared by {world} processes. Start at most {largest}, or increase "
                f"--batch_size."
            )

    def __len__(self) -> int:
        """Batches per epoch. A smaller last batch is dropped, unless it is the only one."""
        return max(1, min(len(group) for group in self.groups) // self.batch_size)

    @property
    def videos(self) -> int:
        """Videos per batch, summed over all processes."""
        return sum(min(self.batch_size, len(group)) for group in self.groups)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed % 2**64, self.epoch))  # modulo: seeds may be negative
        groups = [rng.permutation(group) for group in self.groups]
        for k in range(self.start, len(self)):
            batch = [group[k * self.batch_size : (k + 1) * self.batch_size] for group in groups]
            parts = [np.array_split(group, self.world)[self.rank] for group in batch]
            yield np.concatenate(parts).tolist()


def data_fingerprint(videos: Sequence[Video], files: Sequence[Path]) -> str:
    """Return a hash of the data of a run: lists, ground truth, snippet counts, and some embeddings in full."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    digest.update(repr([(video.name, video.crop, video.snippets) for video in videos]).encode())
    for video in videos[:: max(1, len(videos) // 16)]:
        for path in video.streams.values():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
