"""Several machines: encoders as Ray actors, all drawing from one queue of videos. Ray is imported when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from extracting.manifest import Record
from extracting.share import ATTEMPTS, Feed, Order, embed
from extracting.stream import Ended, Job
from vad.device import pick_device
from vad.errors import InputError

_ROOT = Path(__file__).resolve().parent.parent


def import_ray() -> ModuleType:
    """Ray, or InputError with the command that installs it."""
    try:
        import ray
    except ImportError:
        raise InputError('--engine ray needs Ray, which is not installed: python -m pip install "ray>=2.9"') from None
    return ray


def environment() -> dict[str, Any]:
    """Ray's runtime environment for our actors: this checkout, under the same path on every node."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    passed = {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in os.environ else {}
    return {"env_vars": {"PYTHONPATH": path, **passed}}


class _Encoders:
    """Body of an actor: encoders on one GPU or some cores of one node, and their own decoder processes.

    Frames go from decoder to encoder through memory that both share, on the node where the encoder is.
    """

    def __init__(self, order: Order, parts: Sequence[dict[str, Any]]) -> None:
        """parts: of each target's encoder, in the order of the targets."""
        whole = [(m, folder, p, maps) for (m, folder, _, maps), p in zip(order.targets, parts, strict=True)]
        self._order = Order(whole, order.settings, order.crops, order.batch_size, order.workers, order.time_limit)
        self._targets = self._order.open(str(pick_device("auto")))

    def run(self, number: int, feed: Any) -> Iterator[tuple[str, Any]]:
        """Draw videos until there are none: ("record", (modality, record)) each, ("wrong", sentence) for bad input."""
        import ray

        def draw() -> Job | None:
            return ray.get(feed.take.remote(number))

        try:
            for pair in embed(iter(draw, None), self._order, self._targets):
                yield "record", pair
        except InputError as error:
            yield "wrong", str(error)


class RayEngine:
    """Encoder actors on the nodes of a cluster. Call it as an engine of `FolderRun`.

    The driver alone writes the manifest. Videos and output folders lie under the same paths on every node. Videos of
    a lost node or actor are drawn again by others; a video lost twice is reported.
    """

    def __init__(self, address: str | None = None) -> None:
        """address: of a running cluster; None starts one on this machine. Raises InputError where Ray is missing."""
        self._ray = import_ray()
        self._address = address
        self.lost = 0  # encoders that went with their process or machine
        self._streams: dict[Any, int] = {}  # stream of an actor's records → number of the actor
        self._actors: dict[int, Any] = {}

    def __call__(self, jobs: Sequence[Job], order: Order) -> Iterator[tuple[Job, str, Record | Ended]]:
        """Embed the jobs; yields (job, modality, record) as files are complete, or Ended for a video given up."""
        if not jobs:
            return
        ray, by_video = self._ray, {job.video: job for job in jobs}
        mine = self._connect()
        self._number = 0
        try:
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            # where the driver is: the queue is lost only with the run itself
            feed = ray.remote(Feed).options(num_cpus=0, scheduling_strategy=here).remote(jobs)
            parts = ray.put([part for _, _, part, _ in order.targets])  # sent to a node once, not once an actor
            light = [(modality, folder, {}, maps) for modality, folder, _, maps in order.targets]
            order = Order(light, order.settings, order.crops, order.batch_size, order.workers, order.time_limit)
            for _ in range(min(self._places(order.workers), len(jobs))):
                self._start(feed, order, parts)
            while self._streams:
                ready, _ = ray.wait(list(self._streams), num_returns=1, timeout=1.0)
                for stream in ready:
                    yield from self._next(stream, feed, by_video, order, parts)
        except ray.exceptions.RayError as error:  # the queue itself, or the cluster
            first = str(error).strip().splitlines()[0]
            raise InputError(f"the Ray cluster was lost ({first}); the same command continues from there") from None
        finally:
            self._end(mine)

    def _connect(self) -> bool:
        """Join or start the cluster; returns whether it is to be left at the end."""
        ray = self._ray
        if ray.is_initialized():
            return False
        try:
            ray.init(self._address or "local", runtime_env=environment(), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"--address {self._address}: no Ray cluster can be joined there ({first})") from None
        return True

    def _places(self, workers: int) -> int:
        """Number of encoders: a GPU each, or without any as many as find cores for their decoders and themselves."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        self._needs = {"num_gpus": 1, "num_cpus": workers} if gpus else {"num_cpus": workers + 1}
        places = gpus or int(sum(node.get("CPU", 0) // (workers + 1) for node in nodes))
        if places < 1:
            raise InputError(f"no node of the Ray cluster has {workers + 1} CPUs for an encoder; give fewer --workers")
        return places

    def _start(self, feed: Any, order: Order, parts: Any) -> None:
        self._number += 1
        actor = self._ray.remote(_Encoders).options(**self._needs).remote(order, parts)
        self._actors[self._number] = actor
        stream = actor.run.options(num_returns="streaming").remote(self._number, feed)
        self._streams[stream] = self._number

    def _next(
        self, stream: Any, feed: Any, by_video: dict[str, Job], order: Order, parts: Any
    ) -> Iterator[tuple[Job, str, Record | Ended]]:
        ray, number = self._ray, self._streams[stream]
        try:
            kind, content = ray.get(next(stream))
        except StopIteration:
            self._forget(stream)
            return
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError):
            self._forget(stream)
            self.lost += 1
            for job in ray.get(feed.lose.remote(number)):
                reason = f"the encoder's process or machine was lost, tried {ATTEMPTS} times"
                for modality in job.modalities:
                    yield job, modality, Ended(0, None, "encoder_died", reason, usable=False)
            # others may have found nothing to do and gone, so what waits now needs someone
            if ray.get(feed.waiting.remote()) and not self._streams:
                self._places(order.workers)
                self._start(feed, order, parts)
            return
        if kind == "wrong":
            raise InputError(content)
        modality, record = content
        feed.settle.remote(number, record.video, modality)
        yield by_video[record.video], modality, record

    def _forget(self, stream: Any) -> None:
        self._ray.kill(self._actors.pop(self._streams.pop(stream)))

    def _end(self, mine: bool) -> None:
        for stream in list(self._streams):
            self._forget(stream)
        if mine:
            self._ray.shutdown()
