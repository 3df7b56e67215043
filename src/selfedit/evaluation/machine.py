"""Settings and the machine they meet: the engine they ask for, and what "auto" comes to here.

What `resolve` decides is written into the run's own settings, so a resumed run has the same plan whatever is free then.
"""

from __future__ import annotations

import math
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import AtOnce, Settings
from ..engine.base import Engine
from ..errors import ModelError, SelfEditError
from ..work import COHORTS_PER_CHUNK
from .planning import made_up_updates

if TYPE_CHECKING:  # importing torch takes seconds
    import torch
    from transformers import PreTrainedModel

    from ..engine.memory import Costs, Load

Dtype = Literal["fp32", "bf16"]
# Who a model is: the one that writes and learns, or one of two.
Role = Literal["both", "writer", "learner"]
# Bytes of fp32 weights beyond which loading them to measure takes longer than it is worth: large products gain from bf16.
_MEASURED_UP_TO = 1 << 30
_WORTH_IT = 1.1  # bf16 rounds more, and a tie should not be decided by noise

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "base"


def model_path(name: str) -> str:
    """The checkpoint that a model setting names; ``embedded`` is the base that ships with the package."""
    if name != "embedded":
        return name
    if not (EMBEDDED / "model.safetensors").exists():
        raise ModelError(f"the embedded base is missing ({EMBEDDED}); reinstall selfedit, or set model.path")
    return str(EMBEDDED)


def at_hand(settings: Settings) -> bool:
    """The models are on this machine: looking at it downloads nothing."""
    paths = [settings.model.path, settings.of_learner().model.path]
    return all(path == "embedded" or Path(path).is_dir() for path in paths)


def numerics(settings: Settings) -> AbstractContextManager[None]:
    """Everything that these settings compute goes in here: `deterministic`, of either model, holds inside."""
    models = (settings.model, settings.of_learner().model)
    if not any(model.deterministic for model in models):
        return nullcontext()
    from ..engine.determinism import deterministic

    return deterministic(next((model.device for model in models if not model.device.startswith("cpu")), "cpu"))


def load_engine(settings: Settings) -> Engine:
    """The engine that these settings ask for; what is still "auto" in them gets defaults, without measurements."""
    from ..engine.torch_engine import TorchEngine

    model = settings.model
    return TorchEngine.load(
        model_path(model.path),
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
        allow_pickle=model.allow_pickle,
        members_at_once=model.at_once.members,
        rows_at_once=model.at_once.rows,
        tokens_at_once=model.at_once.tokens,
        device=model.device,
        targets=settings.targets,
    )


@dataclass(frozen=True)
class _Shape:
    """A model's modules without their weights, and the run's load on them."""

    outline: PreTrainedModel
    load: Load

    @classmethod
    def of(cls, settings: Settings, device: torch.device, role: Role) -> _Shape:
        """Read from the checkpoint's config and code, which can raise anything."""
        import torch

        from ..engine.loading import load_outline
        from ..engine.memory import Load, adapter_size

        model, edits, inner, policy = settings.model, settings.edits, settings.inner, settings.algorithm
        outline = load_outline(
            model_path(model.path), trust_remote_code=model.trust_remote_code, allow_pickle=model.allow_pickle
        )
        # A passage, like a sample, is taken to be at most as long as the longest sample; a step sees at most one passage and
        # each sample of the edit.
        longest = getattr(outline.config.get_text_config(), "max_position_embeddings", None) or edits.max_new_tokens
        sequence = min(int(longest), edits.max_new_tokens)
        both = min(int(longest), 2 * sequence)
        step = min(inner.batch_size, edits.samples + 1) * sequence
        if inner.pad_to:
            step = inner.batch_size * min(int(longest), inner.pad_to)
        load = Load(
            sequence=sequence,
            step=step,
            adapter=adapter_size(outline, settings.targets, inner.rank),
            cohorts=min(COHORTS_PER_CHUNK, torch.get_num_threads()) if device.type == "cpu" else 1,
            banks=COHORTS_PER_CHUNK,
            m_step=policy.batch_size * both if role != "learner" else 0,
            policy=adapter_size(outline, policy.targets, policy.rank) if role != "learner" else 0,
        )
        if role == "writer":
            load = replace(load, cohorts=0, banks=0)
        shape = cls(outline, load)
        shape.costs(torch.float32, device)
        return shape

    def costs(self, dtype: torch.dtype, device: torch.device) -> Costs:
        """What the model takes in ``dtype``."""
        from ..engine.memory import Costs

        return Costs.of(self.outline, dtype, device)


