"""What works with a model, tried: loading, batches, texts, greedy answers, adapters, memory and speed."""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from ..config import Settings, make_settings
from ..engine.model.loading import progress_for_long_loads
from ..engine.planning.capacity import free_bytes
from ..engine.planning.memory import GIB
from ..engine.torch_engine import TorchEngine
from ..errors import ModelError, SelfEditError
from ..models.shelf import Tell
from ..types import TrainSequence, Update
from .machine import model_path, needs, resolve
from .peft_parity import distance, peft_logprobs, peft_trained

_STARTS = (
    "The history of",
    "Questions about",
    "Once upon a time, near",
    "The main reason for",
    "Three facts about",
    "A recipe for",
)
_TOPICS = ("the moon", "bread", "old maps", "a small harbour", "glass", "winter storms", "bees", "the number 12", "trains")
_NEW = 24  # tokens that are compared per prompt
_STEPS, _SEQUENCES, _LR, _RANK = 6, 2, 1e-3, 8
_ATTENTIONS = ("eager", "sdpa")  # of transformers: two ways to compute the same
_TOKENS_PER_EDIT = 4000  # of 10 epochs on a passage and its edit, as in the preset clean
# How far two ways of computing the same may lie apart, in fp32 and in bf16: updates (relative), log-probabilities (nats).
_APART = {"float32": (2e-2, 1e-2), "bfloat16": (0.3, 0.5)}


@dataclass(frozen=True)
class Finding:
    """One line of a check. ``numbers``: the same for programs."""

    name: str
    ok: bool
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


def check_model(path: str, *, prompts: int, tell: Tell, dtype: str = "auto") -> list[Finding]:
    """Load the model that ``path`` names in ``dtype``, try it with ``prompts`` prompts, and say what works.

    Raises:
        ModelError: there is no such model; one that is there and can't be used is a finding.
    """
    source = model_path(path)
    settings = make_settings({"model": {"path": path, "dtype": dtype}}, "model check")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        tell("loading the model, and measuring which dtype is faster", 0, 0)
        try:
            check = _Check(source, *resolve(settings))
        except SelfEditError as error:
            return [Finding("model", False, str(error))]
        findings = list(check.findings(prompts, tell))
    notes = dict.fromkeys(str(warning.message) for warning in warned if _ours(warning))
    return [*findings, *(Finding("note", True, note) for note in notes)]


def _ours(warning: warnings.WarningMessage) -> bool:
    """A warning for the user, not one that is about the code of a library."""
    return issubclass(warning.category, UserWarning) and "torch" not in warning.filename.split("/")


