"""The inner loop at the shape of a 7B model on a GPU: seconds per edit, share of the peak, memory, decoding.

    python -m benchmarks.gpu --json gpu.json

Random weights in the shape of Qwen2.5-7B (nothing is downloaded) and random tokens: speed does not depend on what they say.
An edit is the paper's: 7 implications and a passage, 10 epochs, batch 1, rank 32 on all linear modules, 5 probes. First a tiny
model in fp32 shows that all sides compute the same; then they take turns on one model in bf16. Without CUDA it all runs at the
tiny size in fp32, to see that it runs. The file is written after each measurement: what was stopped keeps what it had.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.peft_baseline import Baseline, Edited, run_baseline
from selfedit.config import AtOnce
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import OutOfMemoryError
from selfedit.evaluation.machine import EMBEDDED
from selfedit.evaluation.peft_parity import distance
from selfedit.run import write_atomically
from selfedit.types import TrainSequence, Update

from .machine import describe, matmul_peak, peak_memory_gib
from .turns import Raw, quotients, say, take_turns
from .workload import MAX_NEW_TOKENS, PAPER_EPOCHS, PAPER_PROBES, Case, useful_flops

LINES, PASSAGE, PROBE = (18, 20, 22, 24, 26, 28, 30), 180, 20  # tokens, as in SQuAD
DECODED_ROWS, DECODED_TOKENS = 64, 64
BASELINES_TIMED: tuple[Baseline, ...] = ("trainer", "lean")
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


def build(shape: dict[str, int], device: torch.device, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """A model of random weights, made where it stays."""
    torch.manual_seed(0)
    config = Qwen2Config(**shape, tie_word_embeddings=False, eos_token_id=2, bos_token_id=1, pad_token_id=0)
    with device:
        model: Qwen2ForCausalLM = Qwen2ForCausalLM._from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = 2
    return model


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


def agreement(device: torch.device) -> tuple[dict[str, float], float]:
    """In fp32, on two edits of a tiny model: the other sides' largest relative distance from the lean loop's update, and the
    share of greedy answers that all sides give alike.
    """
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    model = build(TINY | {"vocab_size": len(tokenizer)}, device, torch.float32)  # answers are compared as texts
    engine = TorchEngine(model, tokenizer, name="tiny", at_once=AtOnce(members=2))
    cases = [make_case(k, len(tokenizer), 1) for k in range(2)]
    bank = engine.apply([case.update for case in cases], on=None)
    answers = engine.answer([case.prompts for case in cases], on=None, members=bank, max_new_tokens=MAX_NEW_TOKENS)
    errors = {"engine": 0.0, "trainer": 0.0}
    equal = asked = 0
    for k, case in enumerate(cases):
        lean, trainer = (edit_one(name, model, case) for name in ("lean", "trainer"))
        for name, adapter in {"engine": bank.adapter(k), "trainer": trainer.adapter}.items():
            errors[name] = max(errors[name], distance(adapter, lean.adapter))
        texts = [[engine.decode(ids) for ids in one.answers] for one in (lean, trainer)]
        equal += sum(len(set(row)) == 1 for row in zip(answers[k], *texts, strict=True))
        asked += len(case.prompts)
    return errors, equal / asked


def edit_one(name: Baseline, model: Any, case: Case) -> Edited:
    """One edit by a baseline."""
    one = case.update
    start = initial_adapter(find_layout(model, "all-linear", ""), one.rank, one.alpha, one.seed)
    return run_baseline(name, model, one, start, case.prompts, max_new_tokens=MAX_NEW_TOKENS)


def seconds_of(work: Callable[[], object], edits: int, device: torch.device) -> float:
    """Seconds per edit of work that makes so many."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return (time.perf_counter() - began) / edits


def edit_many(engine: TorchEngine, cases: Sequence[Case]) -> None:
    """All edits at once by the engine."""
    bank = engine.apply([case.update for case in cases], on=None)
    engine.answer([case.prompts for case in cases], on=None, members=bank, max_new_tokens=MAX_NEW_TOKENS)


def fitting(engines: dict[int, TorchEngine], cases: Sequence[Case], device: torch.device) -> dict[int, float]:
    """The peak memory (GiB) at each K, up to the first that does not fit; also warms up.

    Raises:
        OutOfMemoryError: not even the first fits.
    """

    def refuse(members: int, reason: str) -> None:
        raise OutOfMemoryError(f"only {members} edits at once fit into the memory ({reason}); ask for no more with --ks")

    cuda, peaks = device.type == "cuda", dict[int, float]()
    for k, engine in engines.items():
        engine.limit_members(k, refuse)
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        try:
            edit_many(engine, cases[:k])
        except (torch.OutOfMemoryError, OutOfMemoryError):
            if not peaks:
                raise
            say(f"K = {k} does not fit into the memory")
            break
        peaks[k] = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else peak_memory_gib()
    return peaks