class Machine:
    """What settings ask of the machine they meet: the model's shape and the run's load on it, without loading any weights."""

    def __init__(self, settings: Settings, role: Role = "both") -> None:
        """Read the model's shape. One that its own code does not tell without the weights is not planned for, with a warning.

        Raises:
            ModelError: it can't be read, or has no module of the targets.
            SettingsError: the device is not there.
        """
        from ..engine.loading import NoOutlineError, choose_device

        self.settings, self.device = settings, choose_device(settings.model.device)
        self.role: Role = role
        self._shape: _Shape | None = None
        try:
            self._shape = _Shape.of(settings, self.device, role)
        except Exception as error:
            if isinstance(error, SelfEditError) and not isinstance(error, NoOutlineError):
                raise
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        """Say how to plan by hand, where that is not done yet."""
        model, section = self.settings.model, "learner" if self.role == "learner" else "model"
        if "auto" in (model.members_at_once, model.rows_at_once, model.tokens_at_once):
            members, rows, tokens = model.at_once
            warnings.warn(
                f"{model.path}: its shape can't be told without its weights ({type(error).__name__}: {error}), so memory is not "
                f"planned: {members} adapters, {rows} texts and {tokens} scored tokens at once. If that is too much, or little, "
                f"set {section}.members_at_once, {section}.rows_at_once and {section}.tokens_at_once",
                stacklevel=3,
            )

    @property
    def weights(self) -> int:
        """Bytes of the base in the smallest dtype that it may get; 0 where its shape can't be told."""
        import torch

        dtype = torch.float32 if self.settings.model.dtype == "fp32" else torch.bfloat16
        return self._shape.costs(dtype, self.device).base if self._shape else 0

    def resolved(self, usable: int) -> tuple[Settings, str]:
        """The settings with nothing left for the machine to decide; ``usable``: bytes to plan with where they don't say."""
        from ..engine.memory import GIB

        gib = self.settings.model.memory_gib
        if gib == "auto":
            gib = max(1e-3, math.floor(1000 * usable / GIB) / 1000)
        dtype, why = self._dtype(int(gib * GIB))
        members, rows, tokens = self._at_once(dtype, int(gib * GIB))
        settings = self.settings.on_machine(
            device=str(self.device),
            dtype=dtype,
            memory_gib=gib,
            members_at_once=members,
            rows_at_once=rows,
            tokens_at_once=tokens,
        )
        return settings, why

    def _at_once(self, dtype: Dtype, budget: int) -> AtOnce:
        """What the settings name, and what fits where they don't (without a shape: `AtOnce`'s defaults)."""
        from ..engine.loading import DTYPES
        from ..engine.memory import fitting, most_useful

        model = self.settings.model
        if self._shape is None:
            return model.at_once
        costs, load = self._shape.costs(DTYPES[dtype], self.device), self._shape.load
        fits = fitting(costs, load, budget, most_useful(self.device, load.step))
        asked = (model.members_at_once, model.rows_at_once, model.tokens_at_once)
        return AtOnce(*(n if asked_n == "auto" else asked_n for n, asked_n in zip(fits, asked, strict=True)))

    def _dtype(self, budget: int) -> tuple[Dtype, str]:
        """The dtype, and why in words (empty where the settings name it); measured where that is cheap and open."""
        import torch

        from ..engine.loading import has_bf16_units
        from ..engine.memory import GIB

        if self.settings.model.dtype != "auto":
            return self.settings.model.dtype, ""
        weights = self._shape.costs(torch.float32, self.device).base if self._shape else 0
        if weights > budget:
            return "bf16", f"bf16: in fp32 the weights alone would take {weights / GIB:.1f} GiB"
        if not has_bf16_units(self.device):
            return "fp32", "fp32: no matrix units for bf16 here"
        if self._shape is None:
            return "bf16", "bf16: there are matrix units for it; not measured"
        if weights > _MEASURED_UP_TO:
            return "bf16", "bf16: there are matrix units for it, and the model is large; not measured"
        ratio = _speed_of_bf16(self.settings, max(1, self._shape.load.cohorts) * self.settings.model.at_once.members)
        if ratio is None:
            return "bf16", "bf16: there are matrix units for it; not measured"
        if ratio >= _WORTH_IT:
            return "bf16", f"bf16: {ratio:.1f} times as fast as fp32 here"
        return "fp32", f"fp32: bf16 is {ratio:.1f} times as fast here, not worth its rounding"

    def needs(self) -> dict[str, Any] | None:
        """How these (resolved) settings use the memory: ``budget``, ``base``, ``training`` ... in GiB, ``peak`` their most at
        any time, ``step_tokens`` a member's tokens in a training step, ``cohorts`` the sets of members that train side by side.
        None where memory is not planned.
        """
        from ..engine.loading import choose_dtype
        from ..engine.memory import GIB, split

        if self._shape is None:
            return None
        model, load = self.settings.model, self._shape.load
        parts = split(self._shape.costs(choose_dtype(model.dtype, self.device), self.device), load, model.at_once)
        return {
            "budget": model.memory_gib,
            "peak": round(parts.peak / GIB, 6),
            **{name: round(size / GIB, 6) for name, size in asdict(parts).items()},
            **model.at_once._asdict(),
            "step_tokens": load.step,
            "cohorts": load.cohorts,
        }


