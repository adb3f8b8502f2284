"""Encoders on a Ray cluster give the bytes of a local run, and failures give a clear error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from extracting.job.cli import extract
from extracting.job.manifest import Manifest
from extracting.job.ray import Cluster, EncoderActor, environment
from extracting.job.run import ExtractionRun, Summary
from extracting.job.videos import find_videos
from extracting.video.config import Config, Job
from tests.extracting.helpers import BOTH, contents, hidden, write_video
from vad.files import InputError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed (pip install "ray>=2.9")')
CONFIG = Config(crops=(0, 5), event_threshold=3, workers=1)


def specs(out: Path, checkpoint: str = "untrained") -> dict[str, tuple[Path, dict[str, Any]]]:
    return {m: (out / m, {"checkpoint": checkpoint, "tower": "tiny", "modality": m}) for m in BOTH}


def run_locally(videos: Path, out: Path) -> Summary:
    actor = EncoderActor(specs(out), CONFIG)
    actor.load()
    return ExtractionRun(find_videos(videos), actor._outputs, CONFIG).run()


def run_on(cluster: Cluster, videos: Path) -> Summary:
    run = ExtractionRun(find_videos(videos), cluster.outputs, CONFIG)
    return run.run(cluster.run(run.todo))


@pytest.fixture
def twelve_videos(tmp_path: Path) -> Path:
    for number in range(12):
        write_video(tmp_path / "videos" / f"c{number % 2}" / f"v{number}.avi", 40 + 16 * number, seed=number)
    return tmp_path / "videos"


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A local cluster of two nodes with two CPUs each, which this process has joined."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    started = Nodes(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        started.second = started.add_node(num_cpus=2)
        ray.init(address=started.address, runtime_env=environment(), log_to_driver=False)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def wait_until_idle() -> None:
    """Wait until the actors of a stopped driver have ended and released their locks."""
    import ray

    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "actors outlive their driver"
        time.sleep(0.1)


class StoppedAt(Exception):
    """Stops the driver after some results, as a kill would."""


@needs_ray
def test_lost_node_or_local_resume_gives_the_same_bytes(
    twelve_videos: Path, tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_locally(twelve_videos, tmp_path / "local")
    expected = contents(tmp_path / "local")
    assert len(expected) == 48
    results = Cluster.run

    def losing(self: Cluster, jobs: list[Job]) -> Iterator[object]:
        for number, result in enumerate(results(self, jobs)):
            if number == 1:
                nodes.remove_node(nodes.second, allow_graceful=False)
            yield result

    def stopping(self: Cluster, jobs: list[Job]) -> Iterator[object]:
        for number, result in enumerate(results(self, jobs)):
            if number == 5:
                raise StoppedAt
            yield result

    with Cluster(None, specs(tmp_path / "ray"), CONFIG, max_actors=12) as cluster:
        assert len(cluster._actors) == 2
        monkeypatch.setattr(Cluster, "run", losing)
        summary = run_on(cluster, twelve_videos)
        assert len(cluster._actors) == 3  # one was lost and replaced
    assert summary.problems == []
    assert contents(tmp_path / "ray") == expected
    # start on the cluster, stop, and resume locally
    with Cluster(None, specs(tmp_path / "both"), CONFIG, max_actors=12) as cluster:
        monkeypatch.setattr(Cluster, "run", stopping)
        with pytest.raises(StoppedAt):
            run_on(cluster, twelve_videos)
    wait_until_idle()
    recorded = sum(len(Manifest(tmp_path / "both" / m).records) for m in BOTH)
    assert 0 < recorded < 24
    resumed = run_locally(twelve_videos, tmp_path / "both")
    assert sum(map(len, resumed.before.values())) == recorded
    assert contents(tmp_path / "both") == expected
    assert hidden(tmp_path / "both") == []


@needs_ray
def test_cluster_failures_give_an_input_error(
    twelve_videos: Path, tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing weights, nodes with too few CPUs, and actors that die while loading or running."""
    with pytest.raises(InputError, match=r"^--clip_ckpt .*none\.pt: the file does not exist$"):
        Cluster(None, specs(tmp_path / "out", str(tmp_path / "none.pt")), CONFIG, max_actors=12)
    many = Config(workers=9)
    with pytest.raises(InputError, match="no node of the Ray cluster has 10 CPUs for an encoder"):
        Cluster(None, specs(tmp_path / "out"), many, max_actors=12)

    class DyingInLoad(EncoderActor):
        def load(self) -> None:
            import os

            os._exit(7)

    monkeypatch.setattr("extracting.job.ray.EncoderActor", DyingInLoad)
    with pytest.raises(InputError, match="an encoder could not be loaded on the Ray cluster"):
        Cluster(None, specs(tmp_path / "out"), CONFIG, max_actors=12)

    class DyingInRun(EncoderActor):
        def run(self, jobs: list[Job]) -> Iterator[object]:
            import os

            os._exit(7)
            yield

    monkeypatch.setattr("extracting.job.ray.EncoderActor", DyingInRun)
    with (
        Cluster(None, specs(tmp_path / "out"), CONFIG, max_actors=1) as cluster,
        pytest.raises(InputError, match="2 encoders in a row were lost before they finished a video"),
    ):
        run_on(cluster, twelve_videos)


@needs_ray
def test_ray_flag_embeds_all_videos(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "image", "--video_dir", str(videos), "--ray", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["gen.py", *flags, "--save_dir", str(tmp_path / "out"), "--crops", "5"])
    assert extract() == 0
    assert "3 videos written, 0 already finished" in capsys.readouterr().out
    assert len(contents(tmp_path / "out")) == 3


def test_missing_ray_gives_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'which is not installed\. Run: python -m pip install "ray>=2\.9"'):
        Cluster("auto", {}, CONFIG, max_actors=1)
