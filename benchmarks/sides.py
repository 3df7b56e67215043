"""The sides of the comparison: each makes adapters of edits and answers their probes, timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.peft_baseline import Baseline, Edited, Padding, run_baseline
from benchmarks.peft_reference import load_base, peft_fit
from selfedit import stats
from selfedit.config import AtOnce, make_settings
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.engine.base import AdapterBank
from selfedit.engine.model.loading import DTYPES, Dtype, has_bf16_units
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.peft_parity import distance
from selfedit.rewards.examiner import Examiner
from selfedit.types import Answer

from .turns import say
from .workload import MAX_NEW_TOKENS, Case, draw_cases, edits_of, settings_for, targets_of, update_for

Setup = tuple[Dtype, str]  # dtype and attention
WIDE = 2048


def setups() -> tuple[Setup, ...]:
    """A baseline computes in whichever of these is its fastest; the engine chooses its attention itself.

    bf16 is left out where the processor has no matrix units for it: it is an order of magnitude slower there.
    """
    return tuple((dtype, attention) for dtype in dtypes() for attention in ("sdpa", "eager"))


def dtypes() -> tuple[Dtype, ...]:
    """Those worth trying on this processor."""
    return ("fp32", "bf16") if has_bf16_units(torch.device("cpu")) else ("fp32",)


class Sides:
    """One model and one inner loop: the engine and the baselines on the same edits, from the same initial adapters."""

    def __init__(self, source: Path, model: str, loop: str, n: int, max_steps: int | None = None) -> None:
        self.source, self.model, self.loop, self.targets = source, model, loop, targets_of(model, loop)
        # One model a dtype and attention, loaded when first asked for.
        self.engine, self.base = cache(self._load_engine), cache(self._load_base)
        self.cases = draw_cases(self.engine("fp32"), model, loop, n, max_steps)

    def _load_engine(self, dtype: Dtype) -> TorchEngine:
        at_once = make_settings({}).model.at_once.members
        return TorchEngine.load(
            str(self.source), dtype=dtype, device="cpu", targets=self.targets, at_once=AtOnce(members=at_once)
        )

    def _load_base(self, dtype: Dtype, attention: str) -> Any:
        return load_base(self.source, DTYPES[dtype], attention)

    @property
    def reaches_wide(self) -> bool:
        """Whether the model can be run on the public code's 2 048 tokens: rotary positions have no last one."""
        config = self.engine("fp32").model.config
        rotary = getattr(config, "rope_parameters", None) is not None
        return rotary or int(getattr(config, "max_position_embeddings", 0)) >= WIDE

    def edit_many(self, dtype: Dtype, cases: Sequence[Case]) -> tuple[AdapterBank, list[list[str]]]:
        """All edits at once by the engine: the bank and its answers."""
        engine = self.engine(dtype)
        bank = engine.apply([case.update for case in cases], on=None)
        prompts_K = [case.prompts for case in cases]
        return bank, engine.answer(prompts_K, on=None, members=bank, max_new_tokens=MAX_NEW_TOKENS)

    def edit_one(self, name: str, setup: Setup, case: Case) -> Edited:
        """One edit by a baseline (``seal_2048``: SEAL's padded to 2 048 tokens)."""
        wide = Padding(WIDE, in_loss=True) if name == "seal_2048" else None
        baseline: Baseline = "seal" if name == "seal_2048" else name  # type: ignore[assignment]
        return run_baseline(
            baseline,
            self.base(*setup),
            case.update,
            self.start(case),
            case.prompts,
            max_new_tokens=MAX_NEW_TOKENS,
            padding=wide,
        )

    def start(self, case: Case) -> Any:
        """The adapter that every side starts an edit from."""
        one = case.update
        layout = find_layout(self.engine("fp32").model, self.targets, "")
        return initial_adapter(layout, one.rank, one.alpha, one.seed)

    def engine_seconds(self, dtype: Dtype, cases: Sequence[Case]) -> float:
        """Seconds per edit of the engine, all of ``cases`` at once."""
        began = time.perf_counter()
        self.edit_many(dtype, cases)
        return (time.perf_counter() - began) / len(cases)

    def baseline_seconds(self, name: str, setup: Setup, cases: Sequence[Case]) -> float:
        """Seconds per edit of a baseline, one of ``cases`` after another."""
        self.base(*setup)
        began = time.perf_counter()
        for case in cases:
            self.edit_one(name, setup, case)
        return (time.perf_counter() - began) / len(cases)

    def best_engine_dtype(self, k: int, tries: int) -> tuple[Dtype, dict[str, float]]:
        """The engine's faster dtype at ``k`` edits at once, and the best of ``tries`` seconds of each, on a short training."""
        cases = shortened(self.cases[:k])
        tried = {dtype: min(self.engine_seconds(dtype, cases) for _ in range(tries)) for dtype in dtypes()}
        return min(dtypes(), key=tried.__getitem__), {str(dtype): seconds for dtype, seconds in tried.items()}

    def best_setup(self, name: str, tries: int) -> tuple[Setup, dict[str, float]]:
        """A baseline's fastest dtype and attention, and the best of ``tries`` seconds of each, on a short training."""
        wide, possible = name == "seal_2048", setups()
        if wide:  # explicit attention over 2 048 tokens would keep gigabytes of scores
            possible, tries = tuple((dtype, "sdpa") for dtype in dtypes()), 1
        cases = shortened(self.cases[:1], 1 if wide else None)
        tried = {s: min(self.baseline_seconds(name, s, cases) for _ in range(tries)) for s in possible}
        return min(tried, key=tried.__getitem__), {" ".join(setup): seconds for setup, seconds in tried.items()}


