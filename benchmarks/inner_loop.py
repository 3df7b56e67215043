"""Seconds per edit of the inner loop (train an adapter, answer the probes): the engine against one edit at a time.

    python -m benchmarks.inner_loop --json inner-loop.json
    python -m benchmarks.inner_loop --json real_speed.json --models smollm2-135m-instruct gemma-3-270m --ks 1 4 8

The sides are those of `benchmarks.peft_baseline`, measured in turns in one process on all cores, each in its fastest
dtype. Ctrl-C keeps the rows that are done; every row that the file has stays in it until it is measured again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.peft_baseline import BASELINES
from selfedit.engine.model.loading import DTYPES, Dtype
from selfedit.run import write_atomically

from .machine import describe, forget_peak_memory, matmul_peak, peak_memory_gib
from .sides import Setup, Sides, agreement, parameters, quality, shortened
from .turns import quotients, say, take_turns
from .workload import LOOPS, MODELS, checkpoint, useful_flops

NOTES = (
    "seconds_per_edit and ratios are medians over the repetitions (raw_seconds has each); seal_2048 is measured once. "
    "seal pads to the model's window, seal_2048 to the public code's 2 048 tokens, beyond the window of these models "
    "(rotary positions allow it). tried: seconds of each setup on a training cut short, from which the fastest was "
    "taken; bf16 is left out where the processor has no matrix units for it. peak_share: useful FLOPs / time / the "
    "measured peak; padding, attention's own products and decoding are not counted as useful, nor is what need not be "
    "computed again below the lowest adapted layer. peak_gib: resident set of the process while the engine makes the "
    "most edits at once. Pretrained models: no seal (its padding would fill their windows), the default loop is that of "
    "selfedit demo --model; same_quality: seconds of lean with the paper's loop over those of the engine with the default "
    "loop, in the same turns; quality: what the model has learned by either loop, on the engine, on the same passages."
)


@dataclass(frozen=True)
class Plan:
    """How much is measured. ``sequential``: edits that a baseline makes in one repetition; ``checked``: those compared;
    ``tries``: how often each setup is tried before the fastest is chosen; ``passages``: those that quality is measured on.
    """

    repeats: int = 5
    ks: tuple[int, ...] = (1, 8, 16, 32)
    sequential: int = 1
    checked: int = 2
    tries: int = 2
    passages: int = 24
    max_steps: int | None = None


QUICK = Plan(repeats=1, ks=(1, 2), checked=1, tries=1, passages=2, max_steps=2)


def measure(source: Path, model: str, loop: str, plan: Plan) -> dict[str, Any]:
    """One row: a model and an inner loop."""
    say(f"{model}, {loop} loop: comparing what the sides compute")
    sides = Sides(source, model, loop, max(plan.ks), plan.max_steps)
    baselines = BASELINES if model in MODELS else ("trainer", "lean")
    errors, equal = agreement(sides, plan.checked)
    say(f"relative errors {errors}, answers equal {equal:.3f}; choosing each side's setup")
    dtype, engine_tried = sides.best_engine_dtype(min(8, max(plan.ks)), plan.tries)
    tried = {"engine": engine_tried}
    memory = _engine_memory(sides, dtype, max(plan.ks))
    setups: dict[str, Setup] = {}
    for name in (*baselines, *(["seal_2048"] if "seal" in baselines and sides.reaches_wide else [])):
        setups[name], tried[name] = sides.best_setup(name, plan.tries)
    say(f"engine {dtype}, " + ", ".join(f"{name} {' '.join(setup)}" for name, setup in setups.items()))
    row = {"model": model, "loop": loop, "parameters": parameters(sides), "targets": sides.targets}
    more: dict[str, Callable[[], float]] = {}
    if model not in MODELS and loop != "paper":
        slow = Sides(source, model, "paper", max(plan.ks), plan.max_steps)
        row["quality"] = quality({"paper": slow, loop: sides}, dtype, plan.passages)
        more["same_quality"] = lambda: slow.baseline_seconds("lean", setups["lean"], slow.cases[: plan.sequential])
    raw = _timed(sides, plan, dtype, setups, more)
    compared = quotients(raw, plan.ks, (*BASELINES, "seal_2048", *more))
    best: int = compared["best_k"]
    peak = matmul_peak(DTYPES[dtype])
    flops = sum(useful_flops(sides.engine(dtype).model, sides.targets, case) for case in sides.cases[:best]) / best
    return (
        row
        | compared
        | {
            "dtype": {"engine": dtype, **{name: setup[0] for name, setup in setups.items()}},
            "attention": {name: setup[1] for name, setup in setups.items()},
            "max_rel_error": max(errors.values()),
            "rel_error": errors,
            "tokens_equal": equal,
            "peak_share": flops / compared["seconds_per_edit"]["engine"][str(best)] / peak,
            "peak_gflops": peak / 1e9,
            "useful_gflop_per_edit": flops / 1e9,
            "peak_gib": memory,
            "repeats": plan.repeats,
            "edits_per_repetition": {"sequential": plan.sequential, "engine": "K"},
            "raw_seconds": raw,
            "tried": tried,
        }
    )


def _engine_memory(sides: Sides, dtype: Dtype, k: int) -> float:
    forget_peak_memory()
    sides.edit_many(dtype, [*shortened(sides.cases[: k - 1]), sides.cases[k - 1]])
    return peak_memory_gib()


def _timed(
    sides: Sides, plan: Plan, dtype: Dtype, setups: dict[str, Setup], more: Mapping[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Seconds per edit of every side in every repetition; the sides take turns, forwards and backwards."""

    def sequential(name: str, setup: Setup) -> Callable[[], float]:
        return lambda: sides.baseline_seconds(name, setup, sides.cases[: plan.sequential])

    def at_once(k: int) -> Callable[[], float]:
        return lambda: sides.engine_seconds(dtype, sides.cases[:k])

    runs = {name: sequential(name, setup) for name, setup in setups.items()}
    runs |= {f"engine {k}": at_once(k) for k in plan.ks} | dict(more)
    return take_turns(runs, plan.repeats, once=("seal_2048",))


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a person reads them: seconds per edit, and in brackets how many times the engine's."""
    made = Table("model", "loop", "engine K: s/edit", "lean", "trainer", "seal", "seal 2048", "error", "equal", "peak", "GiB")
    for row in rows:
        seconds, ratios, dtypes = row["seconds_per_edit"], row["ratios"], row["dtype"]
        engine = "\n".join(f"{k}: {s:.3g}" for k, s in seconds["engine"].items())
        others = [
            "-" if seconds[name] is None else f"{seconds[name]:.3g} ({ratios[name]:.2f}x)\n{dtypes[name]}"
            for name in ("lean", "trainer", "seal", "seal_2048")
        ]
        numbers = (f"{row['max_rel_error']:.1e}", f"{row['tokens_equal']:.3f}", f"{row['peak_share']:.1%}")
        made.add_row(row["model"], row["loop"], f"{engine}\n{dtypes['engine']}", *others, *numbers, f"{row['peak_gib']:.2f}")
    return made