def decoding(engine: TorchEngine, vocabulary: int, device: torch.device) -> float:
    """Tokens sampled a second, every row with a prompt of its own."""
    prompts = [make_case(1000 + row, vocabulary, 1).prompts[0] for row in range(DECODED_ROWS)]
    began = time.perf_counter()
    written = engine.sample(prompts, range(DECODED_ROWS), on=None, max_new_tokens=DECODED_TOKENS, temperature=1.0, top_p=1.0)
    wait(device)
    return sum(len(one.token_ids) for one in written) / (time.perf_counter() - began)


def measure(device: torch.device, ks: Sequence[int], repeats: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All numbers of one device; a K that does not fit into its memory ends their list. ``keep`` is given those so far."""
    cuda = device.type == "cuda"
    shape, epochs, dtype = (SHAPE, PAPER_EPOCHS, torch.bfloat16) if cuda else (TINY, 1, torch.float32)
    errors, equal = agreement(device)
    say(f"in fp32: relative errors {errors}, answers equal {equal:.3f}")
    name = torch.cuda.get_device_name(device) if cuda else "no GPU: a tiny model on " + describe()
    made: dict[str, Any] = {
        "device": name,
        "shape": shape,
        "epochs": epochs,
        "repeats": repeats,
        "max_rel_error": max(errors.values()),
        "rel_error": errors,
        "tokens_equal": equal,
    }
    keep(made)
    model, tokenizer = build(shape, device, dtype), AutoTokenizer.from_pretrained(EMBEDDED)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f}B parameters; finding what fits")
    cases = [make_case(k, shape["vocab_size"], epochs) for k in range(max(ks))]
    engines = {k: TorchEngine(model, tokenizer, name="random", at_once=AtOnce(members=k)) for k in sorted(ks)}
    peaks = fitting(engines, cases, device)
    made["peak_gib"] = {str(k): gib for k, gib in peaks.items()}

    def keep_seconds(raw: Raw) -> None:
        keep(made | {"raw_seconds": raw})

    raw = timed(model, {k: engines[k] for k in peaks}, cases, device, repeats, keep_seconds)
    compared = quotients(raw, list(peaks), BASELINES_TIMED)
    peak = matmul_peak(dtype, 8192 if cuda else 512, device=device.type)
    rows = {}
    for k, peak_gib in peaks.items():
        seconds = compared["seconds_per_edit"]["engine"][str(k)]
        flops = sum(useful_flops(model, "all-linear", case) for case in cases[:k]) / k
        rows[str(k)] = {"seconds_per_edit": seconds, "peak_gib": peak_gib, "peak_share": flops / seconds / peak}
        say(f"K = {k}: " + ", ".join(f"{name} {value:.3g}" for name, value in rows[str(k)].items()))
    del made["peak_gib"]  # each is with its row now
    made |= {
        "engine": rows,
        "best_k": compared["best_k"],
        "baselines": {name: compared["seconds_per_edit"][name] for name in BASELINES_TIMED},
        "ratios": compared["ratios"],
        "peak_tflops": peak / 1e12,
        "raw_seconds": raw,
    }
    keep(made)
    made["decoded_tokens_per_second"] = decoding(engines[compared["best_k"]], shape["vocab_size"], device)
    keep(made)
    return made


def timed(
    model: Any,
    engines: dict[int, TorchEngine],
    cases: Sequence[Case],
    device: torch.device,
    repeats: int,
    keep: Callable[[Raw], None],
) -> Raw:
    """Seconds per edit of every side in every repetition: the baselines make one edit, the engine K at once."""

    def one(name: Baseline) -> Callable[[], float]:
        return lambda: seconds_of(lambda: edit_one(name, model, cases[0]), 1, device)

    def many(k: int) -> Callable[[], float]:
        return lambda: seconds_of(lambda: edit_many(engines[k], cases[:k]), k, device)

    for name in BASELINES_TIMED:  # imports and first uses
        edit_one(name, model, replace(cases[0], update=replace(cases[0].update, steps=2)))
    runs = {name: one(name) for name in BASELINES_TIMED} | {f"engine {k}": many(k) for k in engines}
    return take_turns(runs, repeats, keep=keep)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="edits at once")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a property that transformers renamed
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def keep(made: dict[str, Any]) -> None:
        write_atomically(asked.json, json.dumps(made, indent=1) + "\n")

    made = measure(device, asked.ks, asked.repeats, keep)
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
