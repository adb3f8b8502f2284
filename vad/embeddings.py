"""Embedding files (S, D): what their headers say, and their numbers with NaN dealt with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vad.errors import InputError


def embedding_header(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """(S, D) and number type of an embedding, from the header of its file alone.

    Raises InputError for a file that is missing, no array of two dimensions, or shorter than its header says.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            promised = stream.tell() + int(np.prod(shape)) * dtype.itemsize
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: no such embedding; extract it, or give the right --feature_root") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a .npy embedding ({error}); extract it again") from None
    if len(shape) != 2 or dtype.hasobject:
        raise InputError(f"{path}: shape {shape} and type {dtype} instead of (S, D) numbers; extract it again")
    if size < promised:
        raise InputError(f"{path}: cut short ({size} of {promised} bytes); extract it again")
    return shape, dtype


def embedding_shape(path: Path) -> tuple[int, int]:
    """(S, D) of an embedding; InputError as `embedding_header`."""
    return embedding_header(path)[0]


def convert(x: np.ndarray, dtype: type | np.dtype) -> np.ndarray:
    """x in another number type; between float16 and float32 with torch, which gives the same bits five times faster."""
    halves = {np.dtype("<f2"): torch.float16, np.dtype("<f4"): torch.float32}
    if x.dtype in halves and np.dtype(dtype) in halves:
        return torch.from_numpy(x).to(halves[np.dtype(dtype)]).numpy()
    return x.astype(dtype)


def read_embedding(path: Path) -> np.ndarray:
    """(S, D) float32 from a .npy file, NaN as it stands there; InputError for a file that holds no such array."""
    try:
        embedding = np.load(path, allow_pickle=False)
        return convert(embedding, np.float32)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable array of numbers ({error}); extract it again") from None


def load_embedding(path: Path, nan: str) -> np.ndarray:
    """As `read_embedding`; nan "zero" turns NaN into 0, "refuse" raises InputError naming the file."""
    embedding = read_embedding(path)
    replace_nan(embedding, path, nan)
    return embedding


def replace_nan(embedding: np.ndarray, path: Path, nan: str) -> bool:
    """Turn NaN into 0 where it stands, or refuse it, as `load_embedding`; returns whether there was any."""
    missing = np.isnan(embedding)
    if not missing.any():
        return False
    if nan == "refuse":
        steps = int(missing.any(1).sum())
        raise InputError(
            f"{path} has NaN in {steps} of its {len(embedding)} snippets; extract it again, or count NaN as 0, as "
            f"the released code does, with --nan zero"
        )
    embedding[missing] = 0
    return True


class KeptEmbeddings:
    """`load_embedding` for files that are read again and again: keeps what it has read, up to `most_bytes`.

    Training evaluates the test set dozens to hundreds of times, and a GPU is done with it before the files are read.
    """

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        self.left = most_bytes
        self._kept: dict[tuple[Path, str], np.ndarray] = {}

    def __call__(self, path: Path, nan: str) -> np.ndarray:
        """As `load_embedding`; the array is not to be written to."""
        key = (path, nan)
        if key in self._kept:
            return self._kept[key]
        embedding = load_embedding(path, nan)
        embedding.setflags(write=False)
        if embedding.nbytes <= self.left:
            self.left -= embedding.nbytes
            self._kept[key] = embedding
        return embedding