def run(models: Sequence[str], loops: Sequence[str], plan: Plan, file: Path) -> bool:
    """Measure every model with every loop; ``file`` is written after each row. False where Ctrl-C cut it short."""
    here = {"machine": describe(), "threads": torch.get_num_threads()}
    kept = _rows_of(file)
    done: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as directory:
            for model in models:
                source = checkpoint(model, Path(directory))
                for loop in loops:
                    done.append(here | {"date": time.strftime("%Y-%m-%d")} | measure(source, model, loop, plan))
                    kept = [row for row in kept if (row["model"], row["loop"]) != (model, loop)]
                    made = here | {"notes": NOTES, "rows": [*kept, *done]}
                    write_atomically(file, json.dumps(made, indent=1) + "\n")
    except KeyboardInterrupt:
        say(f"stopped; {len(done)} finished rows are kept")
        return False
    finally:
        Console(width=150).print(table(done))
    return True


def _rows_of(file: Path) -> list[dict[str, Any]]:
    """The rows of an earlier measurement, each with the machine it was made on; none where there is no such file."""
    if not file.exists():
        return []
    made = json.loads(file.read_text(encoding="utf-8"))
    of_all = {key: made[key] for key in ("machine", "threads")}
    return [of_all | row for row in made["rows"]]


def _count(text: str) -> int:
    """A number from the command line, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inner_loop", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument(
        "--models",
        nargs="+",
        help=f"{', '.join(MODELS)}, names of models that were fetched, or directories (default: embedded 25m; --quick: tiny)",
    )
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--repeats", type=_count, help="repetitions (default 5; with --quick: 1)")
    parser.add_argument("--ks", nargs="+", type=_count, help="edits at once by the engine (default 1 8 16 32; --quick: 1 2)")
    parser.add_argument("--quick", action="store_true", help="a few steps on a tiny random model, to see that it runs")
    asked = parser.parse_args(arguments)
    plan = QUICK if asked.quick else Plan()
    plan = replace(plan, repeats=asked.repeats or plan.repeats, ks=tuple(asked.ks or plan.ks))
    logging.getLogger("transformers").setLevel(logging.ERROR)
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a property that transformers renamed
    models = asked.models or (["tiny"] if asked.quick else ["embedded", "25m"])
    return 0 if run(models, asked.loops, plan, asked.json) else 130


if __name__ == "__main__":
    sys.exit(main())
