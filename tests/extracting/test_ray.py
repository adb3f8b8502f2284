"""The Ray engine on a real cluster of two nodes, one of them lost in the middle: the bytes of a local run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from extracting import ray_engine
from extracting.manifest import Manifest, Record
from extracting.ray_engine import RayEngine
from extracting.share import Order
from extracting.stream import Ended, Job
from tests.extracting.test_crew import contents, make_videos, run
from vad.errors import InputError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed (pip install "ray>=2.9")')


class StoppedAt(Exception):
    """The driver's end after some records, as by a kill."""


class Losing(RayEngine):
    """An engine that loses a node at the run's first record, or is stopped itself some records later."""

    def __init__(self, cluster: Any, node: Any = None) -> None:
        super().__init__()
        self._cluster, self._node = cluster, node

    def __call__(self, jobs: Sequence[Job], order: Order) -> Iterator[tuple[Job, str, Record | Ended]]:
        for number, result in enumerate(super().__call__(jobs, order)):
            if number == 3 and self._node is None:
                raise StoppedAt
            if number == 0 and self._node is not None:
                self._cluster.remove_node(self._node, allow_graceful=False)
            yield result


@needs_ray
def test_a_lost_node_and_a_change_of_engine_leave_the_bytes_of_a_local_run(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    videos = make_videos(tmp_path / "videos", 12)
    run(videos, tmp_path / "local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        node = cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, runtime_env=ray_engine.environment(), log_to_driver=False)
        engine = Losing(cluster, node)
        lost = run(videos, tmp_path / "ray", engine, batch_size=16)
        assert engine.lost == 1  # an encoder was on that node, and at work or about to be
        assert lost.summary.odd == []
        assert contents(tmp_path / "ray") == contents(tmp_path / "local")
        # started by Ray, stopped, ended here
        with pytest.raises(StoppedAt):
            run(videos, tmp_path / "both", Losing(cluster), batch_size=16)
        begun = len(Manifest(tmp_path / "both" / "image").records)
        assert 0 < begun < 12
        ended = run(videos, tmp_path / "both")
        assert len(ended.summary.before["image"]) == begun
        assert contents(tmp_path / "both") == contents(tmp_path / "local")
        # started here, ended by Ray
        first = [path for path in videos.rglob("*.avi") if path.stem in ("v0", "v1", "v2")]
        half = tmp_path / "half"
        for path in first:
            (half / path.parent.name).mkdir(parents=True, exist_ok=True)
            (half / path.parent.name / path.name).write_bytes(path.read_bytes())
        run(half, tmp_path / "back")
        ended = run(videos, tmp_path / "back", RayEngine())
        assert len(ended.summary.before["image"]) == 3
        assert contents(tmp_path / "back") == contents(tmp_path / "local")
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'which is not installed: python -m pip install "ray>=2\.9"'):
        RayEngine("auto")
