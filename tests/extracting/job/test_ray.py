"""Encoders on a Ray cluster: the bytes of a local run, and one sentence for what cannot work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from extracting.config import Config, Job
from extracting.job.cli import extract
from extracting.job.manifest import Manifest
from extracting.job.ray import Cluster, Encoders, environment
from extracting.job.run import ExtractionRun, Summary
from extracting.job.videos import find_videos
from tests.extracting.helpers import BOTH, contents, hidden, write_video
from vad.files import InputError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed (pip install "ray>=2.9")')
CONFIG = Config(crops=(0, 5), event_threshold=3, workers=1)


def wanted(out: Path, checkpoint: str = "untrained") -> dict[str, tuple[Path, dict[str, Any]]]:
    how = {"checkpoint": checkpoint, "tower": "tiny"}
    return {m: (out / m, {**how, "modality": m}) for m in BOTH}


def run_locally(videos: Path, out: Path) -> Summary:
    here = Encoders(wanted(out), CONFIG)
    here.load()
    return ExtractionRun(find_videos(videos), here._outputs, CONFIG).run()


def run_on(cluster: Cluster, videos: Path) -> Summary:
    run = ExtractionRun(find_videos(videos), cluster.outputs, CONFIG)
    return run.run(cluster.run(run.todo))


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    for number in range(12):
        write_video(tmp_path / "videos" / f"c{number % 2}" / f"v{number}.avi", 40 + 16 * number, seed=number)
    return tmp_path / "videos"


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A local cluster of two nodes with two CPUs each, joined by this process."""
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
    """Wait until the actors that a driver has left are gone, and their locks with them."""
    import ray

    until = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, "actors outlive their driver"
        time.sleep(0.1)


class StoppedAt(Exception):
    """The driver's end after some records, as by a kill."""


@needs_ray
def test_a_lost_node_and_a_change_of_engine_keep_the_bytes(
    twelve: Path, tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_locally(twelve, tmp_path / "local")
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

    with Cluster(None, wanted(tmp_path / "ray"), CONFIG, most=12) as cluster:
        assert len(cluster._actors) == 2
        monkeypatch.setattr(Cluster, "run", losing)
        summary = run_on(cluster, twelve)
        assert len(cluster._actors) == 3  # one was lost and replaced
    assert summary.problems == []
    assert contents(tmp_path / "ray") == expected
    # started by Ray, stopped, ended here
    with Cluster(None, wanted(tmp_path / "both"), CONFIG, most=12) as cluster:
        monkeypatch.setattr(Cluster, "run", stopping)
        with pytest.raises(StoppedAt):
            run_on(cluster, twelve)
    wait_until_idle()
    begun = sum(len(Manifest(tmp_path / "both" / m).records) for m in BOTH)
    assert 0 < begun < 24
    ended = run_locally(twelve, tmp_path / "both")
    assert sum(map(len, ended.before.values())) == begun
    assert contents(tmp_path / "both") == expected
    assert hidden(tmp_path / "both") == []


@needs_ray
def test_what_a_cluster_cannot_do_ends_in_a_sentence(
    twelve: Path, tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are missing, an actor whose load kills it, nodes with too few CPUs."""
    with pytest.raises(InputError, match=r"^--clip_ckpt .*none\.pt: no such file$"):
        Cluster(None, wanted(tmp_path / "out", str(tmp_path / "none.pt")), CONFIG, most=12)
    many = Config(workers=9)
    with pytest.raises(InputError, match="no node of the Ray cluster has 10 CPUs for an encoder; give fewer"):
        Cluster(None, wanted(tmp_path / "out"), many, most=12)

    class Dying(Encoders):
        def load(self) -> None:
            import os

            os._exit(7)

    monkeypatch.setattr("extracting.job.ray.Encoders", Dying)
    with pytest.raises(InputError, match="an encoder could not be loaded on the Ray cluster"):
        Cluster(None, wanted(tmp_path / "out"), CONFIG, most=12)

    class Barren(Encoders):
        def run(self, jobs: list[Job]) -> Iterator[object]:
            import os

            os._exit(7)
            yield

    monkeypatch.setattr("extracting.job.ray.Encoders", Barren)
    with (
        Cluster(None, wanted(tmp_path / "out"), CONFIG, most=1) as cluster,
        pytest.raises(InputError, match="2 encoders in a row were lost before they finished a video"),
    ):
        run_on(cluster, twelve)


@needs_ray
def test_the_ray_flag_of_a_command(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "image", "--video_dir", str(videos), "--ray", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["gen.py", *flags, "--save_dir", str(tmp_path / "out"), "--crops", "5"])
    assert extract() == 0
    assert "3 videos written, 0 were finished before" in capsys.readouterr().out
    assert len(contents(tmp_path / "out")) == 3


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'which is not installed: python -m pip install "ray>=2\.9"'):
        Cluster("auto", {}, CONFIG, most=1)
