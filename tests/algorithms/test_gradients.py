"""Every algorithm's update against gradients derived by hand, on a policy whose parameters are its logits."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from two_tokens import ActionEngine, Logits, action, play

from selfedit.algorithms.base import Algorithm, RatedEdit, State
from selfedit.algorithms.common.experience import clipped, gather, k3
from selfedit.algorithms.common.gradient_settings import GradientSettings
from selfedit.algorithms.ppo import generalised_advantages, value_error
from selfedit.config import AlgorithmSettings, make_settings
from selfedit.errors import UpdateError
from selfedit.plugins import find

A, B = 0, 1
POLICY = Logits((0.3, -0.4))
P_A = 1 / (1 + math.exp(-0.7))  # probability of A
UP_A = (1 - P_A, -(1 - P_A))  # d log p(A) / d logits
UP_B = (-P_A, P_A)


def settings(name: str, own: dict[str, Any] | None = None, **more: Any) -> AlgorithmSettings:
    """``own``: the algorithm's own table; ``more``: what all of them have."""
    table = (own or {}) if name == "rest_em" else {"kl": 0.0, **(own or {})}
    fields = {"name": name, "epochs": 1, "rank_by": ["gain"], "targets": "x", **more, name: table}
    return make_settings({"algorithm": fields}).algorithm


