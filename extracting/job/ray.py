"""Several GPUs or machines: each Ray actor runs its share of the videos as one process would alone."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from extracting.clip.encoder import load_encoder
from extracting.config import Config, Job
from extracting.job.run import Output, Result, run
from vad.files import ROOT, InputError

BARREN = 2  # encoders of one share that were lost in a row before they finished a video


def import_ray() -> ModuleType:
    """Ray, or InputError with the command that installs it."""
    try:
        import ray
    except ImportError:
        raise InputError('--ray needs Ray, which is not installed: python -m pip install "ray>=2.9"') from None
    return ray


def environment() -> dict[str, Any]:
    """Ray's runtime environment for our actors: this checkout, under the same path on every node."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    return {"env_vars": {"PYTHONPATH": path, **threads}}


class Encoders:
    """Body of an actor: an encoder per modality, and decoder processes of its own on the same node."""

    def __init__(self, wanted: Mapping[str, tuple[Path, Mapping[str, Any]]], config: Config) -> None:
        """wanted: by modality its folder and the arguments of `load_encoder`."""
        self._wanted, self._config = wanted, config
        self._outputs: dict[str, Output] = {}

    def load(self) -> dict[str, Output]:
        """Load the encoders; returns the outputs without them, since they stay where they are."""
        for modality, (folder, how) in self._wanted.items():
            encoder = load_encoder(**how)  # on the GPU that Ray gives this actor, if any
            self._outputs[modality] = Output.of(modality, folder, encoder, self._config)
        return {m: replace(out, encoder=None) for m, out in self._outputs.items()}

    def run(self, jobs: Sequence[Job]) -> Generator[Result]:
        """The records of a share; what only shows progress does not travel."""
        if not self._outputs:
            self.load()
        for result in run(jobs, self._outputs, self._config):
            if result is not None:
                yield result


@dataclass
class _Share:
    """The videos of one actor."""

    actor: Any
    jobs: dict[str, Job]  # by path: those that are not finished
    records: Any = None  # the actor's stream of them
    barren: int = 0  # encoders lost since the last finished video


class Cluster:
    """Encoder actors on the nodes of a Ray cluster. Use it as a context manager.

    Videos and output folders lie under the same paths on every node. The driver alone writes the manifest.
    """

    def __init__(
        self,
        address: str | None,
        wanted: Mapping[str, tuple[Path, Mapping[str, Any]]],
        config: Config,
        most: int,
    ) -> None:
        """Join the cluster at `address`, or start one on this machine, and load the encoders.

        most: actors that have work. Raises InputError where Ray, a cluster or enough CPUs are missing, and
        where an encoder cannot be loaded.
        """
        self._ray, self._wanted, self._config = import_ray(), wanted, config
        self._ours = not self._ray.is_initialized()
        if self._ours:
            self._join(address)
        try:
            self._actors = [self._actor() for _ in range(min(self._places(), most))]
            loading = [actor.load.remote() for actor in self._actors]
            # others may have to wait for cores; they load when their share begins
            first = self._ray.wait(loading, num_returns=1)[0][0]
            self.outputs: dict[str, Output] = self._ask(first)
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
        if self._ours:
            self._ray.shutdown()
        else:
            for actor in getattr(self, "_actors", ()):
                self._ray.kill(actor)

    def run(self, jobs: Sequence[Job]) -> Generator[Result]:
        """As `job.run.run`, by all actors: the largest videos first, dealt in turn.

        The rest of a lost actor's share goes to a new one.
        """
        ray, by_size = self._ray, sorted(jobs, key=lambda job: -job.size)
        n = len(self._actors)
        shares = [
            _Share(actor, {job.video: job for job in by_size[k::n]}) for k, actor in enumerate(self._actors)
        ]
        running = {self._start(share): share for share in shares if share.jobs}
        while running:
            for stream in ray.wait(list(running), num_returns=1)[0]:
                share = running[stream]
                try:
                    result = self._ask(next(stream))
                except StopIteration:
                    del running[stream]
                    ray.kill(share.actor)  # a share whose actor was lost may wait for its cores
                    continue
                except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                    del running[stream]
                    running[self._restart(share, error)] = share
                    continue
                share.barren = 0
                self._settle(share, result)
                yield result

    def _join(self, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            self._ray.init(address or "local", runtime_env=environment(), **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"--ray {address}: no Ray cluster can be joined there ({reason})") from None

    def _places(self) -> int:
        """Number of actors: a GPU each; without any, as many as find cores for decoders and themselves."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        cpus = self._config.workers + (not on_gpus)
        self._needs = {"num_cpus": cpus, "num_gpus": int(on_gpus)}
        places = sum(
            int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if on_gpus else float("inf")))
            for node in nodes
        )
        if not places:
            what = f"{cpus} CPUs" + (" beside a GPU" if on_gpus else "")
            raise InputError(f"no node of the Ray cluster has {what} for an encoder; give fewer --workers")
        return places

    def _actor(self) -> Any:
        return self._ray.remote(Encoders).options(**self._needs).remote(self._wanted, self._config)

    def _ask(self, reference: Any) -> Any:
        """What an actor answers; a user's mistake that shows there is one here too."""
        try:
            return self._ray.get(reference)
        except InputError as error:  # Ray raises what is this and its own error at once
            raise InputError(str(getattr(error, "cause", error))) from None

    def _start(self, share: _Share) -> Any:
        jobs = list(share.jobs.values())
        share.records = share.actor.run.options(num_returns="streaming").remote(jobs)
        return share.records

    def _restart(self, share: _Share, error: Exception) -> Any:
        share.barren += 1
        reason = str(error).strip().splitlines()[0]
        if share.barren >= BARREN:
            raise InputError(
                f"{share.barren} encoders in a row were lost before they finished a video ({reason});"
                " what was finished is kept, the same command continues"
            )
        self._places()  # none may be left
        share.actor = self._actor()
        self._actors.append(share.actor)
        return self._start(share)

    @staticmethod
    def _settle(share: _Share, result: Result) -> None:
        """Take what is finished off a share."""
        job, modality, _ = result
        left = tuple(m for m in share.jobs[job.video].modalities if m != modality)
        if left:
            share.jobs[job.video] = replace(job, modalities=left)
        else:
            del share.jobs[job.video]
