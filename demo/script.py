"""Scene scripts: the random content of each synthetic video, and its rendering to frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from demo.actors import COATS, Pedestrian, Visit, animal, car, fire, person, random_appearance
from demo.scene import HEDGE, HEIGHT, KERB, LANES, SIGN, WIDTH, Point, distractor, hedge, street
from vad.datasets import load_dataset

FPS = load_dataset("demo").fps
SECONDS = (7, 8.5, 18)  # shortest, mean and longest video
SHORTEST = 36  # minimum length of an anomaly, frames


@dataclass
class SceneScript:
    """The content of one video; `intervals` are the exact anomalous frames, half-open."""

    seed: tuple[int, int]
    label: str
    frames: int
    intervals: list[tuple[int, int]]
    pedestrians: list[Pedestrian] = field(default_factory=list)
    traffic: list[Visit] = field(default_factory=list)
    anomalies: list[Visit] = field(default_factory=list)
    objects: list[tuple[str, Point, float]] = field(default_factory=list)  # shape, foot, size
    light: np.ndarray = field(init=False)  # (frames, 3) gain of B, G, R
    sign: np.ndarray = field(init=False)  # (frames,) gain of the neon sign
    noise: np.ndarray = field(init=False)  # (frames,) sensor noise, grey levels
    disturbed: np.ndarray = field(init=False)  # (frames,) bool: noise or flicker, which affect only the events


def write_script(seed: int, index: int, label: str) -> SceneScript:
    """Return the script of video `index`, which depends only on `seed`, `index` and `label`."""
    rng = np.random.default_rng([seed, index])
    shortest, mean, longest = SECONDS
    frames = round(FPS * min(longest, shortest + rng.exponential(mean - shortest)))
    intervals = [] if label == "Normal" else _intervals(rng, frames)
    script = SceneScript((seed, index), label, frames, intervals)
    _add_people(rng, script)
    _add_traffic(rng, script)
    _add_ponies(rng, script)
    for s, e in intervals:
        if label == "Intruder":
            script.anomalies.append(_crossing(rng, "tiger", s, e))
        elif label == "Crash":
            script.anomalies.append(_crash(rng, s, e))
    for _ in range(int(rng.choice(3, p=(0.35, 0.40, 0.25)))):
        shape = ("tent", "container", "balloon")[int(rng.integers(3))]
        foot = (float(rng.uniform(70, 250)), float(rng.uniform(KERB + 8, HEDGE - 14)))
        script.objects.append((shape, foot, float(rng.uniform(26, 38))))
    _add_light_changes(rng, script)
    _add_event_noise(rng, script)
    return script


def _intervals(rng: np.random.Generator, frames: int) -> list[tuple[int, int]]:
    """Return one or two anomalous intervals that cover 20–40 % of a video."""
    total = int(frames * rng.uniform(0.2, 0.4))
    number = 2 if total >= 2 * SHORTEST and rng.random() < 0.8 else 1
    length = max(SHORTEST, total // number)
    free = frames - number * length
    gaps = np.sort(rng.integers(0, free + 1, number))
    starts = [int(gap) + i * length for i, gap in enumerate(gaps)]
    if number == 2 and starts[1] - starts[0] < length + 16:  # less than a snippet apart: merge
        start = min(starts[0], frames - 2 * length)
        return [(start, start + 2 * length)]
    return [(s, s + length) for s in starts]


def _add_people(rng: np.random.Generator, script: SceneScript) -> None:
    number = int(rng.integers(3, 6))
    runners = int(rng.integers(3, 6)) if script.label == "Running" else 0
    for i in range(number):
        left = float(rng.uniform(75, 150))
        right = left + float(rng.uniform(50, 90))
        runs = []
        for s, e in script.intervals if i < runners else ():
            width = float(rng.uniform(45, 70) * rng.choice((-1, 1)))
            turns = max(1, round(rng.uniform(8, 11) * (e - s) / (4 * abs(width))))
            runs.append((s, e, turns, width, float(rng.uniform(-8, 8))))
        script.pedestrians.append(
            Pedestrian(
                random_appearance(rng, "person"),
                (left, right),
                float(rng.uniform(KERB + 16, HEDGE - 10)),
                float(rng.uniform(0.9, 1.6)),
                float(rng.uniform(0, 200)),
                tuple(runs),
            )
        )


def _add_traffic(rng: np.random.Generator, script: SceneScript) -> None:
    """Add cars to both lanes."""
    for lane, heading in ((LANES[0], -1), (LANES[1], 1)):
        t = -int(rng.integers(0, 160))
        while t < script.frames:
            end = t + round((WIDTH + 120) / rng.uniform(2.4, 3.6))
            start, stop = (-60, WIDTH + 60) if heading > 0 else (WIDTH + 60, -60)
            waypoints = (t, start, lane), (end, stop, lane)
            script.traffic.append(Visit("car", random_appearance(rng, "car"), waypoints))
            t += int(rng.integers(90, 260))


def _add_ponies(rng: np.random.Generator, script: SceneScript) -> None:
    """Let ponies cross the plaza equally often in every class, so they give no cue to the class."""
    edges = [edge for interval in script.intervals for edge in interval]
    for _ in range(int(rng.choice(3, p=(0.3, 0.4, 0.3)))):
        for _ in range(50):
            length = int(rng.integers(SHORTEST, min(100, script.frames)))
            s = int(rng.integers(0, script.frames - length))
            # a pony at the hedge must not hide the first or last frame of an anomaly
            if all(abs(edge - end) > 12 for edge in edges for end in (s, s + length)):
                script.traffic.append(_crossing(rng, "pony", s, s + length))
                break


def _crossing(rng: np.random.Generator, category: str, s: int, e: int) -> Visit:
    """Return a walk along the plaza that enters and leaves behind the hedge."""
    row, steps = float(rng.uniform(198, 222)), e - s
    rise = max(12, min(24, steps // 4))
    length = min(150.0, 1.4 * steps)
    first = float(rng.uniform(75, 245 - length))
    columns = np.array([first, first + 0.15 * length, first + 0.85 * length, first + length])
    if rng.random() < 0.5:
        columns = WIDTH - columns
    hidden = HEDGE + 56.0
    frames = (s, s + rise, e - rise, e)
    look = random_appearance(rng, "car")
    rows = (hidden, row, row, hidden)
    return Visit(category, look, tuple(zip(frames, columns.tolist(), rows, strict=True)))


def _crash(rng: np.random.Generator, s: int, e: int) -> Visit:
    """Return a car that races, swerves onto the plaza, burns and rolls away behind the hedge."""
    column, row = float(rng.uniform(110, 200)), float(rng.uniform(188, 212))
    turn = s + round((column - 40 + 24) / 10)
    halt = turn + 8
    lane = LANES[1] + 5.0  # nearer to the kerb than the cars it overtakes
    waypoints = (
        (s, -24.0, lane),
        (turn, column - 40, lane),
        (halt, column, row),
        (max(halt + 4, e - 18), column + 4, row),
        (e, column + 60, HEDGE + 30.0),
    )
    return Visit("wreck", random_appearance(rng, "car"), waypoints)


def _add_light_changes(rng: np.random.Generator, script: SceneScript) -> None:
    """Add slow changes of brightness and colour, which affect the image but not the events."""
    t = np.arange(script.frames)
    cloud = rng.uniform(0.03, 0.12) * np.sin(2 * np.pi * (t / rng.uniform(180, 420) + rng.random()))
    warmth = rng.uniform(-0.04, 0.04)
    warmth = warmth + 0.03 * np.sin(2 * np.pi * (t / rng.uniform(200, 500) + rng.random()))
    script.light = (0.92 + cloud)[:, None] * (1 + warmth[:, None] * np.array([-1.0, 0.0, 1.0]))


def _add_event_noise(rng: np.random.Generator, script: SceneScript) -> None:
    """Add sensor noise, mains flicker or a flickering sign, which affect the events but not the image."""
    script.noise, script.sign = np.full(script.frames, 1.5), np.ones(script.frames)
    script.disturbed = np.zeros(script.frames, bool)
    for _ in range(int(rng.choice(3, p=(0.45, 0.35, 0.20)))):
        source = ("noise", "mains", "sign")[int(rng.integers(3))]
        length = int(rng.integers(24, 80))
        s = int(rng.integers(0, script.frames - length))
        span = slice(s, s + length)
        script.disturbed[span] = True
        if source == "noise":
            script.noise[span] = rng.uniform(4, 6.5)
        elif source == "mains":
            script.light[span] *= 1 + 0.05 * rng.choice((-1, 1), length)[:, None]
        else:
            script.sign[span] = rng.uniform(0.6, 1.7, length)


def render(script: SceneScript, *, anomaly: bool = True) -> Iterator[np.ndarray]:
    """Yield BGR frames (240, 320, 3); without `anomaly`, frames outside the intervals do not change."""
    scene_rng = np.random.default_rng(script.seed[0])  # all videos of a data set show the same street
    background, foreground = street(scene_rng), hedge(scene_rng)
    grain = np.clip(scene_rng.normal(128, 16, (HEIGHT + 64, WIDTH + 64)), 0, 255).astype(np.uint8)
    grain = cv2.merge([grain] * 3)  # noise in brightness only
    offsets = np.random.default_rng([*script.seed, 2]).integers(0, 64, (script.frames, 2))
    for t, (row, column) in enumerate(offsets.tolist()):
        frame = background.copy()
        if script.sign[t] != 1:
            frame[SIGN] = cv2.convertScaleAbs(frame[SIGN], alpha=script.sign[t])
        _draw_actors(frame, script, t, anomaly)
        frame[HEDGE:] = foreground
        lit = cv2.transform(frame, np.diag(script.light[t]))
        noise = script.noise[t] / 16
        yield cv2.addWeighted(lit, 1, grain[row : row + HEIGHT, column : column + WIDTH], noise, -128 * noise)


def _draw_actors(frame: np.ndarray, script: SceneScript, t: int, anomaly: bool) -> None:
    """Draw objects and actors from back to front."""
    layers = [(obj[1][1], lambda o=obj: distractor(frame, *o)) for obj in script.objects]
    for pedestrian in script.pedestrians:
        pose = pedestrian.pose(t, anomaly)
        layers.append((pose[0][1], lambda p=pedestrian, a=pose: person(frame, p.look, *a)))
    for visit in [*script.traffic, *(script.anomalies if anomaly else ())]:
        pose = visit.pose(t)
        if pose is not None:
            layers.append((pose[0][1], lambda v=visit, a=pose: _draw_visit(frame, script, v, a, t)))
    for _, draw in sorted(layers, key=lambda layer: layer[0]):
        draw()


def _draw_visit(
    frame: np.ndarray, script: SceneScript, visit: Visit, pose: tuple[Point, float, int], t: int
) -> None:
    foot, travelled, heading = pose
    if visit.category in COATS:
        animal(frame, visit.category, foot, travelled / 5.5, heading)
        return
    car(frame, visit.look, foot, travelled / 9, heading)
    if visit.category == "wreck" and t >= visit.waypoints[2][0]:
        halt, leave, end = (waypoint[0] for waypoint in visit.waypoints[2:])
        heat = min(1.0, (t - halt + 1) / 8, (end - t) / (end - leave))
        fire(frame, (foot[0], foot[1] - 22), 16 + 60 * heat, np.random.default_rng([*script.seed, 3, t]))