def algorithm(engine: ActionEngine, how: AlgorithmSettings) -> Algorithm:
    return find("algorithms", how.name)(engine, how)  # type: ignore[no-any-return]


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The gradient of the policy's numbers at every optimiser step, before it is clipped."""
    seen: list[list[float]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(leaves: Any, *args: Any, **more: Any) -> Any:
        seen.append(leaves[0].grad[0].tolist())
        return clip(leaves, *args, **more)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    return seen


def by_hand(*terms: tuple[float, tuple[float, float]]) -> Any:
    """The gradient of minus the objective: terms are (weight, gradient of a log-probability)."""
    return pytest.approx([-sum(w * up[i] for w, up in terms) for i in (0, 1)], abs=1e-5)


def learn(name: str, judged: list[RatedEdit], engine: ActionEngine, state: State | None = None, **more: Any) -> Any:
    return algorithm(engine, settings(name, **more)).improve(POLICY, judged, state or {}, 0)


def pair(engine: ActionEngine, a: float | None, b: float | None, **more: Any) -> list[RatedEdit]:
    return [action(POLICY, engine, A, a, index=0, **more), action(POLICY, engine, B, b, index=1, **more)]


@pytest.fixture
def engine() -> ActionEngine:
    return ActionEngine((0.0, 0.0))


@pytest.mark.parametrize(
    ("baseline", "advantages"),
    [("none", (3.0, 1.0)), ("mean", (1.0, -1.0)), ("leave_one_out", (2.0, -2.0))],
)
def test_reinforce(baseline: str, advantages: tuple[float, float], engine: ActionEngine, gradients: list[list[float]]) -> None:
    learn("reinforce", pair(engine, 3.0, 1.0), engine, own={"baseline": baseline, "normalise": "sum"})
    assert gradients == [by_hand((advantages[0] / 2, UP_A), (advantages[1] / 2, UP_B))]


@pytest.mark.parametrize(
    ("normalise", "weights"), [("token", (1 / 4, 1 / 4)), ("sequence", (1 / 2, 1 / 6)), ("sum", (1 / 2, 1 / 2))]
)
def test_normalisation(normalise: str, weights: tuple[float, float], engine: ActionEngine, gradients: list[list[float]]) -> None:
    edits = [action(POLICY, engine, A, 2.0, index=0), action(POLICY, engine, (B, B, A), 1.0, index=1)]
    learn("reinforce", edits, engine, own={"baseline": "none", "normalise": normalise})
    expected = by_hand((2 * weights[0], UP_A), (2 * weights[1], UP_B), (weights[1], UP_A))
    assert gradients == [expected]


def test_small_forwards_add_up_to_the_same_step(engine: ActionEngine, gradients: list[list[float]]) -> None:
    edits = [action(POLICY, engine, (A, B, A)[: 1 + i], float(i), index=i) for i in range(3)]
    forwards = []
    for size, tokens in ((1, 8192), (2, 8192), (3, 8192), (3, 4)):  # the last: as many tokens as memory holds
        engine.tokens_at_once, before = tokens, engine.forwards
        learn("reinforce", edits, engine, batch_size=size, own={"baseline": "mean", "normalise": "token"})
        forwards.append(engine.forwards - before)
    assert forwards == [3, 2, 1, 3]
    assert all(found == pytest.approx(gradients[0], abs=1e-6) for found in gradients[1:])


@pytest.mark.parametrize(("scale", "size"), [(True, 1 / math.sqrt(2)), (False, 1.0)])
def test_grpo(scale: bool, size: float, engine: ActionEngine, gradients: list[list[float]]) -> None:
    learn("grpo", pair(engine, 3.0, 1.0), engine, own={"scale": scale, "normalise": "sequence"})
    assert gradients == [by_hand((size / 2, UP_A), (-size / 2, UP_B))]


def test_grpo_stops_at_the_clip(engine: ActionEngine, gradients: list[list[float]]) -> None:
    """Where the ratio has left the clip on the side the advantage pushes to, nothing pulls further."""
    edits = pair(engine, 3.0, 1.0)
    made = learn("grpo", edits, engine, epochs=3, lr=0.5, own={"scale": False, "normalise": "sum"})
    assert gradients[0] != pytest.approx([0.0, 0.0])
    assert gradients[2] == pytest.approx([0.0, 0.0], abs=1e-7)
    assert made.figures["clipped_share"] == 1.0


def test_kl_in_the_loss(engine: ActionEngine, gradients: list[list[float]]) -> None:
    """k3 to the reference (both tokens .5): its gradient is (1 - exp(reference - log p)) times that of log p."""
    learn("grpo", pair(engine, 3.0, 1.0), engine, own={"scale": False, "normalise": "sum", "kl": 0.4})
    pull = [0.4 * (1 - 0.5 / p) for p in (P_A, 1 - P_A)]
    assert gradients == [by_hand((0.5 - pull[0] / 2, UP_A), (-0.5 - pull[1] / 2, UP_B))]


def test_kl_in_the_reward(engine: ActionEngine, gradients: list[list[float]]) -> None:
    learn(
        "grpo",
        pair(engine, 3.0, 1.0),
        engine,
        own={"scale": False, "normalise": "sum", "kl": 0.4, "kl_in": "reward"},
    )
    rewards = [3.0 - 0.4 * math.log(P_A / 0.5), 1.0 - 0.4 * math.log((1 - P_A) / 0.5)]
    half = (rewards[0] - rewards[1]) / 2
    assert gradients == [by_hand((half / 2, UP_A), (-half / 2, UP_B))]


def test_entropy_bonus(engine: ActionEngine, gradients: list[list[float]]) -> None:
    learn("reinforce", pair(engine, 3.0, 1.0), engine, own={"baseline": "mean", "normalise": "sum", "entropy": 0.2})
    slope = -P_A * (1 - P_A) * 0.7  # d entropy / d logit of A
    plain = [-(0.5 * a - 0.5 * b) for a, b in zip(UP_A, UP_B, strict=True)]
    assert gradients == [pytest.approx([plain[0] - 0.2 * slope, plain[1] + 0.2 * slope], abs=1e-5)]


def test_ppo(engine: ActionEngine, gradients: list[list[float]]) -> None:
    """A fresh head values everything at the mean reward, so one-token edits have their reward less that as advantage, over
    the advantages' standard deviation.
    """
    made = learn("ppo", pair(engine, 3.0, 1.0), engine, own={"normalise": "sum"})
    size = 1 / math.sqrt(2)
    assert gradients == [by_hand((size / 2, UP_A), (-size / 2, UP_B))]
    assert made.state["value_head"].shape == (3,)


@pytest.mark.parametrize("actions", [(A, A, B), (A, B, B)])
def test_ppo_says_how_far_the_policy_is_from_the_base(actions: tuple[int, ...], engine: ActionEngine) -> None:
    edits = [action(POLICY, engine, a, float(i), index=i) for i, a in enumerate(actions)]
    made = learn("ppo", edits, engine, own={"kl": 0.4, "kl_in": "reward"})
    moved = sum(math.log((P_A if a == A else 1 - P_A) / 0.5) for a in actions) / 3
    assert made.figures["kl_to_reference"] == pytest.approx(moved, abs=1e-6)


def test_ppo_ends_early_where_it_moves_too_far(engine: ActionEngine, gradients: list[list[float]]) -> None:
    made = learn("ppo", pair(engine, 3.0, 1.0), engine, epochs=9, lr=0.5, own={"kl_stop": 1e-3})
    assert made.figures["stopped_early"] == 1.0
    assert len(gradients) == 2


def test_cloning_is_maximum_likelihood_of_the_winners(engine: ActionEngine, gradients: list[list[float]]) -> None:
    edits = [*pair(engine, 3.0, 1.0), action(POLICY, engine, (B, B), 2.0, "u"), action(POLICY, engine, A, -1.0, "u", 1)]
    learn("rest_em", edits, engine, own={"keep": 1})
    assert gradients == [by_hand((1 / 3, UP_A), (2 / 3, UP_B))]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [0.6, 0.9, 1.0])
