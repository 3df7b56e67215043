"""A loss of your own: of two texts that the model wrote, one becomes more likely and the other one less likely.

    python examples/own_loss.py

The adapter's weights are an ordinary leaf of autograd beside the frozen base, so torch's own optimisers, schedules and
clipping work on them. The algorithms in `selfedit.algorithms` build their losses in the same way.
"""

from pathlib import Path

import torch

from selfedit.config import make_settings
from selfedit.evaluation.machine import load_engine
from selfedit.tasks.sources.world import draw_tasks
from selfedit.templates import prompt_for
from selfedit.types import TrainSequence

ADVANTAGES = (1.0, -1.0)


def main() -> None:
    """Ten steps of a policy gradient with fixed advantages."""
    settings = make_settings({})
    engine = load_engine(settings)
    (task,) = draw_tasks("dev", ("e1",), 1, seed=0)
    prompt = engine.encode_prompt(prompt_for(task, "implications", settings.templates))
    written = engine.sample([prompt] * 2, [1, 2], on=None, max_new_tokens=40, temperature=1.0, top_p=0.95)
    sequences = [
        TrainSequence((*prompt, *text.token_ids), (False,) * len(prompt) + (True,) * len(text.token_ids)) for text in written
    ]
    bank = engine.bank([engine.initial_adapter(rank=16, alpha=32.0, seed=0)])
    optimizer = torch.optim.AdamW(bank.parameters(), lr=1e-3)
    for step in range(10):
        states = engine.states([sequences], on=None, members=bank)  # also: states.entropies(), states.hidden
        means = torch.stack([logprobs.mean() for logprobs in states.split(states.logprobs())[0]])
        loss = -(torch.tensor(ADVANTAGES, device=means.device) * means).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: mean log-probability per token {means[0]:.3f} and {means[1]:.3f}")
    bank.adapter(0).save(Path("runs/own-loss"))  # a PEFT directory


if __name__ == "__main__":
    main()
