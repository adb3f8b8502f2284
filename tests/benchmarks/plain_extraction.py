"""A straightforward extraction for comparison: one pass over the video for every crop and modality."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# CLIP normalisation, R, G, B
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CORNERS = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))  # (top, left) in a 340×256 frame


def crop_of(frame: np.ndarray, crop: int) -> np.ndarray:
    """Return a 224×224 crop of a frame, numbered as in extracting/video/crops.py."""
    top, left = _CORNERS[crop % 5]
    cropped = frame[top : top + 224, left : left + 224]
    return cropped[:, ::-1] if crop >= 5 else cropped


def read_crops(video: Path, crop: int) -> list[np.ndarray]:
    """Return one crop of every frame, RGB uint8."""
    capture, crops = cv2.VideoCapture(str(video)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return crops
        frame = cv2.cvtColor(cv2.resize(frame, (340, 256)), cv2.COLOR_BGR2RGB)
        crops.append(np.ascontiguousarray(crop_of(frame, crop)))


def images(frames: list[np.ndarray]) -> np.ndarray:
    """Return the image encoder's input for a snippet, (16, 3, 224, 224) float32."""
    mean, std = (np.array(values, np.float32) for values in (CLIP_MEAN, CLIP_STD))
    return np.stack([((frame / np.float32(255) - mean) / std).transpose(2, 0, 1) for frame in frames])


def events(frames: list[np.ndarray]) -> np.ndarray:
    """Return the event encoder's input for a snippet, (3, 224, 224) float32."""
    red, green, blue = (np.stack([frame[..., c] for frame in frames]).astype(np.float32) for c in range(3))
    grey = red * np.float32(0.2989) + green * np.float32(0.5870) + blue * np.float32(0.1140)
    counts = (np.abs(np.diff(grey, axis=0)) > 10).sum(0)
    return np.repeat((np.minimum(counts, 10) / np.float32(10))[None], 3, 0).astype(np.float32)


def extract(video: Path) -> int:
    """Compute the encoder inputs of ten crops and both modalities; return the number of frames."""
    number = 0
    for make in (images, events):
        for crop in range(10):
            frames = read_crops(video, crop)
            number = len(frames)
            for start in range(0, number - 15, 16):
                make(frames[start : start + 16])
    return number