def test_ratios_are_one_on_policy_however_it_was_sampled(temperature: float, top_p: float) -> None:
    """With the sampling log-probabilities that an edit carries; then they follow the sampling distribution."""
    policy, engine = Logits((1.0, 0.2, -0.5, -3.0)), ActionEngine((0.0,) * 4)
    edits = [action(policy, engine, a, r, index=a, temperature=temperature, top_p=top_p) for a, r in ((0, 2.0), (1, 1.0))]
    made = algorithm(engine, settings("grpo", epochs=1)).improve(policy, edits, {}, 0)
    inside = top_p == 1.0 or all(math.isfinite(x) for j in edits for x in j.edit.completion.logprobs)
    assert inside
    assert made.figures["kl"] == pytest.approx(0.0, abs=1e-6)
    assert made.figures["clipped_share"] == 0.0


def test_clip_and_k3_against_autograd() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, old = (torch.randn(50, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    advantage = torch.randn(50, generator=generator, dtype=torch.float64)
    logp, reference = torch.log_softmax(logits.requires_grad_(), -1), torch.log_softmax(old, -1)
    ratio = (logp - reference).exp()[:, 0]
    (ours,) = torch.autograd.grad(clipped(ratio, advantage, 0.2, 0.3).sum(), logits, retain_graph=True)
    free = ((ratio > 0.8) | (advantage > 0)) & ((ratio < 1.3) | (advantage < 0))  # where the clip does not bind
    (plain,) = torch.autograd.grad((ratio * advantage * free).sum(), logits, retain_graph=True)
    torch.testing.assert_close(ours, plain)
    # In expectation over the policy's own tokens k3 is the KL.
    exact = (logp.exp() * (logp - reference)).sum(-1)
    torch.testing.assert_close((logp.exp() * k3(logp, reference)).sum(-1), exact)
    assert bool((k3(logp, reference) >= 0).all())


def test_generalised_advantages() -> None:
    rewards, values = torch.tensor([0.0, 0.5, 2.0]), torch.tensor([1.0, -1.0, 0.5])
    lam = 0.8
    d = [0 + -1.0 - 1.0, 0.5 + 0.5 + 1.0, 2.0 - 0.5]
    expected = [d[0] + lam * d[1] + lam**2 * d[2], d[1] + lam * d[2], d[2]]
    assert generalised_advantages(rewards, values, lam).tolist() == pytest.approx(expected)
    full = generalised_advantages(rewards, values, 1.0) + values
    assert full.tolist() == pytest.approx([2.5, 2.5, 2.0])  # returns without bootstrapping


def test_value_error_takes_the_worse() -> None:
    value, old, target = torch.tensor([2.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.0])
    assert value_error(value, old, target, 0.2).tolist() == pytest.approx([0.5 * 1.8**2, 0.5 * 0.9**2])


@pytest.mark.parametrize("name", ["reinforce", "grpo", "ppo"])
def test_invalid_edits_get_the_penalty_and_never_a_gain(name: str, engine: ActionEngine, gradients: list[list[float]]) -> None:
    made = learn(name, pair(engine, -0.5, None), engine, own={"invalid_reward": -2.0})
    assert made.figures["invalid"] == 1
    assert gradients[0][B] > 0 > gradients[0][A]  # down with B
    with pytest.raises(Exception, match="invalid_reward"):
        settings(name, own={"invalid_reward": 0.1})


@pytest.mark.parametrize("name", ["reinforce", "grpo", "ppo"])
def test_where_every_level_is_negative_an_invalid_edit_is_no_better_than_the_worst(
    name: str, engine: ActionEngine, gradients: list[list[float]]
) -> None:
    """Of nats (-2.5, say) the penalty of -1 would be the best."""
    edits = [*pair(engine, -2.5, None), action(POLICY, engine, A, -4.0, index=2)]
    found = gather(engine, edits, POLICY, settings(name), GradientSettings(kl=0.0))  # type: ignore[arg-type]
    assert found.rewards == [-2.5, -4.0, -4.0]
    learn(name, edits, engine)
    assert gradients[0][B] >= 0  # never up with B


@pytest.mark.parametrize("name", ["reinforce", "grpo", "rest_em"])
def test_nothing_to_learn_leaves_the_policy(name: str, engine: ActionEngine) -> None:
    judged = [*pair(engine, 1.0, 1.0), *pair(engine, None, None, task="u")]
    made = learn(name, [] if name == "rest_em" else judged, engine)
    assert made.policy is POLICY
    if name != "rest_em":
        assert made.figures["groups_without_signal"] == 2
    assert learn(name, [], engine).policy is POLICY


def test_stale_edits_are_refused_and_counted(engine: ActionEngine, gradients: list[list[float]]) -> None:
    old = Logits((0.4, -0.4))
    edits = [action(old, engine, A, 3.0, index=0), action(POLICY, engine, B, 1.0, index=1)]
    refused = learn("reinforce", edits, engine, own={"baseline": "none", "normalise": "sum"})
    assert refused.figures["stale"] == 1
    assert gradients[-1] == by_hand((1.0, UP_B))


def test_edits_sampled_in_two_ways_are_refused(engine: ActionEngine) -> None:
    edits = [action(POLICY, engine, A, 1.0), action(POLICY, engine, B, 2.0, index=1, temperature=0.5)]
    with pytest.raises(UpdateError, match="several ways"):
        learn("grpo", edits, engine)


def test_a_training_that_diverges_is_an_error(engine: ActionEngine) -> None:
    bad = [action(Logits((math.nan, 0.0)), engine, A, 1.0), action(Logits((math.nan, 0.0)), engine, B, 2.0, index=1)]
    learner = algorithm(engine, settings("reinforce"))
    with pytest.raises(UpdateError, match=r"diverged.*algorithm\.lr"):
        learner.improve(Logits((math.nan, 0.0)), bad, {}, 0)  # type: ignore[arg-type]


WORTH = (0.0, 0.4, 1.0, 0.2)
BANDIT: dict[str, dict[str, Any]] = {
    "rest_em": {"epochs": 2, "lr": 0.1, "batch_size": 4, "own": {"keep": 1}},
    "reinforce": {"lr": 0.2},
    "reinforce none": {"lr": 0.2, "own": {"baseline": "none"}},
    "reinforce mean": {"lr": 0.2, "own": {"baseline": "mean"}},
    "grpo": {"lr": 0.2, "epochs": 2},
    "grpo unscaled": {"lr": 0.2, "epochs": 2, "own": {"scale": False, "kl": 0.01}},
    "ppo": {"lr": 0.2, "epochs": 2},
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BANDIT)
def test_the_best_arm_of_a_bandit_is_found(name: str, seed: int) -> None:
    engine, rng = ActionEngine((0.5, 0.5, -0.5, 0.5)), random.Random(seed)  # the best arm is the least likely at first
    learner = algorithm(engine, settings(name.split()[0], **BANDIT[name]))
    policy: Any = None
    state: State = {}
    for round in range(60):
        made = learner.improve(policy, play(policy, engine, WORTH, rng, tasks=4, k=6), state, round)
        policy, state = made.policy, made.state
    assert float(torch.softmax(torch.tensor(policy.values), -1)[2]) > 0.9
