"""The loop: batches -> loss -> step, validated after every epoch, stopped and resumed at any moment.

A run has two phases. `choose` trains on train without validation, asks validation after every epoch and remembers the
best one. `refit` starts anew on train with validation, for as many epochs as were best; its learning rate falls to 0 at
their end. A run folder holds

    log.jsonl      a line an epoch: loss beside that of equal logits, pairs a second, diagnosis, metrics
    last/          the newest checkpoint, from which the run is resumed
    best/          the towers of the best epoch of `choose`: what is judged on validation
    final/         the towers after `refit`: what is judged on test, and exported

Checkpoints are written whole or not at all (`storage.py`). All draws are functions of (seed, epoch, step), except
dropout, which torch draws from its global generator; the CPU generator's state is in the checkpoint, so that a run on
the CPU resumes to the last bit.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from twotower_lib.batches import Batch, Batches
from twotower_lib.diagnostics import Diagnosis, diagnose, fixed_sample, scalars, with_gradients
from twotower_lib.errors import ArtifactError, SettingError, nearest, need
from twotower_lib.evaluation import measure
from twotower_lib.features import Codes, Features, HistorySettings
from twotower_lib.losses import blocked_softmax, known_positives_mask, same_item_mask
from twotower_lib.metrics import METRICS
from twotower_lib.optimisers import optimisers
from twotower_lib.protocols import Questions, questions
from twotower_lib.retriever import exact_retriever
from twotower_lib.seeding import child, seeded
from twotower_lib.split import Split
from twotower_lib.storage import open_folder, write_folder, write_text
from twotower_lib.towers import TowerSettings, TwoTower

CHECKPOINT = "checkpoint"
STATE = "state.pt"
LOG = "log.jsonl"
PHASES = ("choose", "refit")
LOSS_FORMS = ("classic", "corrected")
PRECISIONS = ("float32", "bfloat16")
LEAST = {"epochs": 1, "batch_size": 2, "threads": 1}
LEAST |= dict.fromkeys(("uniform_negatives", "warmup_steps", "patience", "checkpoint_steps", "embed_chunk"), 0)
"""The smallest value of each count among the settings."""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Which corrections the in-batch softmax gets."""

    form: str = "classic"
    """classic corrects the positive by log q as if it had been drawn, corrected (Khrylchenko et al. 2025) does not."""
    log_q: float = 1.0
    """Strength of the log q correction; 1 is the derived one, 0 none."""
    same_item: bool = True
    """Whether the row's own item elsewhere in the batch is no negative."""
    known_positives: bool = True
    """Whether other items that the row's user is known to like are no negatives."""

    def __post_init__(self) -> None:
        need(math.isfinite(self.log_q), "loss.log_q", self.log_q, "a finite strength")
        if self.form not in LOSS_FORMS:
            raise SettingError(f"loss.form = {self.form}", " or ".join(LOSS_FORMS), nearest(self.form, LOSS_FORMS))
        if self.form == "corrected" and (self.log_q != 1 or not self.same_item):
            raise SettingError(
                f"loss.form = corrected, loss.log_q = {self.log_q}, loss.same_item = {str(self.same_item).lower()}",
                "loss.log_q = 1 and loss.same_item = true, from which this form is derived",
            )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The loop and its optimiser."""

    epochs: int = 6
    """At most so many in `choose`; the cosine of the learning rate ends there."""
    batch_size: int = 1024
    uniform_negatives: int = 0
    """Candidates of a batch beside its own items, drawn uniformly from the items of train: negatives that popularity
    does not choose (Yang et al. 2020, mixed negative sampling). log q is then that of the mixture."""
    learning_rate: float = 0.01
    """Peak of the learning rate, reached after the warm-up."""
    weight_decay: float = 0.0
    lazy_tables: bool = False
    """Whether tables are trained by `optimisers.LazyAdam`: faster where they are much larger than a batch."""
    warmup_steps: int = 50
    patience: int = 3
    """Epochs without a better validation metric after which `choose` stops; 0 never stops."""
    metric: str = "ndcg@20"
    """What the best epoch is chosen by."""
    refit: bool = True
    """Whether to train once more on train and validation, for the best number of epochs."""
    checkpoint_steps: int = 0
    """Steps between checkpoints inside an epoch; 0 for one at its end only."""
    threads: int = 1
    """torch threads; small models are fastest on one."""
    device: str = "cpu"
    embed_chunk: int = 0
    """Users or items that a tower embeds at a time, 0 for all of the batch: layers between need memory for so many
    only, and the batch brings as many negatives as before, unlike gradients accumulated over small batches."""
    precision: str = "float32"
    """float32, or bfloat16 for the matmuls of towers and loss, on a GPU; weights and sums stay float32."""
    tensorboard: bool = False
    """Whether to write the log for TensorBoard too (needs the extra `tensorboard`)."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            need(getattr(self, name) >= least, f"train.{name}", getattr(self, name), f"{least} or more")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            came = f"train.learning_rate = {self.learning_rate}, train.weight_decay = {self.weight_decay}"
            raise SettingError(came, "a positive learning rate and a weight decay of 0 or more")
        if self.lazy_tables and self.weight_decay:
            came = f"train.lazy_tables = true, train.weight_decay = {self.weight_decay}"
            raise SettingError(came, "train.weight_decay = 0: lazy Adam has none")
        if self.precision not in PRECISIONS or (self.precision == "bfloat16" and not self.device.startswith("cuda")):
            came = f"train.precision = {self.precision}, train.device = {self.device}"
            raise SettingError(came, "float32, or bfloat16 on the device cuda")
        metric, _, k = self.metric.partition("@")
        if metric not in METRICS or not k.isdigit() or int(k) < 1:
            raise SettingError(f"train.metric = {self.metric}", "a metric such as recall@20", nearest(metric, METRICS))


