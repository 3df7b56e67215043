"""Settings and the machine they meet: the engine they ask for, and what "auto" means on this machine.

What `resolve` decides is written into the run's own settings, so a resumed run has the same plan on another machine. It
decides by the machine's total memory, not by what is free, so that the same command has the same plan every time.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from ..config import Settings
from ..engine.base import LocalEngine
from ..engine.model import loading
from ..engine.model.whereabouts import is_here
from ..engine.planning import capacity, memory
from ..engine.planning.determinism import deterministic
from ..engine.planning.limits import threads_within_limits
from ..engine.planning.memory import GIB, Costs, Load, adapter_size
from ..engine.torch_engine import TorchEngine
from ..errors import ModelError, SelfEditError
from ..inner import COHORTS_PER_CHUNK
from ..models.shelf import resolve as resolve_model
from ..plugins import find
from .planning import made_up_updates

Dtype = Literal["fp32", "bf16"]
# Who a model is: the one that writes and learns, or one of two.
Role = Literal["both", "writer", "learner"]
# Bytes of fp32 weights beyond which loading them to measure takes longer than it is worth: large products gain from bf16.
_MEASURED_UP_TO = 1 << 30
_WORTH_IT = 1.1  # bf16 rounds more, and a tie should not be decided by noise

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "base"


def model_path(name: str) -> str:
    """The checkpoint that a model setting names: ``embedded`` is the base that ships with the package, a name that was fetched
    or imported (`models.shelf`) is that model's directory, all else is a directory or a hub id.

    Raises:
        ModelError: the model of this name was not fetched yet, or is incomplete.
    """
    if name != "embedded":
        return name if Path(name).is_dir() else resolve_model(name) or name
    if not (EMBEDDED / "model.safetensors").exists():
        raise ModelError(f"the embedded base is missing ({EMBEDDED}); reinstall selfedit, or set model.path")
    return str(EMBEDDED)


def at_hand(settings: Settings) -> bool:
    """The models are on this machine: reading them downloads nothing. Raises as `is_here` where one of them is nowhere."""
    paths = dict.fromkeys((settings.model.path, settings.of_learner().model.path))
    here = [is_here(model_path(path)) for path in paths]
    return all(here)


@contextmanager
def numerics(settings: Settings) -> Iterator[None]:
    """Everything that these settings compute goes in here: `deterministic`, of either model, holds inside, and no more threads
    than processors are left to this process.
    """
    models = (settings.model, settings.of_learner().model)
    device = next((model.device for model in models if not model.device.startswith("cpu")), "cpu")
    wanted = any(model.deterministic for model in models)
    with threads_within_limits(), deterministic(device) if wanted else nullcontext():
        yield


def load_engine(settings: Settings) -> LocalEngine:
    """The engine that these settings ask for; what is still "auto" in them gets defaults, without measurements."""
    model = settings.model
    return TorchEngine.load(
        model_path(model.path),
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
        allow_pickle=model.allow_pickle,
        at_once=model.at_once,
        device=model.device,
        targets=settings.targets,
        template_arguments=model.template_arguments,
    )


def engines(settings: Settings) -> tuple[LocalEngine, LocalEngine]:
    """The engines of the model that writes and of the model that learns: one and the same where a model edits itself."""
    writer = load_engine(settings)
    return writer, writer if settings.learner is None else load_engine(settings.of_learner())


class Machine:
    """What settings ask of the machine they meet: the model's costs and the run's load on it, without loading any weights."""

    def __init__(self, settings: Settings, role: Role = "both") -> None:
        """Read the model's shape. A model whose code does not give it without the weights is not planned for, with a warning.

        Raises:
            ModelError: it can't be read, or has no module of the targets.
            SettingsError: the device is not there.
        """
        self.settings, self.device = settings, loading.choose_device(settings.model.device)
        self.role: Role = role
        self._planned: tuple[Costs, Load] | None = None  # the costs in fp32
        model = settings.model
        try:
            outline = loading.load_outline(
                model_path(model.path), trust_remote_code=model.trust_remote_code, allow_pickle=model.allow_pickle
            )
            self._planned = Costs.of(outline, torch.float32, self.device), self._load(outline)
        except SelfEditError:
            raise
        except Exception as error:  # the model's own code can raise anything
            limits = [f"{name}_at_once" for name in model.at_once._fields]
            if "auto" in [getattr(model, name) for name in limits]:
                section = "learner" if role == "learner" else "model"
                members, rows, tokens = model.at_once
                warnings.warn(
                    f"{model.path}: its size is not known before its weights are loaded ({type(error).__name__}: {error}), so "
                    f"memory is not planned: {members} adapters, {rows} texts and {tokens} tokens per pass "
                    f"at once. If that does not suit, set {', '.join(f'{section}.{name}' for name in limits)}",
                    stacklevel=2,
                )

    def _load(self, outline: PreTrainedModel) -> Load:
        """The run's load. A passage, like a sample, is taken to be at most as long as the longest sample; a step sees at most
        one passage and each text of the edit.
        """
        settings, policy = self.settings, self.settings.algorithm
        recipe, texts = find("edits", settings.edits.kind).largest(settings)
        longest = getattr(outline.config.get_text_config(), "max_position_embeddings", None)
        window = int(longest or settings.edits.max_new_tokens)
        sequence = min(window, settings.edits.max_new_tokens)
        step = min(recipe.batch_size, texts + 1) * sequence
        if settings.inner.pad_to:
            step = recipe.batch_size * min(window, settings.inner.pad_to)
        writes, learns = self.role != "learner", self.role != "writer"
        side_by_side = min(COHORTS_PER_CHUNK, torch.get_num_threads()) if self.device.type == "cpu" else 1
        return Load(
            sequence=sequence,
            step=step,
            adapter=adapter_size(outline, recipe.targets or settings.targets, recipe.rank),
            cohorts=side_by_side if learns else 0,
            banks=COHORTS_PER_CHUNK if learns else 0,
            m_step=policy.batch_size * min(window, 2 * sequence) if writes else 0,
            policy=adapter_size(outline, policy.targets, policy.rank) if writes else 0,
        )

    def _costs(self, dtype: str) -> Costs | None:
        return self._planned and replace(self._planned[0], number=loading.DTYPES[dtype].itemsize)

    @property
    def weights(self) -> int:
        """Bytes of the base in the smallest dtype that it may get; 0 where its shape is not known."""
        costs = self._costs("fp32" if self.settings.model.dtype == "fp32" else "bf16")
        return costs.base if costs else 0

    def resolved(self, usable: int) -> tuple[Settings, str]:
        """The settings with nothing left for the machine to decide, and why the dtype was chosen (empty where the settings name
        one that suits the machine). ``usable``: bytes to plan with where the settings don't say.
        """
        model, gib = self.settings.model, self.settings.model.memory_gib
        if gib == "auto":
            gib = capacity.readable_gib(usable)
        dtype, why = (model.dtype, self._slow()) if model.dtype != "auto" else self._dtype(int(gib * GIB))
        fits, costs = model.at_once, self._costs(dtype)
        if costs and self._planned:
            load = self._planned[1]
            fits = memory.fitting(costs, load, int(gib * GIB), memory.most_useful(self.device, load.step))
        at_once = {f"{name}_at_once": n for name, n in fits._asdict().items()}
        at_once = {name: n if getattr(model, name) == "auto" else getattr(model, name) for name, n in at_once.items()}
        return self.settings.on_machine(device=str(self.device), dtype=dtype, memory_gib=gib, **at_once), why

    def _slow(self) -> str:
        """What a named dtype costs here; empty where nothing."""
        if self.settings.model.dtype != "bf16" or loading.has_bf16_units(self.device):
            return ""
        return "bf16: several times slower than fp32 here, as there are no matrix units for it; set model.dtype = 'auto'"

    def _dtype(self, budget: int) -> tuple[Dtype, str]:
        """The dtype, and why in words; measured where that is cheap and the result is open."""
        costs = self._costs("fp32")
        weights = costs.base if costs else 0
        if weights > budget:
            return "bf16", f"bf16: in fp32 the weights alone would take {weights / GIB:.1f} GiB"
        if not loading.has_bf16_units(self.device):
            return "fp32", "fp32: no matrix units for bf16 here"
        large, ratio = weights > _MEASURED_UP_TO, None
        if self._planned and not large:
            side_by_side = max(1, self._planned[1].cohorts)
            ratio = speed_of_bf16(self.settings, side_by_side * self.settings.model.at_once.members)
        if ratio is None:
            return "bf16", f"bf16: there are matrix units for it{', and the model is large' * large}; not measured"
        if ratio >= _WORTH_IT:
            return "bf16", f"bf16: {ratio:.1f} times as fast as fp32 here"
        return "fp32", f"fp32: bf16 is {ratio:.1f} times as fast here, not worth its rounding"

    def needs(self) -> dict[str, Any] | None:
        """How these (resolved) settings use the memory: ``budget``, ``base``, ``training`` ... in GiB, ``peak`` their most at
        any time, ``step_tokens`` a member's tokens in a training step, ``cohorts`` the sets of members that train side by side.
        None where memory is not planned.
        """
        if self._planned is None:
            return None
        model, (costs, load) = self.settings.model, self._planned
        costs = replace(costs, number=loading.choose_dtype(model.dtype, self.device).itemsize)
        parts = memory.split(costs, load, model.at_once)
        return {
            "budget": model.memory_gib,
            "peak": round(parts.peak / GIB, 6),
            **{name: round(size / GIB, 6) for name, size in asdict(parts).items()},
            **model.at_once._asdict(),
            "step_tokens": load.step,
            "cohorts": load.cohorts,
        }


def speed_of_bf16(settings: Settings, members: int) -> float | None:
    """How many times as fast bf16 is in a training step of so many members; None where the updates don't fit the model.

    Two or three seconds for the embedded base. Taken in turns, the best of a few: other programs use the processor too.
    """
    engines = {dtype: load_engine(settings.on_machine(dtype=dtype)) for dtype in ("fp32", "bf16")}
    best = dict.fromkeys(engines, math.inf)
    for _ in range(3):  # the first has first-use costs
        for dtype, engine in engines.items():
            updates = made_up_updates(settings, engine, members, 1)
            if engine.check(updates[0]):
                return None
            began = time.perf_counter()
            engine.apply(updates, on=None)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best["fp32"] / best["bf16"]


def resolve(settings: Settings) -> tuple[Settings, str]:
    """The settings with everything "auto" that depends on this machine decided, and why in words."""
    machines = _machines(settings)
    if settings.learner is None:
        return machines[0].resolved(capacity.usable_bytes(machines[0].device))
    shares = _shares(*machines)
    (writer, why), (learner, why_learner) = (m.resolved(share) for m, share in zip(machines, shares, strict=True))
    words = f"the writer {why or writer.model.dtype}; the learner {why_learner or learner.model.dtype}"
    return writer.model_copy(update={"learner": learner.model}), words


def _machines(settings: Settings) -> list[Machine]:
    """What each of the settings' models asks of the machine."""
    if settings.learner is None:
        return [Machine(settings)]
    return [Machine(settings, "writer"), Machine(settings.of_learner(), "learner")]


