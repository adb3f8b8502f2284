"""What a straightforward script does: one pass over the video for every crop and modality, frame by frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# CLIP's own normalisation, R, G, B
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_PLACES = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))  # of a 340×256 frame


def crop_of(frame: np.ndarray, crop: int) -> np.ndarray:
    """One 224×224 crop of a frame, as numbered in extracting/video/crops.py."""
    top, left = _PLACES[crop % 5]
    part = frame[top : top + 224, left : left + 224]
    return part[:, ::-1] if crop >= 5 else part


def read_crops(video: Path, crop: int) -> list[np.ndarray]:
    """The crop of every frame, RGB uint8."""
    capture, found = cv2.VideoCapture(str(video)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return found
        frame = cv2.cvtColor(cv2.resize(frame, (340, 256)), cv2.COLOR_BGR2RGB)
        found.append(np.ascontiguousarray(crop_of(frame, crop)))


def images(frames: list[np.ndarray]) -> np.ndarray:
    """Encoder input of a snippet's 16 crops (16, 3, 224, 224) float32."""
    mean, std = (np.array(values, np.float32) for values in (CLIP_MEAN, CLIP_STD))
    return np.stack([((frame / np.float32(255) - mean) / std).transpose(2, 0, 1) for frame in frames])


def events(frames: list[np.ndarray]) -> np.ndarray:
    """Encoder input of a snippet's event map (3, 224, 224) float32."""
    red, green, blue = (np.stack([frame[..., c] for frame in frames]).astype(np.float32) for c in range(3))
    grey = red * np.float32(0.2989) + green * np.float32(0.5870) + blue * np.float32(0.1140)
    counts = (np.abs(np.diff(grey, axis=0)) > 10).sum(0)
    return np.repeat((np.minimum(counts, 10) / np.float32(10))[None], 3, 0).astype(np.float32)


def extract(video: Path) -> int:
    """All ten crops, both modalities, without an encoder; returns the number of frames."""
    number = 0
    for make in (images, events):
        for crop in range(10):
            frames = read_crops(video, crop)
            number = len(frames)
            for start in range(0, number - 15, 16):
                make(frames[start : start + 16])
    return number
