"""Peak memory of processes that train, write and score with a model of real widths, against the plan: one JSON object.

A program of its own that forks for each part, as the heap of a process that did something else before has room in it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selfedit.algorithms.common.training import Example, PolicyTraining, Schedule, Tokens
from selfedit.config import AtOnce
from selfedit.engine.model.attention import register
from selfedit.engine.planning.memory import Costs, Load, adapter_size, split
from selfedit.engine.torch_engine import TorchEngine
from selfedit.types import TrainSequence, Update

VOCABULARY, LONG, SHORT, MEMBERS, ROWS, RANK = 16_384, 1024, 256, 8, 24, 16


def status(name: str) -> int:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def peak(work: Callable[[], object]) -> int:
    """How much a copy of this process grew, at most, while it worked."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = status("VmRSS")
        work()
        os.write(writing, str(status("VmHWM") - before).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        grown = told.read()
    os.waitpid(child, 0)
    return int(grown)  # nothing, where the copy failed


def text(length: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(4, VOCABULARY) for _ in range(length))


def loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return -tokens.states.logprobs(), {}


def main() -> None:
    """Measure, and print what was predicted and used, in bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=4, tie_word_embeddings=True, **widths)
    config._attn_implementation = register()
    model = LlamaForCausalLM(config)
    words = models.WordLevel({"<unk>": 0, "</s>": 1}, "<unk>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="</s>", unk_token="<unk>")
    at_once = AtOnce(MEMBERS, ROWS, 2048)
    engine = TorchEngine(model, tokenizer, name="random", at_once=at_once)
    costs, size = Costs.of(model, torch.float32, torch.device("cpu")), adapter_size(model, "all-linear", RANK)

    def planned(sequence: int) -> object:
        return split(costs, Load(sequence, sequence, size, cohorts=1, banks=1, m_step=2 * LONG, policy=size), at_once)

    updates = [Update((TrainSequence.whole(text(SHORT, k)),), 1, 1, 1e-3, RANK, 16.0, k) for k in range(MEMBERS)]

    def m_step() -> None:
        bank = engine.bank([engine.initial_adapter(rank=RANK, alpha=16.0, seed=0)])
        training = PolicyTraining(engine, bank, Schedule(1, 2, 2, 1e-3), {})
        training.run([Example(TrainSequence.whole(text(LONG, k))) for k in range(2)], loss, 0)

    def score() -> None:
        engine.score([[(text(120, k), text(120, k + 99)) for k in range(ROWS)]], on=None)  # as many targets as a pass may have

    def write() -> None:
        prompts = [text(120, k) for k in range(ROWS)]
        engine.sample(prompts, range(ROWS), on=None, max_new_tokens=16, temperature=1.0, top_p=0.95)

    engine.apply(updates[:1], on=None)  # first-use costs
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    found = {
        "training": (planned(SHORT).training, peak(lambda: engine.apply(updates, on=None))),
        "m_step": (planned(LONG // 2).m_step, peak(m_step)),
        "scoring": (planned(SHORT).scoring, peak(score)),
        "decoding": (ROWS * costs.decoded_row(120, 16), peak(write)),
    }
    print(json.dumps({"base": (costs.base, 4 * sum(t.numel() for t in chain(model.parameters(), model.buffers()))), **found}))


if __name__ == "__main__":
    main()