def _check_machine(train: TrainSettings) -> None:
    """What the settings ask of this computer is there."""
    try:
        torch.zeros(1, device=train.device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"train.device = {train.device}: {reason}", "a device of this computer, as cpu") from error
    if train.tensorboard and find_spec("tensorboard") is None:
        raise SettingError(
            "train.tensorboard = true, but TensorBoard is not installed",
            "the extra",
            "pip install 'twotower[tensorboard]'",
        )


@dataclass(frozen=True)
class Position:
    """Where a run stands, and what it has found so far."""

    phase: str = "choose"
    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    """Epochs after which the validation metric was best."""
    loss_sum: float = 0.0
    """Of the losses since the epoch began."""
    gradients: dict[str, float] = field(default_factory=dict)
    """Sum and maximum of the gradients' norms since the epoch began."""
    done: bool = False


@dataclass(frozen=True)
class Progress:
    """What is reported after an epoch."""

    phase: str
    epoch: int
    loss: float
    chance_loss: float
    """ln(candidates): the loss of equal logits. With log q and the masks equal scores lie some tenths beside it."""
    pairs_a_second: float
    diagnosis: Diagnosis
    metrics: dict[str, float]


def batch_loss(
    towers: TwoTower, batch: Batch, settings: LossSettings, *, embed_chunk: int = 0, precision: str = "float32"
) -> Tensor:
    """The loss of one batch: both towers, the masks that are switched on, log q.

    `embed_chunk` and `precision` are those of `TrainSettings`.
    """
    with torch.autocast(batch.items.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        user = _embedded(towers.embed_users, batch.user, batch.items[: len(batch)], embed_chunk)
        item = _embedded(towers.embed_items, batch.item, batch.items, embed_chunk)
    if precision == "bfloat16":
        user, item = user.bfloat16(), item.bfloat16()
    return blocked_softmax(
        user,
        item,
        temperature=towers.temperature,
        log_q=batch.log_q,
        candidates=batch.items,
        log_q_strength=settings.log_q,
        corrected=settings.form == "corrected",
        same_item=settings.same_item,
        known=(batch.known_row, batch.known_item) if settings.known_positives else None,
    )


def _embedded(
    embed: Callable[[Mapping[str, Codes]], Tensor], inputs: Mapping[str, Codes], items: Tensor, chunk: int
) -> Tensor:
    """The embeddings of all rows; with a chunk, so many rows at a time, and what lies between is forgotten.

    The backward pass goes through the chunks one by one and computes each anew, with the same dropout (Gao et al. 2021,
    "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.2). Loss and gradients are
    those of the whole batch. Of `items` only number and device are read.
    """
    if not chunk:
        return embed(inputs)

    def part(items: Tensor, start: int) -> Tensor:
        return embed({name: codes.rows(start, start + chunk) for name, codes in inputs.items()})

    # A tensor among the arguments tells `checkpoint` the device whose random numbers are to be drawn again.
    parts = [checkpoint(part, items, start, use_reentrant=False) for start in range(0, len(items), chunk)]
    return torch.cat(parts)


def no_negatives(batch: Batch, settings: LossSettings) -> Tensor | None:
    """True where a candidate is no negative for a row, by the masks that are switched on; None where none is."""
    masks = [same_item_mask(batch.items, len(batch))] if settings.same_item else []
    if settings.known_positives:
        masks.append(known_positives_mask(batch.items, batch.known_row, batch.known_item, len(batch)))
    return torch.stack(masks).any(0) if masks else None


def learning_rate_at(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up to the peak, then half a cosine down to 0 at `total` steps."""
    warmup = min(settings.warmup_steps, total // 2)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


class Phase:
    """One phase of a run: its data, towers and optimisers, and the step from one batch to the next."""

    def __init__(
        self,
        split: Split,
        features: Features,
        *,
        history: HistorySettings,
        towers: TowerSettings,
        loss: LossSettings,
        train: TrainSettings,
        epochs: int,
        seed: int,
    ) -> None:
        self.features, self.train, self.loss, self.epochs = features, train, loss, epochs
        _check_machine(train)
        seeded(int(child(seed, "weights").integers(2**31)), train.threads)
        self.towers = TwoTower(self.features, towers).to(train.device)
        self.optimisers = optimisers(self.towers, train.learning_rate, train.weight_decay, train.lazy_tables)
        self.batches = Batches(
            split.train,
            self.features,
            towers.user,
            towers.item_inputs,
            batch_size=train.batch_size,
            history=history,
            seed=seed,
            known_positives=loss.known_positives,
            uniform_negatives=train.uniform_negatives,
            device=train.device,
        )

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule."""
        return self.epochs * self.batches.steps_per_epoch

    def step(self, batch: Batch, number: int) -> float:
        """One step of the optimisers; `number` counts from the beginning of the phase."""
        chunk, precision = self.train.embed_chunk, self.train.precision
        loss = batch_loss(self.towers, batch, self.loss, embed_chunk=chunk, precision=precision)
        self.towers.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(number, self.total_steps, self.train)
            optimiser.step()
        return loss.item()

    def state(self, position: Position) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "towers": self.towers.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "position": asdict(position),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken.

        Raises:
            ArtifactError: the state is of an older version, which knew one optimiser only.
        """
        if "optimisers" not in state:
            came, todo = "a checkpoint of an older version", "resume it with that version, or train the run anew"
            raise ArtifactError(came, "a checkpoint that holds the state of every optimiser", todo)
        self.towers.load_state_dict(state["towers"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        torch.set_rng_state(state["random"])


class Run:
    """A run in a folder: both phases, checkpoints and the log.

    Args:
        folder: an existing folder; its owner has written the settings into it.
        make_phase: builds a `Phase` for a split and a number of epochs.
        split: the events and their parts.
        report: called after every epoch.
    """

    def __init__(
        self,
        folder: Path,
        make_phase: Callable[[Split, int], Phase],
        split: Split,
        settings: TrainSettings,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.folder, self.make_phase, self.split, self.settings = folder, make_phase, split, settings
        self.report, self.alarmed = report, False
        self.asked: Questions = questions(split, "valid")

    def go(self) -> bool:
        """Train to the end, from the last checkpoint where there is one.

        Returns:
            True when the run is complete, False when a signal stopped it; it can then be resumed.
        """
        position, state = self._last()
        _cut_log(self.folder / LOG, position)
        with asked_to_stop() as stop:
            while not position.done:
                phase = self._begin(position)
                if state is not None:
                    phase.restore(state)
                    state = None
                position = self._phase(phase, position, stop)
                if stop.is_set() and not position.done:
                    return False
        return True

    def _begin(self, position: Position) -> Phase:
        if position.phase == "choose":
            return self.make_phase(self.split, self.settings.epochs)
        return self.make_phase(self.split.refit(), position.best_epoch)

    def _last(self) -> tuple[Position, dict[str, Any] | None]:
        if not (self.folder / "last").exists():
            return Position(), None
        state = load_state(self.folder / "last")
        return Position(**state["position"]), None if state["towers"] is None else state

    def _phase(self, phase: Phase, position: Position, stop: threading.Event) -> Position:
        """Train until the phase ends or a stop is asked for; returns where the run then stands."""
        name = position.phase
        while position.epoch < phase.epochs and not self._is_patience_over(position):
            position = self._epoch(phase, position, stop)
            if stop.is_set():
                return position
        if name == "refit" or not self.settings.refit:
            if name == "refit":
                save_state(self.folder / "final", phase.state(position))
            position = replace(position, done=True)
            save_state(self.folder / "last", phase.state(position))
            return position
        position = replace(position, phase="refit", epoch=0, step=0, loss_sum=0.0)
        save_state(self.folder / "last", {"towers": None, "position": asdict(position)})
        return position

    def _is_patience_over(self, position: Position) -> bool:
        patience = self.settings.patience
        return position.phase == "choose" and 0 < patience <= position.epoch - position.best_epoch

    def _epoch(self, phase: Phase, position: Position, stop: threading.Event) -> Position:
        """The rest of one epoch, its validation and its checkpoint."""
        per_epoch, began, first = phase.batches.steps_per_epoch, time.perf_counter(), position.step
        chance = math.log(phase.batches.n_candidates)
        bar = tqdm(
            phase.batches.epoch(position.epoch, position.step),
            desc=f"{position.phase} {position.epoch + 1}/{phase.epochs}",
            total=per_epoch,
            initial=first,
            leave=False,
            disable=None,
        )
        for batch in bar:
            loss = phase.step(batch, position.epoch * per_epoch + position.step)
            gradients = with_gradients(position.gradients, phase.towers)
            position = replace(position, step=position.step + 1, loss_sum=position.loss_sum + loss, gradients=gradients)
            if position.step % 10 == 0:
                bar.set_postfix_str(f"loss {position.loss_sum / position.step:.3f}, chance {chance:.3f}")
            if position.step < per_epoch and (stop.is_set() or self._is_checkpoint_due(position.step)):
                save_state(self.folder / "last", phase.state(position))
                if stop.is_set():
                    return position
        speed = (position.step - first) * phase.batches.batch_size / (time.perf_counter() - began)
        return self._end_epoch(phase, position, speed)

    def _is_checkpoint_due(self, step: int) -> bool:
        return self.settings.checkpoint_steps > 0 and step % self.settings.checkpoint_steps == 0

    def _end_epoch(self, phase: Phase, position: Position, speed: float) -> Position:
        """Validate, remember the best, log, and save."""
        metrics = self._validate(phase) if position.phase == "choose" else {}
        progress = Progress(
            phase=position.phase,
            epoch=position.epoch + 1,
            loss=position.loss_sum / phase.batches.steps_per_epoch,
            chance_loss=math.log(phase.batches.n_candidates),
            pairs_a_second=speed,
            diagnosis=self._diagnosis(phase, position),
            metrics=metrics,
        )
        position = replace(position, epoch=position.epoch + 1, step=0, loss_sum=0.0, gradients={})
        if metrics and metrics[self.settings.metric] > position.best:
            position = replace(position, best=metrics[self.settings.metric], best_epoch=position.epoch)
            save_state(self.folder / "best", phase.state(position))
        self._log(progress)
        self._warn(progress)
        save_state(self.folder / "last", phase.state(position))
        self.report(progress)
        return position

    def _validate(self, phase: Phase) -> dict[str, float]:
        k = int(self.settings.metric.partition("@")[2])
        means = measure(exact_retriever(phase.towers, phase.features), self.asked, [k]).means
        return {f"{name}@{k}": means[f"{name}@{k}"] for name in METRICS}

    def _diagnosis(self, phase: Phase, position: Position) -> Diagnosis:
        sample = fixed_sample(phase.batches)
        drop = no_negatives(sample, phase.loss)
        return diagnose(phase.towers, sample, drop, position.gradients, phase.batches.steps_per_epoch)

    def _warn(self, progress: Progress) -> None:
        """Say the first alarm, once; the later ones stand in the log."""
        if progress.diagnosis.alarm and not self.alarmed:
            tqdm.write(f"{progress.phase} epoch {progress.epoch}: {progress.diagnosis.alarm}", file=sys.stderr)
            self.alarmed = True

    def _log(self, progress: Progress) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(progress)) + "\n")
        if self.settings.tensorboard:
            _to_tensorboard(self.folder, progress)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint over the older one."""
    with write_folder(folder, CHECKPOINT, force=True) as work:
        torch.save(state, work / STATE)


def load_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are unpickled."""
    state: dict[str, Any] = torch.load(
        open_folder(folder, CHECKPOINT).file(STATE), weights_only=True, map_location="cpu"
    )
    return state


def load_towers(folder: Path, features: Features, settings: TowerSettings) -> TwoTower:
    """The towers of a checkpoint.

    Raises:
        ArtifactError: the checkpoint is missing or damaged, or does not fit the features.
    """
    towers = TwoTower(features, settings)
    try:
        towers.load_state_dict(load_state(folder)["towers"])
    except RuntimeError as error:
        raise ArtifactError(
            f"{folder} does not fit this data: {str(error).splitlines()[-1].strip()}",
            "the data and settings that the run was trained with",
        ) from error
    return towers.eval()


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the handlers that were there before come back at the end.

    A second signal of the same kind acts as usual. Outside the main thread signals are left alone.
    """
    stop = threading.Event()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    is_main = threading.current_thread() is threading.main_thread()

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    try:
        for number in before if is_main else ():
            signal.signal(number, note)
        yield stop
    finally:
        for number, handler in before.items() if is_main else ():
            signal.signal(number, handler)


def _cut_log(log: Path, position: Position) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint: these epochs are trained again."""
    if not log.exists():
        return
    here = (PHASES.index(position.phase), position.epoch)
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        written = json.loads(line) if line.endswith("}}") else None
        if written and (PHASES.index(written["phase"]), written["epoch"]) <= here:
            kept.append(line + "\n")
    write_text(log, "".join(kept))


def _to_tensorboard(folder: Path, progress: Progress) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / progress.phase)) as writer:
        writer.add_scalar("loss", progress.loss, progress.epoch)
        writer.add_scalar("chance loss", progress.chance_loss, progress.epoch)
        for name, value in {**scalars(progress.diagnosis), **progress.metrics}.items():
            writer.add_scalar(name, value, progress.epoch)
