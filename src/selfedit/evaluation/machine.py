"""Settings and the machine they meet: the engine they ask for, and what "auto" comes to here.

What `resolve` decides is written into the run's own settings, so a resumed run has the same plan whatever is free then.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..config import Settings
from ..engine.base import Engine
from ..errors import ModelError
from ..work import COHORTS_PER_CHUNK
from .planning import made_up_updates

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
    """The model is on this machine: looking at it downloads nothing."""
    return settings.model.path == "embedded" or Path(settings.model.path).is_dir()


def numerics(settings: Settings) -> AbstractContextManager[None]:
    """Everything that these settings compute goes in here: `model.deterministic` holds inside."""
    if not settings.model.deterministic:
        return nullcontext()
    from ..engine.determinism import deterministic

    return deterministic(settings.model.device)


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


class Machine:
    """What settings ask of the machine they meet: the model's shape and the run's load on it, without loading any weights."""

    def __init__(self, settings: Settings) -> None:
        """Read the model's shape.

        Raises:
            ModelError: it can't be read, or has no module of the targets.
            SettingsError: the device is not there.
        """
        import torch

        from ..engine.loading import choose_device, load_outline
        from ..engine.memory import Load, adapter_size

        model, edits, inner, policy = settings.model, settings.edits, settings.inner, settings.algorithm
        self.settings, self.device = settings, choose_device(model.device)
        self.outline = load_outline(
            model_path(model.path), trust_remote_code=model.trust_remote_code, allow_pickle=model.allow_pickle
        )
        # A passage, like an edit, is taken to be at most as long as the longest edit; a step sees at most one of each.
        longest = (
            getattr(self.outline.config.get_text_config(), "max_position_embeddings", None) or edits.max_new_tokens
        )
        sequence = min(int(longest), edits.max_new_tokens)
        both = min(int(longest), 2 * sequence)
        self.load = Load(
            sequence=sequence,
            step=min(inner.batch_size * sequence, 2 * sequence),
            adapter=adapter_size(self.outline, settings.targets, inner.rank),
            cohorts=min(COHORTS_PER_CHUNK, torch.get_num_threads()) if self.device.type == "cpu" else 1,
            banks=COHORTS_PER_CHUNK,
            m_step=policy.batch_size * both,
            policy=adapter_size(self.outline, policy.targets, policy.rank),
        )

    def resolved(self) -> tuple[Settings, str]:
        """The settings with nothing left for the machine to decide."""
        from ..engine.loading import DTYPES
        from ..engine.memory import GIB, Costs, fitting, most_useful, usable_bytes

        model, gib = self.settings.model, self.settings.model.memory_gib
        if gib == "auto":
            gib = max(1e-3, math.floor(1000 * usable_bytes(self.device) / GIB) / 1000)
        dtype, why = self._dtype(int(gib * GIB))
        costs = Costs.of(self.outline, DTYPES[dtype], self.device)
        most = most_useful(self.device, self.load.step)
        fits = fitting(costs, self.load, int(gib * GIB), most)
        asked = (model.members_at_once, model.rows_at_once, model.tokens_at_once)
        members, rows, tokens = (n if asked_n == "auto" else asked_n for n, asked_n in zip(fits, asked, strict=True))
        settings = self.settings.on_machine(
            device=str(self.device),
            dtype=dtype,
            memory_gib=gib,
            members_at_once=members,
            rows_at_once=rows,
            tokens_at_once=tokens,
        )
        return settings, why

    def _dtype(self, budget: int) -> tuple[Literal["fp32", "bf16"], str]:
        """The dtype, and why in words (empty where the settings name it); measured where that is cheap and open."""
        import torch

        from ..engine.loading import has_bf16_units
        from ..engine.memory import GIB, Costs

        if self.settings.model.dtype != "auto":
            return self.settings.model.dtype, ""
        weights = Costs.of(self.outline, torch.float32, self.device).base
        if weights > budget:
            return "bf16", f"bf16: in fp32 the weights alone would take {weights / GIB:.1f} GiB"
        if not has_bf16_units(self.device):
            return "fp32", "fp32: no matrix units for bf16 here"
        if weights > _MEASURED_UP_TO:
            return "bf16", "bf16: there are matrix units for it, and the model is large; not measured"
        ratio = _speed_of_bf16(self.settings, 2 * self.load.cohorts)
        if ratio is None:
            return "bf16", "bf16: there are matrix units for it; not measured"
        if ratio >= _WORTH_IT:
            return "bf16", f"bf16: {ratio:.1f} times as fast as fp32 here"
        return "fp32", f"fp32: bf16 is {ratio:.1f} times as fast here, not worth its rounding"

    def needs(self) -> dict[str, Any]:
        """How these (resolved) settings use the memory: ``budget``, ``base``, ``training`` ... in GiB, ``peak`` their most at
        any time, ``step_tokens`` a member's tokens in a training step, ``cohorts`` the sets of members that train side by side.
        """
        from ..engine.loading import choose_dtype
        from ..engine.memory import GIB, Costs, split

        model = self.settings.model
        costs = Costs.of(self.outline, choose_dtype(model.dtype, self.device), self.device)
        parts = split(costs, self.load, model.at_once)
        return {
            "budget": model.memory_gib,
            "peak": round(parts.peak / GIB, 6),
            **{name: round(size / GIB, 6) for name, size in asdict(parts).items()},
            **model.at_once._asdict(),
            "step_tokens": self.load.step,
            "cohorts": self.load.cohorts,
        }


def _speed_of_bf16(settings: Settings, members: int) -> float | None:
    """How many times as fast bf16 is in a small training step; None where the settings' updates don't fit the model.

    A second or two for the embedded base. Taken in turns, the best of a few: other programs use the processor too.
    """
    engines = {dtype: load_engine(settings.on_machine(dtype=dtype, members_at_once=2)) for dtype in ("fp32", "bf16")}
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
    return Machine(settings).resolved()
