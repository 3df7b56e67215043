"""How much memory a run needs, from its model's shape, and how much of everything fits at once.

A model of costs: it counts the tensors that grow (weights, adapters, activations, logits, caches). Measured on models of real
widths it is within 30 % of what a process takes for training, and within a factor of 2 for scoring and writing, which need less
(`tests/engine/test_memory.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from ...config import AtOnce
from ..adapters.lora import widths
from ..adapters.targets import find_layout, linear_modules
from ..inference.cache import with_room
from ..inference.score import LOGITS_A_TOKEN
from ..model.body import LOGITS_AT_ONCE

GIB = 1 << 30
_FP32 = 4
# On a GPU a step should have about so many tokens, in at most so many members (not measured yet).
_GPU_TOKENS, _GPU_MEMBERS = 16384, 64
# On a CPU freed blocks stay in the C library's heap: a process takes so many times what its tensors need (measured).
_HEAP = 1.25
_LOGIT_COPIES = 3  # logits, their softmax, and their gradient or what the heap keeps
_SAMPLING_COPIES = 12  # numbers of 8 bytes: fixed-point probabilities, and their sorted nucleus


def adapter_size(model: PreTrainedModel, targets: str | Sequence[str], rank: int) -> int:
    """Numbers in one adapter."""
    return replace(find_layout(model, targets, model.name_or_path), rank=rank).width


@dataclass(frozen=True)
class Costs:
    """Bytes that a model takes, by what is done with it. Lengths are in tokens.

    ``weights``: numbers in the base. ``linear``: input and output widths of its linear modules but the head, added up; about
    what a token leaves behind for the backward pass. ``number``: bytes of a number in its dtype. ``keeps_scores``: attention
    weights are kept for the backward pass (fused CUDA kernels keep none).
    """

    weights: int
    linear: int
    widest: int
    width: int
    layers: int
    heads: int
    cached: int
    vocabulary: int
    number: int
    keeps_scores: bool

    @classmethod
    def of(cls, model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> Costs:
        """The costs of a model in ``dtype`` on ``device``; the model itself may be an outline without weights."""
        config = model.config.get_text_config()
        modules = linear_modules(model).values()
        heads, width = int(config.num_attention_heads), int(config.hidden_size)
        groups = int(getattr(config, "num_key_value_heads", None) or heads)
        return cls(
            weights=sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()]),
            linear=sum(sum(widths(module)) for module in modules),
            widest=max(max(widths(module)) for module in modules),
            width=width,
            layers=int(config.num_hidden_layers),
            heads=heads,
            cached=2 * int(config.num_hidden_layers) * groups * int(getattr(config, "head_dim", None) or width // heads),
            vocabulary=int(config.vocab_size),
            number=dtype.itemsize,
            keeps_scores=device.type != "cuda",
        )

    @property
    def base(self) -> int:
        """The frozen weights."""
        return self.weights * self.number

    def member(self, size: int) -> int:
        """A member in training, of ``size`` numbers: fp32 weights, gradient and two moments, and its copy in the base's dtype."""
        return size * (4 * _FP32 + (self.number if self.number != _FP32 else 0))

    def trained_token(self, length: int) -> int:
        """What backward needs of a token in a training step, in a sequence of ``length``."""
        norms = 2 * self.layers * self.width * _FP32 if self.number != _FP32 else 0  # norms compute in fp32
        scores = self.layers * self.heads * length * self.number if self.keeps_scores else 0
        return self._held(self.linear * self.number + norms + scores)

    def trained_logits(self, tokens: int) -> int:
        """The logits that exist at once in a forward of so many tokens with gradients."""
        return self._held(_LOGIT_COPIES * min(tokens * self.vocabulary, LOGITS_AT_ONCE) * _FP32)

    def forward(self, tokens: int, length: int) -> int:
        """A forward of so many tokens with gradients, in sequences of ``length``."""
        return tokens * self.trained_token(length) + self.trained_logits(tokens)

    def _held(self, tensors: float) -> int:
        """What a process takes for tensors of so many bytes."""
        return int(tensors * (_HEAP if self.keeps_scores else 1))

    def passing_token(self, length: int) -> int:
        """A token in a pass without gradients: one layer's tensors at a time."""
        scores = 2 * self.heads * length if self.keeps_scores else 0
        return self._held((2 * self.width + 4 * self.widest + scores) * self.number)

    def scored_token(self, length: int) -> int:
        """A token in a pass that scores, with its share of the logits that are kept at once."""
        return self.passing_token(length) + self._held(_LOGIT_COPIES * min(self.vocabulary, LOGITS_A_TOKEN) * _FP32)

    def decoded_row(self, prompt: int, new: int) -> int:
        """A text being written: its keys and values in roomy buffers, and the larger of reading the prompt and fp64 sampling."""
        sampling = self._held(_SAMPLING_COPIES * 8 * self.vocabulary)
        return self._held(with_room(prompt + new) * self.cached * self.number) + max(
            prompt * self.passing_token(prompt), sampling
        )