def _shares(writer: Machine, learner: Machine) -> tuple[int, int]:
    """Bytes that each of two models may plan with. On one device: what is left beside a budget that the settings name; where
    they name none, each one's weights and half of what is left beside both.
    """
    usable = capacity.usable_bytes(writer.device)
    if writer.device != learner.device:
        return usable, capacity.usable_bytes(learner.device)
    named = [gib for machine in (writer, learner) if (gib := machine.settings.model.memory_gib) != "auto"]
    if named:
        left = usable - sum(int(gib * GIB) for gib in named)
        return left, left
    rest = (usable - writer.weights - learner.weights) // 2
    return writer.weights + rest, learner.weights + rest


def needs(settings: Settings) -> dict[str, Any]:
    """What `Machine.needs` says of the model (``memory``) and, where another one learns, of that (``learner_memory``).

    Warns where less memory is free at the moment than the run plans with and may need (``peak`` is right within a factor of 2).
    """
    machines = dict(zip(("memory", "learner_memory"), _machines(settings), strict=False))
    found = {name: machine.needs() for name, machine in machines.items()}
    for device in {machine.device for machine in machines.values()}:
        here = [used for name, used in found.items() if used and machines[name].device == device]
        free = capacity.free_bytes(device) / GIB
        budget, peak = (sum(used[name] for used in here) for name in ("budget", "peak"))
        if free < min(budget, 2 * peak):
            warnings.warn(
                f"close other programs, or set model.memory_gib to less: only {free:.2g} GiB of memory is free on {device} at "
                f"the moment, and this run plans with {budget:g} GiB and needs about {peak:.2g}. Its settings stay as they are",
                stacklevel=2,
            )
    return found
