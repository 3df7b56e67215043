"""The demo as a script: a model that learns to write better notes for itself.

python examples/demo.py
"""

from pathlib import Path

from selfedit.config import make_settings
from selfedit.evaluation.experiment import run_experiment


def show(kind: str, data: dict) -> None:
    """Print what is happening, as it happens."""
    if kind == "stage":
        print("...", data["text"])
    elif kind == "rung":
        print(f"    {data['rung']:24} {100 * data['accuracy']:5.1f} %  [{100 * data['low']:.1f}, {100 * data['high']:.1f}]")


def main() -> None:
    """Three rounds of reinforcement learning on the embedded world, then the ladder on 60 held-out passages."""
    settings = make_settings(
        {
            "seed": 0,
            "rounds": 3,
            "tasks": {"source": "world", "families": ["e1"], "per_round": 12, "evaluation": 60},
            "edits": {"form": "implications", "per_task": 8},
            "inner": {"steps": 12, "batch_size": 8, "lr": 2e-2, "rank": 16},
        }
    )
    summary = run_experiment(settings, Path("runs/example-demo"), show)
    print()
    for row in summary["paired"]:
        print(
            f"{row['a']} - {row['b']}: {100 * row['difference']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        )
    print("\nopen runs/example-demo/report.html")


if __name__ == "__main__":
    main()