@dataclass(frozen=True)
class Load:
    """What a run asks of its model. ``sequence``: tokens of a long sequence; ``step``: of a member's minibatch.

    ``adapter``: numbers in a member's adapter. ``cohorts`` sets of members train at the same time, and the adapters of
    ``banks`` sets are kept until all of them were tested. ``m_step`` tokens and ``policy`` numbers: the policy's own training.
    Of two models, the one that writes has no cohorts and banks, and the one that learns no M-step: they are 0.
    """

    sequence: int
    step: int
    adapter: int
    cohorts: int
    banks: int
    m_step: int
    policy: int


@dataclass(frozen=True)
class Split:
    """Bytes by what they are for; of all but ``base`` only one is needed at a time."""

    base: int
    training: int
    scoring: int
    decoding: int
    m_step: int

    @property
    def peak(self) -> int:
        """The most that is needed at any time."""
        return self.base + max(self.training, self.scoring, self.decoding, self.m_step)


def _gradient_token(costs: Costs, load: Load) -> int:
    """Bytes of one more token in a pass with gradients, of the policy or of each cohort, but its logits."""
    policy = costs.trained_token(2 * load.sequence) if load.m_step else 0
    return max(1, policy, load.cohorts * costs.trained_token(load.sequence))


def _member(costs: Costs, load: Load) -> int:
    """Bytes of one more member, but its tokens."""
    return load.cohorts * costs.member(load.adapter) + load.banks * load.adapter * _FP32


def fitting(costs: Costs, load: Load, budget: int, most: AtOnce) -> AtOnce:
    """As much at once as fits into ``budget`` bytes: at least one of each, at most ``most``. Members get at most half of it, the
    tokens of their passes the rest.
    """
    free, member, token = max(0, budget - costs.base), _member(costs, load), _gradient_token(costs, load)
    members = max(1, min(free // 2 // max(1, member), most.members))
    rest, cohorts = free - max(costs.member(load.policy), members * member), max(1, load.cohorts)
    # Their logits grow with the tokens up to a limit, in each cohort.
    few = rest // (token + cohorts * costs.trained_logits(1))
    many = (rest - cohorts * costs.trained_logits(LOGITS_AT_ONCE)) // token
    tokens = min(free // costs.scored_token(load.sequence), max(few, many))
    found = AtOnce(members, free // costs.decoded_row(load.sequence, load.sequence), tokens)
    return AtOnce(*(max(1, min(n, limit)) for n, limit in zip(found, most, strict=True)))


def split(costs: Costs, load: Load, at_once: AtOnce) -> Split:
    """The memory that a run with this much at once needs. A pass with gradients takes at least one sequence."""
    members, rows, tokens = at_once
    step, m_step = min(members * load.step, max(tokens, load.sequence)), min(load.m_step, max(tokens, 2 * load.sequence))
    return Split(
        base=costs.base,
        training=members * _member(costs, load) + load.cohorts * costs.forward(step, load.sequence),
        scoring=tokens * costs.scored_token(load.sequence),
        decoding=rows * costs.decoded_row(load.sequence, load.sequence),
        m_step=costs.member(load.policy) + costs.forward(m_step, 2 * load.sequence) if load.m_step else 0,
    )


def most_useful(device: torch.device, step: int) -> AtOnce:
    """Where more at once gains little: on CPUs `AtOnce`'s defaults (8 to 16 members, measured), on GPUs more members."""
    if device.type == "cpu":
        return AtOnce()
    return AtOnce(members=max(AtOnce().members, min(_GPU_MEMBERS, _GPU_TOKENS // max(1, step))))


def ran_out(error: RuntimeError) -> bool:
    """The error says that a device or the CPU's allocator had no memory left."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in text or "not enough memory" in text
