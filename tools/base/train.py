"""Train the embedded base from scratch on the world's documents: ``python -m tools.base.train --out DIR``.

Every step's documents are drawn from (seed, step) alone, so a run that was killed continues as if it had not been; run
the same command again. ``--init`` starts from given weights instead of random ones. Runs on CUDA where there is one.

The recipe in short: branches that don't see each other (`documents.py`) so that nothing is answered by elimination, Muon
for the matrices (AdamW stayed at chance for the whole of the smallest binding case; see LOG.md), fixed shapes for compile.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selfedit.tasks.world.story import PROBE_KINDS, closed_book_stories, draw_probes, draw_story, passage
from selfedit.templates import built_in_templates

from .documents import Document, Stage, document
from .packing import Batch, Packer
from .tokenizer import build_tokenizer


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights, besides the machine's arithmetic."""

    seed: int = 0
    tokens: int = 14_000_000
    rows: int = 16
    width: int = 256
    d: int = 192
    layers: int = 6
    heads: int = 6
    d_ff: int = 512
    lr: float = 4e-3
    warmup_steps: int = 100
    decay_from: float = 0.6
    bind_until: float = 0.25
    grow_until: float = 0.5

    def shape(self, step: int) -> tuple[int, int]:
        """Rows and width of a step's batch: the first stage's documents are short, so its rows are halved and doubled."""
        return (2 * self.rows, self.width // 2) if step < self.bind_until * self.steps else (self.rows, self.width)

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.tokens // (self.rows * self.width)

    def lr_share(self, step: int) -> float:
        """The schedule's factor: warm-up, constant, linear decay to 1 %."""
        done = step / self.steps
        falling = 1.0 if done < self.decay_from else max(0.01, (1 - done) / (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warmup_steps) * falling

    def bind_progress(self, step: int) -> float:
        """How far the first stage is, 0..1."""
        return min(1.0, step / max(1.0, self.bind_until * self.steps))

    def stage(self, step: int, rng: random.Random) -> Stage:
        """The curriculum's stage for one document; earlier stages keep a small share."""
        done = step / self.steps
        if done < self.bind_until or rng.random() < 0.1:
            return "bind"
        return "grow" if done < self.grow_until or rng.random() < 0.15 else "full"


class Steps(Dataset[Batch]):
    """The batch of every step, made from (seed, step) alone."""

    def __init__(self, recipe: Recipe, packer: Packer, last: int) -> None:
        self.recipe, self.packer, self.last = recipe, packer, last
        self.known = closed_book_stories()

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, step: int) -> Batch:
        recipe, rng = self.recipe, random.Random(f"{self.recipe.seed}/{step}")

        def draw() -> Document:
            return document(rng, recipe.stage(step, rng), self.known, recipe.bind_progress(step))

        return self.packer.batch(*recipe.shape(step), draw)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The base's architecture with random weights."""
    config = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=recipe.d,
        intermediate_size=recipe.d_ff,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_bias=True,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    look_back(model, offsets=(1, 2, 3))
    return model


@torch.no_grad()
def look_back(model: LlamaForCausalLM, offsets: tuple[int, ...], sharpness: float = 5.0) -> None:
    """Start heads of the first layer as previous-token heads: head h attends ``offsets[h]`` tokens back.

    Half of an induction circuit, given for free: without it recall stays on its plateau for thousands of steps (LOG.md). With
    rotary positions a key bias k and a query bias R(-offset) k score sum_f cos(theta_f (distance - offset)), a peak at offset.
    """
    attention, config = model.model.layers[0].self_attn, model.config
    width = config.hidden_size // config.num_attention_heads
    half = width // 2
    theta = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    fast = (theta > 0.05) * sharpness  # the slow rotations tell neighbours apart badly; they are left to content
    for head, offset in enumerate(offsets):
        rows = slice(head * width, (head + 1) * width)
        attention.k_proj.bias[rows] = torch.cat([fast, torch.zeros(half)])
        attention.q_proj.bias[rows] = torch.cat([torch.cos(-offset * theta) * fast, torch.sin(-offset * theta) * fast])


def optimisers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    outer = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in n)]
    return [
        torch.optim.Muon(inner, lr=lr, weight_decay=0.01, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


Body = Callable[[Tensor, Tensor, Tensor], Tensor]


def body_of(model: LlamaForCausalLM, compiled: bool) -> Body:
    """ids, positions, additive mask -> hidden states (B, T, D)."""

    def body(ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        out = model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
        return out.last_hidden_state

    return torch.compile(body, dynamic=False) if compiled else body


def weighted_loss(model: LlamaForCausalLM, body: Body, batch: Batch) -> tuple[Tensor, float]:
    """Mean cross-entropy by weight, and the share of answer tokens (weight 1) that the arg-max gets right."""
    device = batch.ids.device.type
    with torch.autocast(device, torch.bfloat16):
        mask = torch.zeros(batch.visible.shape, device=batch.ids.device, dtype=torch.bfloat16)
        hidden = body(batch.ids, batch.positions, mask.masked_fill_(~batch.visible, -1e4)[:, None])
        chosen = batch.weights > 0
        logits = model.lm_head(hidden[chosen]).float()
    labels, weights = batch.labels[chosen], batch.weights[chosen]
    loss = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
    answers = weights == 1.0
    right = (logits.argmax(-1) == labels)[answers].float().mean().item() if answers.any() else 0.0
    return loss, right


@torch.no_grad()
def reading_accuracy(model: LlamaForCausalLM, packer: Packer, family: str, n: int = 48) -> dict[str, float]:
    """Exact match on development stories, each probe alone with its passage, by arg-max under teacher forcing.

    ``family`` ``bind`` is the smallest case: two entities, one relation, a name in every sentence.
    """
    rng = random.Random(11)
    rows: list[tuple[str, list[int], list[int]]] = []
    for _ in range(n):
        smallest = family == "bind"
        story = draw_story(rng, "dev", "e2" if smallest else family, n_shared=1 if smallest else None, chain=not smallest)
        text = passage(rng, story, 0.0 if smallest else 0.5)
        for probe in draw_probes(rng, story, per_kind=1):
            asked = built_in_templates()["world"].open_book.format(context=text, question=probe.question)
            wanted = [*packer.encode(" " + probe.answer), packer.eos]
            rows.append((probe.kind, [packer.bos, *packer.encode(asked)], wanted))
    ids = torch.zeros(len(rows), max(len(prompt) + len(gold) for _, prompt, gold in rows), dtype=torch.long)
    for i, (_, prompt, gold) in enumerate(rows):
        ids[i, : len(prompt) + len(gold)] = torch.tensor(prompt + gold)
    written = model(input_ids=ids.to(model.device)).logits.argmax(-1).cpu()
    hits: dict[str, list[bool]] = {kind: [] for kind in PROBE_KINDS}
    for row, (kind, prompt, gold) in zip(written, rows, strict=True):
        hits[kind].append(row[len(prompt) - 1 : len(prompt) + len(gold) - 1].tolist() == gold)
    return {kind: round(sum(h) / len(h), 3) for kind, h in hits.items() if h}


def train(recipe: Recipe, out: Path, init: str | None, stop_at: int | None, compiled: bool) -> None:
    """Train to the recipe's end (or ``stop_at`` steps), with a checkpoint every 200 steps and a log line every 50."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(recipe.seed)
    # A warm start keeps its own tokenizer: ids must mean what the weights learned.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(init) if init else build_tokenizer()
    packer = Packer(tokenizer)
    model = new_model(recipe, tokenizer)
    if init:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(init, dtype=torch.float32).state_dict())
    model.to(device).train()
    optims = optimisers(model, recipe.lr)
    state_file, step = out / "training.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        step = int(state["step"])
    body = body_of(model, compiled)
    began, began_at, sums = time.time(), step, [0.0, 0.0]
    last = min(stop_at or recipe.steps, recipe.steps)
    workers = 1 if device == "cuda" else 0  # on a CPU it would only take the cores from the step
    loader = DataLoader(Steps(recipe, packer, last), batch_size=None, sampler=range(began_at, last), num_workers=workers)
    for step, batch in enumerate(loader, start=began_at):
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = recipe.lr * recipe.lr_share(step)
        loss, right = weighted_loss(model, body, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        sums = [sums[0] + loss.item(), sums[1] + right]
        done = step + 1
        if done % 50 == 0:
            row: dict[str, object] = {
                "step": done,
                "loss": round(sums[0] / 50, 4),
                "answer_tokens": round(sums[1] / 50, 4),
            }
            row |= {"tokens": done * recipe.rows * recipe.width, "lr": round(recipe.lr * recipe.lr_share(step), 6)}
            row["tokens_per_second"] = round((done - began_at) * recipe.rows * recipe.width / (time.time() - began))
            if done % 200 == 0:
                row |= {family: reading_accuracy(model, packer, family) for family in ("bind", "e1", "e2")}
            with (out / "train.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
            print(json.dumps(row), flush=True)
            sums = [0.0, 0.0]
        if done % 200 == 0 or done == last:
            save(model, tokenizer, optims, done, out)


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    optims: list[torch.optim.Optimizer],
    step: int,
    out: Path,
) -> None:
    """The training state (atomically replaced) and the model in bf16 in the HF format."""
    fresh = out / "training.tmp"
    torch.save({"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "step": step}, fresh)
    fresh.replace(out / "training.pt")
    shipped = LlamaForCausalLM(model.config).to(torch.bfloat16)
    shipped.load_state_dict(model.state_dict())
    shipped.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.base.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the checkpoint, the model and the log")
    parser.add_argument("--init", help="model directory to start from (warm restart)")
    parser.add_argument("--stop-at", type=int, help="stop after this many steps; the same command without it continues")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    for name, value in vars(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = vars(parser.parse_args(arguments))
    if args["threads"]:
        torch.set_num_threads(args["threads"])
    recipe = Recipe(**{name: args[name] for name in vars(Recipe())})
    train(recipe, args["out"], args["init"], args["stop_at"], not args["eager"])


if __name__ == "__main__":
    main()
