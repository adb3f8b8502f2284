"""Do the weights move the right way? The masking probes of several runs: mean ± std, and in how many ŵ falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vad.benchmark import TestSet
from vad.cells import SPREAD_NOTE, marked, mean_cell, metric_label
from vad.checkpoints import Checkpoint
from vad.comparison import CONFIDENCE, Paired, compare_paired, smallest_p
from vad.errors import InputError
from vad.figures_probes import draw_weight_fall
from vad.files import write_whole
from vad.metrics import PERCENT
from vad.probes import MASKED, Probes
from vad.protocol import AXES, Protocol
from vad.table import NAN, NONE, SEPARATOR, Table

WEIGHT = {"image": "w_image", "event": "w_event"}  # masked modality → the weight that should fall


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """InputError where runs are to be averaged that differ in more than their seed."""
    first, seeds = checkpoints[0], {}
    for checkpoint in checkpoints:
        if checkpoint.seed is None and checkpoint is not first:
            raise InputError(f"{checkpoint.path} does not say which seed it was trained with; probe it alone")
        here, there = ({**c.settings.as_dict(), "typed": None, "weights": c.weights} for c in (checkpoint, first))
        if here != there:
            raise InputError(
                f"{checkpoint.path} and {first.path} differ in more than their seed "
                f"({_difference(there, here)}); probe them one by one"
            )
        other = seeds.setdefault(checkpoint.seed, checkpoint)
        if other is not checkpoint:
            raise InputError(
                f"{other.path} and {checkpoint.path} are both the run of seed {checkpoint.seed}; give each run once"
            )


@dataclass(frozen=True)
class Degradation:
    """Probe tables of several runs, aligned by condition."""

    tables: Mapping[int, pd.DataFrame]  # seed → `vad.probes.Probes.table`

    @property
    def conditions(self) -> list[tuple[str, float]]:
        """(masked, level) in the order of the tables; the first is the clean one."""
        first = next(iter(self.tables.values()))
        return list(zip(first.masked, first.level, strict=True))

    def values(self, condition: tuple[str, float], column: str) -> dict[int, float]:
        """Seed → number of one condition."""
        place = self.conditions.index(condition)
        return {seed: float(table[column].iloc[place]) for seed, table in self.tables.items()}

    def moved(self, condition: tuple[str, float], column: str) -> dict[int, float]:
        """Seed → what masking does to a number, each run against itself unmasked."""
        clean = self.values(self.conditions[0], column)
        return {seed: value - clean[seed] for seed, value in self.values(condition, column).items()}

    def change(self, condition: tuple[str, float], column: str) -> Paired:
        """The same, with its mean and whether it is told from zero."""
        return compare_paired(self.values(self.conditions[0], column), self.values(condition, column))


def degradation_table(found: Degradation, protocol: Protocol, *, axis: str, seed: int) -> Table:
    """A row a condition: mean ± std over runs, the change of the masked modality's weight, in how many it fell.

    Δŵ is the weight of the *masked* modality minus the same run's without masking: the right way is down.
    """
    names = (protocol.dataset.metric, "brier", "kl", "w_image", "w_event")
    rows = []
    for masked, level in found.conditions:
        cells = [masked, f"{level:.2f}"]
        for name in names:
            values = list(found.values((masked, level), name).values())
            cells.append(marked(mean_cell(values) if name in PERCENT else _spread(values), protocol.mark))
        modality = next((m for m, label in MASKED.items() if label == masked), None)
        if modality is None:
            cells += [NONE, NONE, NONE]
        else:
            change = found.change((masked, level), WEIGHT[modality])
            p = NAN if change.pairs == 1 else f"{change.p:.3g}"
            cells += [_change(change), f"{change.lower} of {change.pairs}", p]
        rows.append(tuple(cells))
    columns = ("masked", "level", *map(metric_label, names), "Δŵ of the masked", "fell in", "p")
    header = SEPARATOR.join([protocol.line(), AXES[axis], f"mask seed {seed}"])
    notes = ["EV_NOISE: event masked. IMG_NOISE: image masked. Δŵ: against the same run unmasked; down is right."]
    notes.append(f"{SPREAD_NOTE} p: sign-flip test of Δŵ over runs.")
    notes += [_verdict(found, modality) for modality in ("image", "event")]
    notes += protocol.notes(beside_paper=False)
    title = f"{protocol.dataset.title}: do the weights leave the modality that is masked?"
    return Table(title, header, columns, tuple(rows), tuple(notes))


def _verdict(found: Degradation, modality: str) -> str:
    """One sentence for the strongest masking of a modality."""
    condition = max((c for c in found.conditions if c[0] == MASKED[modality]), key=lambda c: c[1])
    change = found.change(condition, WEIGHT[modality])
    sign = "ŵ_i" if modality == "image" else "ŵ_e"
    if change.pairs == 1 or smallest_p(change.pairs) >= 1 - CONFIDENCE:
        said = f"cannot be judged from {change.pairs} runs"
    elif not change.differs:
        said = "does not move in a way told from chance"
    else:
        said = "falls, as it should" if change.mean < 0 else "rises: the wrong way"
    return f"{modality} masked at {condition[1]:g}: {sign} {said} ({_change(change)})."


def _change(change: Paired) -> str:
    return f"{change.mean:+.4f}"


def _spread(values: Sequence[float]) -> str:
    """Mean ± std with four digits, for what is no percentage."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    return f"{mean:.4f}" + ("" if std is None else f" ± {std:.4f}")


def _difference(a: Mapping[str, object], b: Mapping[str, object]) -> str:
    """The first value in which two nested settings differ."""
    for name, value in a.items():
        if b.get(name) != value:
            if isinstance(value, Mapping):
                return _difference(value, b[name])
            return f"{name} {value} and {b.get(name)}"
    return "nothing"


def report_degradation(
    probes: Sequence[Probes], checkpoints: Sequence[Checkpoint], test: TestSet, folder: Path, *, seed: int
) -> tuple[Table, list[Path]]:
    """Table and picture of the probes of several checkpoints; every run's numbers go to probe_runs.csv."""
    tables = {c.seed: found.table for c, found in zip(checkpoints, probes, strict=True)}
    found, axis = Degradation(tables), test.settings.profile.mask_axis
    noted = tuple(dict.fromkeys(f"{note}." for checkpoint in checkpoints for note in checkpoint.notes))
    protocol = test.protocol(checkpoints[0].weights, len(checkpoints), noted)
    table = degradation_table(found, protocol, axis=axis, seed=seed)
    changes = {
        modality: {level: list(found.moved((label, level), WEIGHT[modality]).values())
                   for masked, level in found.conditions if masked == label}
        for modality, label in MASKED.items()
    }  # fmt: skip
    title = f"{protocol.dataset.title}: weight of the modality that is masked, {len(tables)} runs"
    pictures = draw_weight_fall(changes, folder / "probe_runs", title=title)
    table.save(folder / "probe_runs_table")
    rows = pd.concat([frame.assign(run_seed=seed) for seed, frame in tables.items()])
    write_whole(folder / "probe_runs.csv", rows.to_csv(index=False).encode())
    return table, pictures