class _Check:
    """One model under trial."""

    def __init__(self, source: str, settings: Settings, why: str) -> None:
        began = time.perf_counter()
        model = settings.model
        self.source, self.settings, self.why = source, settings, why
        self.engine = TorchEngine.load(
            source, dtype=model.dtype, device=model.device, at_once=model.at_once, targets=model.targets
        )
        self.load_seconds = time.perf_counter() - began
        self.numbers = sum(parameter.numel() for parameter in self.engine.model.parameters())
        self.far, self.nats = _APART.get(self.engine.dtype, _APART["bfloat16"])

    def findings(self, prompts: int, tell: Tell) -> Iterator[Finding]:
        """Each try, whatever became of those before."""
        tries: Sequence[tuple[str, str, Callable[[], Finding]]] = (
            ("model", "", self._model),
            ("targets", "", self._targets),
            ("dtype", "", self._dtype),
            ("templates", "", self._templates),
            ("stop tokens", "", self._stops),
            (
                "generate",
                f"comparing greedy answers with those of transformers on {prompts} prompts",
                lambda: self._greedy(prompts),
            ),
            ("batched", "training several adapters at once, and alone", self._batched),
            ("adapters", "training the same adapter in another way", self._adapters),
            ("speed", "measuring writing and scoring", self._speed),
            ("memory", "", self._memory),
        )
        for name, doing, attempt in tries:
            if doing:
                tell(doing, 0, 0)
            try:
                yield attempt()
            except Exception as error:  # the model's own code can raise anything, and the other tries still tell something
                reason = " ".join(str(error).split())[:300]
                yield Finding(name, False, reason if isinstance(error, SelfEditError) else f"{type(error).__name__}: {reason}")

    def _model(self) -> Finding:
        engine, model = self.engine, self.engine.model
        text = (
            f"{type(model).__name__}, {self.numbers / 1e6:.0f} million parameters, vocabulary {engine.body.vocabulary}, "
            f"window {engine.window} tokens; loaded in {self.load_seconds:.0f} s"
        )
        return Finding(
            "model", True, text, {"architecture": model.config.model_type, "parameters": self.numbers, "window": engine.window}
        )

    def _targets(self) -> Finding:
        targets = self.engine.layout.targets
        reached = sum(target.d_in * target.d_out for target in targets)
        kinds = dict.fromkeys(target.path.rpartition(".")[2] for target in targets)
        share = reached / self.numbers
        text = f"{self.settings.targets}: {len(targets)} modules ({', '.join(kinds)}) with {share:.0%} of the weights"
        return Finding("targets", True, text, {"modules": len(targets), "share_of_weights": round(share, 4)})

    def _dtype(self) -> Finding:
        return Finding("dtype", True, self.why or self.engine.dtype, {"dtype": self.engine.dtype})

    def _templates(self) -> Finding:
        template = self.engine.tokenizer.chat_template
        if not template:
            return Finding("templates", True, "no chat template: use templates = 'general'", {"chat": False})
        shown = self.engine.tokenizer.apply_chat_template([{"role": "user", "content": "Hello."}], tokenize=False)
        said = {
            "its own system message": "system" in shown,
            "a switch for thinking (enable_thinking)": "enable_thinking" in template,
            "today's date": "strftime_now" in template,
        }
        self.engine.encode_chat("Hello.")
        found = [name for name, there in said.items() if there]
        text = "chat template" + (f" with {', '.join(found)}" if found else "") + "; use templates = 'chat'"
        return Finding("templates", True, text, {"chat": True, "thinking": "enable_thinking" in template})

    def _stops(self) -> Finding:
        names = [self.engine.tokenizer.convert_ids_to_tokens(token) for token in sorted(self.engine.stops)]
        return Finding("stop tokens", True, ", ".join(map(str, names)), {"ids": sorted(self.engine.stops)})

    @cached_property
    def _other(self) -> PreTrainedModel | None:
        """The model once more, as transformers loads it; None where memory does not hold it twice."""
        weights = sum(parameter.nbytes for parameter in self.engine.model.parameters())
        if free_bytes(self.engine.body.device) < 1.5 * weights:
            return None
        body = self.engine.body
        with progress_for_long_loads(self.source):
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.source, dtype=body.dtype).to(body.device)
        return model.requires_grad_(False).eval()

    def _prompts(self, n: int) -> list[list[int]]:
        """So many prompts, no two the same: as turns where the model knows them."""
        pairs = [(start, topic) for topic in _TOPICS for start in _STARTS]
        texts = [
            f"{start} {topic}" + (f", part {i // len(pairs)}" if i >= len(pairs) else "")
            for i in range(n)
            for start, topic in [pairs[i % len(pairs)]]
        ]
        encode = self.engine.encode_chat if self.engine.tokenizer.chat_template else self.engine.encode_prompt
        return [encode(text) for text in texts]

    def _greedy(self, n: int) -> Finding:
        asked = self._prompts(n)
        # A nucleus that holds one token makes sampling greedy, and gives the tokens.
        ours = [list(c.token_ids) for c in self._sampled(asked, _NEW, top_p=1e-6)]
        model = self._other or self.engine.model
        usual, stops = model.generation_config, sorted(self.engine.stops)
        # In place of the model's own, which may punish repetitions.
        model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=_NEW, eos_token_id=stops, pad_token_id=stops[0]
        )
        try:
            theirs = _generated(model, asked)
        finally:
            model.generation_config = usual
        off = [(i, a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        gaps = [_gap(model, asked[i], a, b) for i, a, b in off]
        wrong = sum(gap > self.nats for gap in gaps)
        text = f"{n - len(off)} of {n} greedy answers equal those of transformers' generate, token by token"
        if off:
            text += f"; the others part where two tokens are {max(gaps):.2g} nats apart"
        return Finding("generate", not wrong, text, {"prompts": n, "equal": n - len(off), "largest_gap": max(gaps, default=0.0)})

    def _sampled(self, prompts: Sequence[Sequence[int]], new: int, top_p: float) -> Sequence[Any]:
        seeds = range(len(prompts))
        return self.engine.sample(prompts, seeds, on=None, max_new_tokens=new, temperature=1.0, top_p=top_p)

    def _updates(self, n: int) -> list[Update]:
        """Updates on a few short texts each."""
        texts = [
            f"{start} {topic} is told in many books, and every one of them says something else."
            for topic in _TOPICS
            for start in _STARTS
        ]
        sequences = [TrainSequence.whole(self.engine.encode_prompt(text)[: self.engine.window]) for text in texts]
        first = Update((), _STEPS, _SEQUENCES, _LR, _RANK, 2.0 * _RANK, 0)
        some = [tuple(sequences[(_SEQUENCES * i + j) % len(sequences)] for j in range(_SEQUENCES)) for i in range(n)]
        return [replace(first, sequences=own, seed=i) for i, own in enumerate(some)]

    def _batched(self) -> Finding:
        members = max(2, min(4, self.settings.model.at_once.members))
        updates = [replace(update, steps=2) for update in self._updates(members)]  # as many as show a difference
        self.engine.apply([replace(updates[0], steps=1)], on=None)  # first-use costs
        began = time.perf_counter()
        together = self.engine.apply(updates, on=None)
        seconds = time.perf_counter() - began
        tokens = sum(together.trained_tokens)
        if together.failed:
            return Finding("batched", False, f"training failed: {next(iter(together.failed.values()))}")
        began = time.perf_counter()
        alone = [self.engine.apply([update], on=None).adapter(0) for update in updates[:2]]
        ratio = (time.perf_counter() - began) / 2 * members / seconds
        apart = max(distance(together.adapter(k), one) for k, one in enumerate(alone))
        text = (
            f"{members} adapters trained at once lie {apart:.1g} (relative) from those trained alone, and are "
            f"{ratio:.1f} times as fast; fit "
            f"{tokens / seconds:.0f} tokens/s, {_TOKENS_PER_EDIT * seconds / tokens:.1f} s per edit of {_TOKENS_PER_EDIT} tokens"
        )
        numbers = {
            "members": members,
            "distance": apart,
            "ratio": round(ratio, 2),
            "fit_tokens_per_second": round(tokens / seconds, 1),
        }
        numbers["seconds_per_edit"] = round(_TOKENS_PER_EDIT * seconds / tokens, 2)
        return Finding("batched", apart <= self.far, text, numbers)

    def _adapters(self) -> Finding:
        (update,) = self._updates(1)
        trained = self.engine.apply([update], on=None).adapter(0)
        if importlib.util.find_spec("peft") is None or self._other is None:
            why = "memory holds the model only once" if importlib.util.find_spec("peft") else "peft is not installed"
            return Finding(
                "adapters", True, f"not compared with PEFT ({why}); see 'batched' for the same one at a time", {"peft": False}
            )
        start = self.engine.initial_adapter(rank=update.rank, alpha=update.alpha, seed=update.seed)
        theirs = [peft_trained(other, update, start) for other in _by_attention(self._other)]
        apart = distance(trained, theirs[0])
        itself = distance(theirs[1], theirs[0]) if len(theirs) > 1 else None
        pairs = [(list(s.ids[:1]), list(s.ids[1:])) for s in update.sequences]
        (scored,) = self.engine.score([pairs], on=trained)
        expected = peft_logprobs(self._other, trained, [s.ids for s in update.sequences])
        off = max(abs(a - b) for ours, ref in zip(scored, expected, strict=True) for a, b in zip(ours.logprobs, ref, strict=True))
        text = f"PEFT's own training lies {apart:.2g} (relative) from ours"
        text += f", and {itself:.2g} between two kinds of attention" if itself is not None else ""
        text += f"; PEFT computes with our adapter what we do, within {off:.1g} nats"
        numbers = {"peft": True, "distance": apart, "distance_of_attentions": itself, "nats": off}
        return Finding("adapters", apart <= self.far and off <= self.nats, text, numbers)

    def _speed(self) -> Finding:
        asked = self._prompts(16)
        self._sampled(asked[:2], 2, top_p=1.0)  # first-use costs
        began = time.perf_counter()
        written = sum(len(c.token_ids) for c in self._sampled(asked, 32, top_p=1.0))
        decode = written / (time.perf_counter() - began)
        sequences = [s for update in self._updates(8) for s in update.sequences]
        began = time.perf_counter()
        self.engine.sequence_loss(sequences, on=None)
        score = sum(len(s.ids) for s in sequences) / (time.perf_counter() - began)
        text = f"writing 16 texts at once {decode:.0f} tokens/s, scoring {score:.0f} tokens/s (fit: see 'batched')"
        return Finding(
            "speed", True, text, {"decode_tokens_per_second": round(decode, 1), "score_tokens_per_second": round(score, 1)}
        )

    def _memory(self) -> Finding:
        planned = needs(self.settings)["memory"]
        if self.engine.body.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.engine.body.device) / GIB
        else:
            import resource  # not on Windows

            unit = 1 if sys.platform == "darwin" else 1024
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
        twice = " with the model in it twice" if self._other is not None else ""
        text = f"this check used {used:.2g} GiB{twice}"
        if planned:
            text += f"; a run with default settings needs {planned['peak']:.2g} of {planned['budget']:g} GiB"
            text += f", {planned['base']:.2g} of them for the base"
        fits = not planned or planned["peak"] <= planned["budget"]
        return Finding("memory", fits, text, {"used_gib": round(used, 3), **(planned or {})})


def _by_attention(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model as it is, and with the other kinds of attention that it has."""
    usual = model.config._attn_implementation
    yield model
    for name in _ATTENTIONS:
        with suppress(ValueError):
            model.set_attn_implementation(name)
        if model.config._attn_implementation == name != usual:
            yield model
        model.set_attn_implementation(usual)


def _generated(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """What the model's own `generate` writes after each prompt: together where they are equally long, so without padding."""
    written: list[list[int]] = [[] for _ in prompts]
    stops = model.generation_config.eos_token_id  # type: ignore[union-attr]
    for length in {len(ids) for ids in prompts}:
        rows = [i for i, ids in enumerate(prompts) if len(ids) == length]
        tokens = torch.tensor([list(prompts[i]) for i in rows], device=model.device)
        texts = model.generate(tokens, attention_mask=torch.ones_like(tokens))[:, length:]  # type: ignore[operator]
        for i, answer in zip(rows, texts.tolist(), strict=True):
            ends = [at for at, token in enumerate(answer) if token in stops]
            written[i] = answer[: ends[0] + 1] if ends else answer
    return written


@torch.no_grad()
def _gap(model: PreTrainedModel, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> float:
    """How many nats apart, for transformers, the first two tokens are in which two answers differ."""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        raise ModelError("an answer ends earlier than that of transformers, without another token in its place")
    logits = model(input_ids=torch.tensor([[*prompt, *theirs[:at]]], device=model.device)).logits[0, -1].float()
    return abs(float(logits[theirs[at]] - logits[ours[at]]))
