"""A causal language model as two functions: tokens to hidden states, chosen hidden states to logits."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.masking_utils import create_masks_for_generate

from ...errors import ModelError
from ...types import TrainSequence
from .attention import takes_blocks
from .language import backbone
from .nucleus import fixed_point, keep_nucleus, within
from .packing import Packed, lay_flat, pack
from .soundness import refuse_unsound

# For each target the tokens that it was chosen from (none: all); None where all targets are free.
Allowed = Sequence[tuple[int, ...]] | None
Quantity = Callable[[Tensor, Tensor], Tensor]
LOGITS_AT_ONCE = 1 << 25  # fp32 logits that exist at once in training


class Body:
    """A frozen model. Logits are computed where they are needed only, and always in fp32.

    Of a model that also sees or hears, the language part; ``config`` is that part's.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        """Freeze ``model``.

        Raises:
            ModelError: a weight can't be right (`refuse_unsound`), the architecture ignores masks and positions, or it has
                a head this engine does not know.
        """
        refuse_unsound(model, name)
        model.requires_grad_(False)
        model.eval()
        self.model, self.name = model, name
        self._backbone, self._head = backbone(model), model.get_output_embeddings()
        self.config = config = model.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self.window = _longest(config)
        self._multiplier = float(getattr(config, "logit_scale", None) or 1.0)
        self._multiplier /= float(getattr(config, "logits_scaling", None) or 1.0)
        self._cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
        # Of `packing.plan`. None where rows can't be shared: then each holds one sequence, and no positions are given.
        self.half_cost: int | None = 3 * int(config.hidden_size)
        self._hand_masks = False
        self.flat = takes_blocks(model)
        self._prove()

    def replica(self) -> Body:
        """The same model once more for another thread: modules (and their hooks) of its own, over the same tensors."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        replica = copy.copy(self)
        replica.model, replica._backbone, replica._head = model, backbone(model), model.get_output_embeddings()
        return replica

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return cast(torch.device, self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the base computes in."""
        return cast(torch.dtype, self.model.dtype)

    def refuses(self, sequences: Sequence[TrainSequence]) -> str | None:
        """Why one of these sequences can't be used, or None."""
        for i, sequence in enumerate(sequences):
            ids = sequence.ids
            rules = (
                (bool(ids), "it is empty"),
                (len(ids) == len(sequence.mask), f"{len(ids)} ids but {len(sequence.mask)} mask entries"),
                (0 <= sequence.padding < max(1, len(ids)), f"a padding of {sequence.padding} tokens leaves none"),
                (len(ids) <= self.window, f"{len(ids)} tokens are more than the model's window of {self.window}"),
                (all(0 <= t < self.vocabulary for t in ids), f"an id is outside the vocabulary of {self.vocabulary}"),
                (0 <= sequence.distilled < math.inf, "distilled is not a finite number of at least 0"),
                (sequence.n_targets > 0, "no target tokens (the first token is never predicted)"),
            )
            if reason := next((reason for fine, reason in rules if not fine), None):
                return f"sequences[{i}]: {reason}"
        return None

    def pack(self, sequences_K: Sequence[Sequence[TrainSequence]]) -> Packed:
        """Sequences of K members as one batch, with as little padding as this model allows (`packing.pack`).

        Sequences with padding of their own get a row each: then the model's own mask can hide it. Padding from which no text
        lies within a sliding window sees nothing; what it then gives is as the model's code has it, and no two agree.
        """
        if any(sequence.padding for sequences in sequences_K for sequence in sequences):
            return pack(sequences_K, None, self.device)
        if self.flat:
            return lay_flat(sequences_K, self.device)
        return pack(sequences_K, self.half_cost, self.device)

    def hidden(self, ids: Tensor, positions: Tensor, mask: Any, cache: Any = None, **features: Any) -> Tensor:
        """Ids and positions (N, T) -> hidden states (N, T, D); ``mask`` is (N, seen) int, or all that the model takes.

        ``features`` reach the attention.
        """
        order = {} if self.half_cost is None else {"position_ids": positions}
        out = self._backbone(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **order,
            **features,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]

    def packed_hidden(self, packed: Packed) -> Tensor:
        """Hidden states (M, D) at the packed batch's sources."""
        if packed.blocks is not None:
            # A mask of this form is handed on as it is: the model makes none of its own.
            made = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
            hidden = self.hidden(packed.ids, packed.positions, made, blocks=packed.blocks)
        elif packed.seen is not None:
            hidden = self.hidden(packed.ids, packed.positions, packed.seen)
        else:
            # Without a mask most models make their own, one for each kind of attention, from where the positions start again.
            mask = self._masks(packed.positions) if self._hand_masks else None
            hidden = self.hidden(packed.ids, packed.positions, mask)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, packed.sources)

    def _masks(self, positions: Tensor) -> Any:
        """Block-diagonal causal masks for positions (N, T): one, or by the layers' types where there are several."""
        like = torch.empty(*positions.shape, 0, dtype=self.dtype, device=self.device)
        return create_masks_for_generate(self.config, like, None, None, positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (M, D) -> logits (M, V) in fp32, scaled and soft-capped as the model does."""
        logits = self._head(hidden).float()
        if self._multiplier != 1:
            logits = logits * self._multiplier
        return torch.tanh(logits / self._cap) * self._cap if self._cap else logits

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (M) of each target (M) given the hidden state (M, D) before it; logits exist for few rows at a time."""
        return cast(Tensor, _OfLogits.apply(hidden, targets, self, _cross_entropy))

    def token_kl(self, hidden: Tensor, reference: Tensor) -> Tensor:
        """As `token_losses`: KL(theirs || ours) in nats (M), of the distributions after ``reference`` and ``hidden`` (M, D).

        `TorchEngine.token_kl` measures the other direction.
        """

        def quantity(logits: Tensor, theirs: Tensor) -> Tensor:
            ours, other = torch.log_softmax(logits, -1), torch.log_softmax(self.logits(theirs), -1)
            return (other.exp() * (other - ours)).sum(-1)

        return cast(Tensor, _OfLogits.apply(hidden, reference, self, quantity))

    def token_logprobs(
        self, hidden: Tensor, targets: Tensor, temperature: float, top_p: float, allowed: Allowed = None
    ) -> Tensor:
        """As `token_losses`: log p (M, nats) of each target when sampling at this temperature and top_p.

        ``allowed``: for each target the tokens that it was chosen from (none: all).
        """
        quantity = partial(_cross_entropy, temperature=temperature, top_p=top_p)
        return -self._of_choices(hidden, targets, quantity, allowed)

    def token_entropies(self, hidden: Tensor, targets: Tensor, temperature: float, allowed: Allowed = None) -> Tensor:
        """As `token_logprobs`: the entropy (M, nats) of the distribution that each target comes from."""
        return self._of_choices(hidden, targets, partial(_entropy, temperature=temperature), allowed)

    def _of_choices(self, hidden: Tensor, targets: Tensor, quantity: Quantity, allowed: Allowed) -> Tensor:
        """A quantity (M) of each target's distribution, cut to ``allowed``."""
        if allowed is None:
            return cast(Tensor, _OfLogits.apply(hidden, targets, self, quantity))

        def cut(logits: Tensor, numbered: Tensor) -> Tensor:
            return quantity(within(logits, [allowed[i] for i in numbered[:, 1].tolist()]), numbered[:, 0])

        numbered = torch.stack([targets, torch.arange(len(targets), device=targets.device)], 1)
        return cast(Tensor, _OfLogits.apply(hidden, numbered, self, cut))

    def sha256(self) -> str:
        """Hash of the live parameters and buffers: names, dtypes, shapes, bytes."""
        digest = hashlib.sha256()
        for kind in (self.model.named_parameters(), self.model.named_buffers()):
            for name, tensor in kind:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _prove(self) -> None:
        """Find how this model keeps the sequences of a row apart; most take it from the positions.

        One that can't (it counts positions by itself, as with ALiBi) gets one sequence a row, padded to the longest: as exact,
        but all padding goes through the model.
        """
        reason, half_cost = "", self.half_cost
        ways = [(False, False, half_cost), (False, True, half_cost), (False, False, None)]
        with _short_windows(self.model):
            ways = [(True, False, half_cost), *ways] if self.flat else ways
            for self.flat, self._hand_masks, self.half_cost in ways:
                try:
                    if self._keeps_apart() and (self.half_cost is not None or self._continues()):
                        break
                except ModelError:
                    raise
                except Exception as error:  # a model of another make can raise anything here
                    reason = reason or f" ({' '.join(str(error).split())[:200]})"
            else:
                raise ModelError(
                    f"{self.name} ({type(self.model).__name__}) ignores attention masks or positions, or changes its logits "
                    f"in a way this engine does not know{reason}; use a Llama-, Qwen-, Mistral-, Gemma-, Phi- or GPT-like model"
                )
        if self.half_cost is None:
            warnings.warn(
                f"{self.name} ({type(self.model).__name__}) cannot keep several sequences of a row apart; each gets a row of "
                "its own, padded to the longest: as exact, but slower where lengths differ",
                stacklevel=4,
            )

    @torch.no_grad()
    def _continues(self) -> bool:
        """A padded prompt and one more token by way of the cache give what the model gives for the whole text."""
        n = min(5, self.window)
        text = torch.tensor([[(7 * s + 3 * t) % self.vocabulary for t in range(n)] for s in (1, 2)], device=self.device)
        ids, mask = F.pad(text[:, :-1], (2, 0)), F.pad(torch.ones_like(text), (2, 0))
        ids[1], mask[1] = F.pad(text[1, :-1], (0, 2)), 1  # the other row is not padded, and longer
        cache = DynamicCache(config=self.config)
        none = torch.zeros(0)
        self.hidden(ids, none, mask[:, :-1], cache)
        ours = self.logits(self.hidden(text[:, -1:], none, mask, cache)[:1, -1])
        return self._agree(ours, self.model(input_ids=text[:1]).logits[:, -1])

    @torch.no_grad()
    def _keeps_apart(self) -> bool:
        """Two sequences in one row give what each gives alone through the model's own forward."""
        n = min(4, self.window)
        sequences = [TrainSequence(tuple((7 * s + 3 * t) % self.vocabulary for t in range(n)), (True,) * n) for s in (1, 2)]
        packed = self.pack([sequences])
        ours = self.logits(self.packed_hidden(packed))
        ids = torch.tensor([s.ids for s in sequences], device=self.device)
        return self._agree(ours, self.model(input_ids=ids).logits[:, :-1].reshape(ours.shape))

    def _agree(self, ours: Tensor, theirs: Tensor) -> bool:
        """The same logits (M, V) but for rounding: each is compared with its own size and the usual size of its row.

        A few huge ones, as of a token that is never or always written, say nothing about how far the others are rounded.

        Raises:
            ModelError: the model's own logits are not finite.
        """
        theirs = theirs.float()
        if not theirs.isfinite().all():
            advice = "use another checkpoint" if self.dtype == torch.float32 else "set model.dtype to 'fp32'"
            raise ModelError(
                f"{self.name} ({type(self.model).__name__}): its logits are infinite or NaN in {self.dtype}, although its "
                f"weights are not; {advice}"
            )
        sizes = theirs.abs()
        usual = sizes.kthvalue(math.ceil(0.9 * sizes.shape[-1]), -1, keepdim=True).values
        slack = 1e-3 if self.dtype == torch.float32 else 0.1
        return bool(((ours - theirs).abs() <= slack * (usual + sizes)).all())


def _cross_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Logits (m, V) in fp32, targets (m) -> -log p of each target (m) when sampling so; a target is always in the nucleus."""
    if top_p < 1:
        weights = fixed_point(logits.detach(), temperature)
        keep_nucleus(weights, top_p)
        logits = logits.masked_fill((weights == 0).scatter_(-1, targets[:, None], False), -torch.inf)
    if temperature != 1:
        logits = logits / temperature
    return cast(Tensor, _CrossEntropy.apply(logits, targets))


class _CrossEntropy(torch.autograd.Function):
    """``F.cross_entropy`` of each row: its log-softmax is kept for the gradient, which is made in its place.

    torch's own operator, as everybody trains with it: in fp32 on a CPU it is off by up to 6e-6 nats, always to the same side. A
    more exact one gave gradients 1e-4 away, and AdamW's first step, which goes by signs, updates 5e-3 from PEFT's (LOG.md).
    For one backward pass, as in `_OfLogits`: the gradient overwrites what it is made from.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logprobs = torch.log_softmax(logits, -1)
        ctx.save_for_backward(logprobs, targets)
        return -logprobs.gather(-1, targets[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logprobs, targets = ctx.saved_tensors
        at, grad = targets[:, None], grad[:, None]
        weights = logprobs.exp_().mul_(grad)
        return weights.scatter_(-1, at, weights.gather(-1, at) - grad), None


def _entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Logits (m, V) in fp32 -> the entropy of each distribution (m)."""
    logp = torch.log_softmax(logits / temperature, -1)
    return -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0.0)).sum(-1)


class _OfLogits(torch.autograd.Function):
    """One number per token from its logits, its gradient taken along with it: a large vocabulary costs no memory for long."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, body: Body, quantity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        rows = max(1, LOGITS_AT_ONCE // body.vocabulary)
        values, gradients = [], []
        for some, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
            with torch.enable_grad():
                leaf = some.detach().requires_grad_()
                each = quantity(body.logits(leaf), wanted)
                if ctx.needs_input_grad[0]:
                    gradients += torch.autograd.grad(each.sum(), leaf)
            values.append(each.detach())
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grad[:, None].to(gradients.dtype), None, None, None


@contextmanager
def _short_windows(model: PreTrainedModel) -> Iterator[None]:
    """Sliding windows of two tokens, so that short sequences, which cost little, are longer than the window."""
    holders = [h for h in (model.config.get_text_config(), *model.modules()) if isinstance(vars(h).get("sliding_window"), int)]
    windows = [holder.sliding_window for holder in holders]
    try:
        for holder in holders:
            holder.sliding_window = 2
        yield
    finally:
        for holder, window in zip(holders, windows, strict=True):
            holder.sliding_window = window


def _longest(config: Any) -> int:
    """The longest sequence in tokens. Sliding windows don't bound it, positions do."""
    longest = int(getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None) or 1 << 30)
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *rope.values()):  # some models have one for each kind of attention
        if isinstance(kind, dict) and kind.get("rope_type") == "longrope":
            # One sequence beyond this length changes the angles of all of its batch, and of what a cache holds already.
            longest = min(longest, int(kind["original_max_position_embeddings"]))
    return longest