def _speed_of_bf16(settings: Settings, members: int) -> float | None:
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
            engine.fit(updates)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best["fp32"] / best["bf16"]


def resolve(settings: Settings) -> tuple[Settings, str]:
    """The settings with everything "auto" that depends on this machine decided, and why in words."""
    from ..engine.memory import usable_bytes

    if settings.learner is None:
        machine = Machine(settings)
        return machine.resolved(usable_bytes(machine.device))
    writer, learner = Machine(settings, "writer"), Machine(settings.of_learner(), "learner")
    shares = _shares(writer, learner)
    (resolved, why), (theirs, why_theirs) = writer.resolved(shares[0]), learner.resolved(shares[1])
    resolved = resolved.model_copy(update={"learner": theirs.model})
    told = f"the writer {why or resolved.model.dtype}; the learner {why_theirs or theirs.model.dtype}"
    return resolved, told


def _shares(writer: Machine, learner: Machine) -> tuple[int, int]:
    """Bytes that each of two models may plan with. On one device: what a budget that is named leaves; or else each one's
    weights, and half of what is left beside both.
    """
    from ..engine.memory import GIB, usable_bytes

    usable = usable_bytes(writer.device)
    if writer.device != learner.device:
        return usable, usable_bytes(learner.device)
    budgets = [machine.settings.model.memory_gib for machine in (writer, learner)]
    if budgets != ["auto", "auto"]:
        left = usable - sum(int(gib * GIB) for gib in budgets if gib != "auto")
        return left, left
    rest = (usable - writer.weights - learner.weights) // 2
    return writer.weights + rest, learner.weights + rest


def needs(settings: Settings) -> dict[str, Any]:
    """What `Machine.needs` says of the model (``memory``) and, where another one learns, of that (``learner_memory``)."""
    if settings.learner is None:
        return {"memory": Machine(settings).needs()}
    learner = Machine(settings.of_learner(), "learner")
    return {"memory": Machine(settings, "writer").needs(), "learner_memory": learner.needs()}
