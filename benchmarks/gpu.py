"""The inner loop at the shape of a 7B model on a GPU: seconds per edit, share of the peak, memory, decoding.

    python -m benchmarks.gpu --json gpu.json

Random weights in the shape of Qwen2.5-7B (nothing is downloaded) and random tokens: speed does not depend on what they say.
An edit is the paper's: 7 implications and a passage, 10 epochs, batch 1, rank 32 on all linear modules, 5 probes. Without
CUDA it runs at a tiny size, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from selfedit.engine.baselines import Baseline, run_baseline
from selfedit.engine.lora import initial_adapter
from selfedit.engine.targets import find_layout
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import OutOfMemoryError
from selfedit.evaluation.machine import EMBEDDED
from selfedit.run import write_atomically
from selfedit.types import TrainSequence, Update

from .inner_loop import say
from .machine import describe, matmul_peak, peak_memory_gib
from .workload import MAX_NEW_TOKENS, PAPER_EPOCHS, PAPER_PROBES, Case, useful_flops

LINES, PASSAGE, PROBE = (18, 20, 22, 24, 26, 28, 30), 180, 20  # tokens, as in SQuAD
DECODED_ROWS, DECODED_TOKENS = 64, 64
SHAPE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 1024,
}


def build(shape: dict[str, int], device: torch.device) -> Qwen2ForCausalLM:
    """A model of random weights, in bf16, made where it stays."""
    torch.manual_seed(0)
    config = Qwen2Config(**shape, tie_word_embeddings=False, eos_token_id=2, bos_token_id=1, pad_token_id=0)
    with device:
        return Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)  # type: ignore[no-any-return]


def make_case(seed: int, vocabulary: int, epochs: int) -> Case:
    """One edit of random tokens."""
    rng = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocabulary) for _ in range(n))

    lengths = (*LINES, PASSAGE)
    sequences = tuple(TrainSequence(tokens(n), (True,) * n) for n in lengths)
    update = Update(sequences, epochs * len(lengths), 1, 1e-3, 32, 64.0, seed)
    return Case(update, [list(tokens(PROBE)) for _ in range(PAPER_PROBES)])


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def engine_row(engine: TorchEngine, cases: Sequence[Case], device: torch.device, repeats: int) -> dict[str, float]:
    """K edits at once: seconds per edit (training and answers) and the device's peak memory."""
    seconds = []
    for _ in range(repeats + 1):  # the first warms up
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        bank = engine.fit([case.update for case in cases])
        engine.answer(bank, [case.prompts for case in cases], max_new_tokens=MAX_NEW_TOKENS)
        wait(device)
        seconds.append((time.perf_counter() - began) / len(cases))
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else peak_memory_gib()
    return {"seconds_per_edit": median(seconds[1:]), "peak_gib": peak}


def baseline_seconds(name: Baseline, model: Any, case: Case, device: torch.device, repeats: int) -> float:
    """Median seconds of one edit by a baseline on the same weights."""
    one = case.update
    start = initial_adapter(find_layout(model, "all-linear", ""), one.rank, one.alpha, one.seed)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run_baseline(name, model, one, start, case.prompts, max_new_tokens=MAX_NEW_TOKENS)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def decoding(engine: TorchEngine, vocabulary: int, device: torch.device) -> float:
    """Tokens sampled a second, every row with a prompt of its own."""
    prompts = [make_case(1000 + row, vocabulary, 1).prompts[0] for row in range(DECODED_ROWS)]
    began = time.perf_counter()
    written = engine.sample(prompts, range(DECODED_ROWS), max_new_tokens=DECODED_TOKENS, temperature=1.0, top_p=1.0)
    wait(device)
    return sum(len(one.token_ids) for one in written) / (time.perf_counter() - began)


def measure(device: torch.device, ks: Sequence[int], repeats: int) -> dict[str, Any]:
    """All rows for one device; a K that does not fit into its memory ends the list."""
    cuda = device.type == "cuda"
    shape, epochs = (SHAPE, PAPER_EPOCHS) if cuda else (TINY, 1)
    model = build(shape, device)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    cases = [make_case(k, shape["vocab_size"], epochs) for k in range(max(ks))]
    model.generation_config.eos_token_id = 2
    baselines = {n: baseline_seconds(n, model, cases[0], device, repeats) for n in ("trainer", "lean")}
    say(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f}B parameters; seconds per edit {baselines}")
    peak = matmul_peak(torch.bfloat16, 8192 if cuda else 512, device=device.type)
    rows: dict[str, dict[str, float]] = {}
    for k in ks:
        engine = TorchEngine(model, tokenizer, name="random", members_at_once=k)
        fewer: list[int] = []
        engine.limit_members(k, lambda members, _, fewer=fewer: fewer.append(members))  # type: ignore[misc]
        try:
            row = engine_row(engine, cases[:k], device, repeats)
        except (torch.OutOfMemoryError, OutOfMemoryError):
            fewer.append(0)
        if fewer:
            say(f"K = {k} does not fit into the memory")
            break
        flops = sum(useful_flops(model, "all-linear", case) for case in cases[:k]) / k
        row["peak_share"] = flops / row["seconds_per_edit"] / peak
        rows[str(k)] = row
        say(f"K = {k}: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()))
    best = min((row["seconds_per_edit"] for row in rows.values()), default=float("nan"))
    name = torch.cuda.get_device_name(device) if cuda else "no GPU: a tiny model on " + describe()
    return {
        "device": name,
        "shape": shape,
        "epochs": epochs,
        "engine": rows,
        "baselines": baselines,
        "ratios": {n: seconds / best for n, seconds in baselines.items()},
        "peak_tflops": peak / 1e12,
        "decoded_tokens_per_second": decoding(engine, shape["vocab_size"], device),
        "repeats": repeats,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="edits at once")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a property that transformers renamed
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = measure(device, asked.ks, asked.repeats)
    write_atomically(asked.json, json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
