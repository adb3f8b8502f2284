"""Embed videos on several GPUs or machines: each Ray actor embeds one shard of the videos."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from extracting.clip.encoder import load_encoder
from extracting.job.files import RESUME
from extracting.job.run import Output, Result, run
from extracting.video.config import Config, Job
from vad.files import ROOT, InputError

MAX_LOST_ACTORS = 2  # per shard, in a row and without a finished video


def import_ray() -> ModuleType:
    """Import Ray. Raises InputError with the install command if it is missing."""
    try:
        import ray
    except ImportError:
        raise InputError('--ray needs Ray, which is not installed. Run: python -m pip install "ray>=2.9"') from None
    return ray


def environment() -> dict[str, Any]:
    """Return Ray's runtime environment: actors import this checkout from the same path on every node."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    return {"env_vars": {"PYTHONPATH": path, **threads}}


class EncoderActor:
    """Actor with one encoder per modality, and decoder processes on the same node."""

    def __init__(self, specs: Mapping[str, tuple[Path, Mapping[str, Any]]], config: Config) -> None:
        """specs: modality → output folder, arguments of `load_encoder`."""
        self._specs, self._config = specs, config
        self._outputs: dict[str, Output] = {}

    def load(self) -> dict[str, Output]:
        """Load the encoders and return the outputs without them, because encoders stay in the actor."""
        for modality, (folder, arguments) in self._specs.items():
            encoder = load_encoder(**arguments)  # on the GPU that Ray assigned, if any
            self._outputs[modality] = Output.of(modality, folder, encoder, self._config)
        return {m: replace(out, encoder=None) for m, out in self._outputs.items()}

    def run(self, jobs: Sequence[Job]) -> Generator[Result]:
        """Yield the results of a shard, without the progress of single snippets."""
        if not self._outputs:
            self.load()
        for result in run(jobs, self._outputs, self._config):
            if result is not None:
                yield result


@dataclass
class _Shard:
    """The videos of one actor."""

    actor: Any
    jobs: dict[str, Job]  # unfinished videos, by path
    results: Any = None  # the actor's result stream
    lost_actors: int = 0  # since the last finished video


class Cluster:
    """Context manager for encoder actors on the nodes of a Ray cluster.

    Videos and output folders must have the same paths on every node. Only the driver writes the manifest.
    """

    def __init__(
        self,
        address: str | None,
        specs: Mapping[str, tuple[Path, Mapping[str, Any]]],
        config: Config,
        max_actors: int,
    ) -> None:
        """Join the cluster at `address`, or start one on this machine, and load the encoders.

        specs: as in `EncoderActor`. Raises InputError if Ray, the cluster or enough CPUs are missing, or if
        an encoder cannot be loaded.
        """
        self._ray, self._specs, self._config = import_ray(), specs, config
        self._owns_ray = not self._ray.is_initialized()
        if self._owns_ray:
            self._join(address)
        try:
            self._actors = [self._actor() for _ in range(min(self._count_actors(), max_actors))]
            loading = [actor.load.remote() for actor in self._actors]
            # the other actors may have to wait for CPUs; they load when their shard starts
            first = self._ray.wait(loading, num_returns=1)[0][0]
            self.outputs: dict[str, Output] = self._get(first)
        except self._ray.exceptions.RayActorError as error:
            self.__exit__()
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"an encoder could not be loaded on the Ray cluster ({reason})") from None
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owns_ray:
            self._ray.shutdown()
        else:
            for actor in getattr(self, "_actors", ()):
                self._ray.kill(actor)

    def run(self, jobs: Sequence[Job]) -> Generator[Result]:
        """Yield the same results as `job.run.run`, computed by all actors, largest videos first.

        If an actor is lost, a new actor takes over the rest of its shard.
        """
        ray, by_size = self._ray, sorted(jobs, key=lambda job: -job.size)
        n = len(self._actors)
        shards = [
            _Shard(actor, {job.video: job for job in by_size[k::n]}) for k, actor in enumerate(self._actors)
        ]
        running = {self._start(shard): shard for shard in shards if shard.jobs}
        while running:
            for stream in ray.wait(list(running), num_returns=1)[0]:
                shard = running[stream]
                try:
                    result = self._get(next(stream))
                except StopIteration:
                    del running[stream]
                    ray.kill(shard.actor)  # frees its CPUs for a replacement of a lost actor
                    continue
                except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                    del running[stream]
                    running[self._restart(shard, error)] = shard
                    continue
                shard.lost_actors = 0
                self._on_result(shard, result)
                yield result

    def _join(self, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            self._ray.init(address or "local", runtime_env=environment(), **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"--ray: cannot connect to Ray at {address or 'this machine'} ({reason})") from None

    def _count_actors(self) -> int:
        """Return how many actors the cluster can run: one per GPU, or without GPUs as many as CPUs allow."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        cpus = self._config.workers + (not on_gpus)
        self._resources = {"num_cpus": cpus, "num_gpus": int(on_gpus)}
        count = sum(
            int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if on_gpus else float("inf")))
            for node in nodes
        )
        if not count:
            required = f"{cpus} CPUs" + (" and a GPU" if on_gpus else "")
            raise InputError(f"no node of the Ray cluster has {required} for an encoder. Reduce --workers.")
        return count

    def _actor(self) -> Any:
        return self._ray.remote(EncoderActor).options(**self._resources).remote(self._specs, self._config)

    def _get(self, reference: Any) -> Any:
        """Return an actor's answer. An InputError in the actor is raised here as InputError."""
        try:
            return self._ray.get(reference)
        except InputError as error:  # Ray's exception also inherits from the original class
            raise InputError(str(getattr(error, "cause", error))) from None

    def _start(self, shard: _Shard) -> Any:
        jobs = list(shard.jobs.values())
        shard.results = shard.actor.run.options(num_returns="streaming").remote(jobs)
        return shard.results

    def _restart(self, shard: _Shard, error: Exception) -> Any:
        shard.lost_actors += 1
        reason = str(error).strip().splitlines()[0]
        if shard.lost_actors >= MAX_LOST_ACTORS:
            raise InputError(
                f"{shard.lost_actors} encoders in a row were lost before they finished a video ({reason}). {RESUME}"
            )
        self._count_actors()  # raises if the remaining nodes are too small
        shard.actor = self._actor()
        self._actors.append(shard.actor)
        return self._start(shard)

    @staticmethod
    def _on_result(shard: _Shard, result: Result) -> None:
        """Remove a finished video and modality from a shard."""
        job, modality, _ = result
        remaining = tuple(m for m in shard.jobs[job.video].modalities if m != modality)
        if remaining:
            shard.jobs[job.video] = replace(job, modalities=remaining)
        else:
            del shard.jobs[job.video]
