"""A causal language model as two functions: tokens to hidden states, chosen hidden states to logits."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ModelError
from ..types import TrainSequence
from .packing import Packed, pack


class Body:
    """A frozen model. Logits are computed where they are needed only, and always in fp32."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        """Freeze ``model``.

        Raises:
            ModelError: the architecture ignores masks and positions, or has a head this engine does not know.
        """
        model.requires_grad_(False)
        model.eval()
        self.model, self.name = model, name
        self._backbone, self._head = model.base_model, model.get_output_embeddings()
        config = model.config
        self.vocabulary = int(config.vocab_size)
        self.window = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
            # Our masks are plain causal, which equals a sliding window only inside of it.
            self.window = min(self.window, int(config.sliding_window))
        self._multiplier = float(getattr(config, "logit_scale", None) or 1.0)
        self._multiplier /= float(getattr(config, "logits_scaling", None) or 1.0)
        self._cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
        self.half_cost = 3 * int(config.hidden_size)
        self._prove()

    def replica(self) -> Body:
        """The same model once more for another thread: modules (and their hooks) of its own, over the same tensors."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        replica = copy.copy(self)
        replica.model, replica._backbone, replica._head = model, model.base_model, model.get_output_embeddings()
        return replica

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return cast(torch.device, self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the base computes in."""
        return cast(torch.dtype, self.model.dtype)

    def hidden(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Any = None) -> Tensor:
        """Ids and positions (N, T) -> hidden states (N, T, D); ``mask`` is (N, seen) int or (N, 1, T, T) additive."""
        out = self._backbone(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]

    def packed_hidden(self, packed: Packed) -> Tensor:
        """Hidden states (M, D) at the packed batch's sources."""
        mask = None
        if packed.visible is not None:
            low = torch.finfo(self.dtype).min
            mask = torch.zeros(packed.visible.shape, dtype=self.dtype, device=self.device).masked_fill_(
                ~packed.visible, low
            )
        hidden = self.hidden(packed.ids, packed.positions, mask)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, packed.sources)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (M, D) -> logits (M, V) in fp32, scaled and soft-capped as the model does."""
        logits = self._head(hidden).float() * self._multiplier
        return torch.tanh(logits / self._cap) * self._cap if self._cap else logits

    def sha256(self) -> str:
        """Hash of the live parameters and buffers: names, dtypes, shapes, bytes."""
        digest = hashlib.sha256()
        for kind in (self.model.named_parameters(), self.model.named_buffers()):
            for name, tensor in kind:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def _prove(self) -> None:
        """Two sequences in one row must give what each gives alone through the model's own forward."""
        n = min(4, self.window)
        sequences = [
            TrainSequence(tuple((7 * s + 3 * t) % self.vocabulary for t in range(n)), (True,) * n) for s in (1, 2)
        ]
        packed = pack([sequences], self.half_cost, self.device)
        ours = self.logits(self.packed_hidden(packed))
        ids = torch.tensor([s.ids for s in sequences], device=self.device)
        theirs = self.model(input_ids=ids).logits[:, :-1].reshape(ours.shape).float()
        limit = (1e-3 if self.dtype == torch.float32 else 0.1) * float(theirs.abs().max().clamp(min=1.0))
        if not torch.allclose(ours, theirs, rtol=0, atol=limit):
            raise ModelError(
                f"{self.name} ({type(self.model).__name__}) ignores attention masks or positions, or changes its "
                "logits in a way this engine does not know; use a Llama-, Qwen-, Mistral-, Gemma- or GPT-2-like model"
            )
