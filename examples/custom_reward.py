"""A reward of your own: right answers, minus a little for every word over three.

    cd examples && selfedit run custom_reward.toml

A reward takes the task and the edited model's answers and returns a number; higher is better.
"""

from collections.abc import Sequence

from selfedit.types import Answer, Task


def short_and_right(task: Task, answers: Sequence[Answer]) -> float:
    """Mean over the task's probes, 0..1 before the penalty."""
    right = sum(answer.correct for answer in answers)
    wordy = sum(max(0, len(answer.text.split()) - 3) for answer in answers)
    return (right - 0.1 * wordy) / len(task.probes)