def shortened(cases: Sequence[Case], steps: int | None = None) -> list[Case]:
    """The same edits with an eighth of the steps (or ``steps``) and no probes: enough to see which setup is faster."""
    return [Case(replace(case.update, steps=steps or max(2, case.update.steps // 8)), []) for case in cases]


def agreement(sides: Sides, n: int) -> tuple[dict[str, float], float]:
    """In fp32 and at lr 1e-3, on ``n`` edits: each side's largest relative distance from PEFT's update, and the share of
    greedy answers that all sides give alike.
    """
    cases = [Case(replace(case.update, lr=1e-3), case.prompts) for case in sides.cases[:n]]
    engine, setup = sides.engine("fp32"), setups()[0]
    bank, answers = sides.edit_many("fp32", cases)
    errors: dict[str, float] = {"trainer": 0.0, "lean": 0.0, "engine": 0.0}
    equal = asked = 0
    for k, case in enumerate(cases):
        start = sides.start(case)
        expected, _ = peft_fit(sides.base(*setup), case.update, start, start.target_modules)
        edited = {name: sides.edit_one(name, setup, case) for name in ("trainer", "lean")}
        adapters = {"engine": bank.adapter(k), **{name: one.adapter for name, one in edited.items()}}
        for name, adapter in adapters.items():
            errors[name] = max(errors[name], distance(adapter, expected))  # type: ignore[arg-type]
        texts = [[engine.decode(ids) for ids in one.answers] for one in edited.values()]
        equal += sum(len(set(row)) == 1 for row in zip(answers[k], *texts, strict=True))
        asked += len(case.prompts)
    return errors, equal / asked


def quality(by_loop: Mapping[str, Sides], dtype: Dtype, n: int) -> dict[str, Any]:
    """What is known of ``n`` passages after each loop on the engine: the share of right answers (offline grader) and the gold
    answers' log-likelihood; each loop's difference from the first.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for loop, sides in by_loop.items():
        say(f"what the {loop} loop teaches")
        settings, engine = settings_for(sides.model), sides.engine(dtype)
        edits, examiner = edits_of(sides.model, n), Examiner(engine, settings)
        rows: list[tuple[Answer, ...]] = []
        for k in range(0, n, 8):
            some = edits[k : k + 8]
            bank = engine.apply([update_for(engine, sides.model, loop, *one, seed=k + i) for i, one in enumerate(some)], on=None)
            rows += examiner.answers([task for task, _ in some], on=None, members=bank)
        found[loop] = {
            "accuracy": [fmean(answer.correct for answer in row) for row in rows],
            "logprob": [fmean(answer.logprob for answer in row) for row in rows],
        }
    first = found[next(iter(found))]
    return {
        loop: {
            what: stats.as_row(stats.bootstrap(values))
            | {"less": stats.as_row(stats.bootstrap([a - b for a, b in zip(values, first[what], strict=True)]))}
            for what, values in of.items()
        }
        for loop, of in found.items()
    } | {"n_passages": n}


def parameters(sides: Sides) -> int:
    """Parameters of the base; tied ones count once."""
    return sum(p.numel() for p in sides.engine("fp32").model.parameters())
