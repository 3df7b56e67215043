from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from made_updates import mixed_updates, sequence, strong, update
from torch import Tensor

from benchmarks.peft_reference import add_lora, load_base
from selfedit.engine.adapters.lora import Bank, LoraAdapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError, UpdateError
from selfedit.types import TrainSequence

TEMPERATURE = 0.7


def start(engine: TorchEngine, seed: int, rank: int = 4) -> LoraAdapter:
    return strong(engine.initial_adapter(rank=rank, alpha=8.0, seed=seed), seed, 0.1)


def sequences(seed: int, *lengths: int) -> list[TrainSequence]:
    rng = random.Random(seed)
    return [sequence(rng, length, masked=2) for length in lengths]


def any_loss(logprobs: Tensor, entropies: Tensor, hidden: Tensor, old: Tensor) -> Tensor:
    """As in PPO: a clipped ratio with advantages of both signs, an entropy bonus and a value head's error."""
    advantage = torch.linspace(-1, 2, len(old))
    ratio = (logprobs - old).exp()
    clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    value = hidden @ torch.linspace(-1, 1, hidden.shape[1])
    return -(clipped + 0.1 * entropies - 0.01 * value**2).sum()


def by_peft(
    checkpoint: Path, adapter: LoraAdapter, texts: list[TrainSequence], old: Tensor
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """The loss's gradients for A and B of every module by PEFT and autograd, one sequence at a time; and the loss."""
    model = add_lora(load_base(checkpoint), adapter)
    logprobs, entropies, hidden = [], [], []
    for text in texts:
        states: list[Tensor] = []
        hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args, to=states: to.append(args[0]))
        logits = model(input_ids=torch.tensor([text.ids])).logits[0]
        hook.remove()
        wanted = [t for t in range(1, len(text.ids)) if text.mask[t]]
        logp = torch.log_softmax(logits[[t - 1 for t in wanted]] / TEMPERATURE, -1)
        logprobs.append(logp[range(len(wanted)), [text.ids[t] for t in wanted]])
        entropies.append(-(logp.exp() * logp).sum(-1))
        hidden.append(states[0][0, [t - 1 for t in wanted]])
    loss = any_loss(torch.cat(logprobs), torch.cat(entropies), torch.cat(hidden), old)
    loss.backward()
    modules = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    return {n: (m.lora_A["default"].weight.grad, m.lora_B["default"].weight.grad) for n, m in modules.items()}, loss


def test_any_loss_has_pefts_gradients(family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]) -> None:
    engine = engines[family]
    adapters = [start(engine, 1), start(engine, 2, rank=2), start(engine, 3)]
    texts = [sequences(1, 9, 20, 6), sequences(2, 12), sequences(3, 5, 5)]
    bank = engine.bank(adapters)
    (rows,) = bank.parameters()
    with torch.no_grad():
        before = engine.states(texts, on=None, members=bank)
        olds = before.split(before.logprobs(TEMPERATURE) + 0.3 * torch.randn(len(before.targets)))
    states = engine.states(texts, on=None, members=bank)
    made = [states.split(t) for t in (states.logprobs(TEMPERATURE), states.entropies(TEMPERATURE), states.hidden)]
    old = [torch.cat(parts) for parts in olds]
    losses = [any_loss(*(torch.cat(parts[k]) for parts in made), old[k]) for k in range(3)]
    torch.stack(losses).sum().backward()
    assert rows.grad is not None
    for k, adapter in enumerate(adapters):
        expected, loss = by_peft(checkpoints[family], adapter, texts[k], old[k])
        assert float(losses[k].detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
        ours = bank.layout.views(rows.grad[k : k + 1])
        for path, (a, b) in expected.items():
            for mine, theirs in ((ours[path][0][0, : adapter.rank], a), (ours[path][1][0, :, : adapter.rank], b)):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * max(1.0, float(theirs.abs().max())))


def test_torchs_own_optimiser_trains_it_as_fit_does(llama: TorchEngine) -> None:
    one = update(5, steps=4, batch_size=6, schedule="constant", max_grad_norm=1e9)
    bank = llama.bank([llama.initial_adapter(rank=one.rank, alpha=one.alpha, seed=one.seed)])
    optimizer = torch.optim.AdamW(bank.parameters(), lr=one.lr, weight_decay=0.0)
    for _ in range(one.steps):
        optimizer.zero_grad()
        (-llama.states([one.sequences], on=None, members=bank).logprobs().mean()).backward()
        optimizer.step()
    fitted = llama.apply([one], on=None)
    change = torch.linalg.vector_norm(fitted.flat - bank.flat.detach())
    begun = llama.bank([llama.initial_adapter(rank=one.rank, alpha=one.alpha, seed=one.seed)])
    assert float(change / torch.linalg.vector_norm(fitted.flat - begun.flat)) < 1e-4
    assert bank.adapter(0).rank == one.rank


def test_several_forwards_add_up_and_a_kept_graph_can_be_used_twice(llama: TorchEngine) -> None:
    bank = llama.bank([start(llama, 1)])
    parameters = bank.parameters()
    first, second = (
        llama.states([batch], on=None, members=bank).logprobs().sum() for batch in (sequences(1, 9, 5), sequences(2, 14))
    )
    (both,) = torch.autograd.grad(first + second, parameters, retain_graph=True)
    (one,) = torch.autograd.grad(first, parameters, retain_graph=True)
    (other,) = torch.autograd.grad(second, parameters)
    (thrice,) = torch.autograd.grad(3 * first, parameters)
    torch.testing.assert_close(both, one + other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(thrice, 3 * one, rtol=1e-4, atol=1e-5)


def test_a_failing_member_leaves_the_others_gradients(llama: TorchEngine) -> None:
    def gradients(bad: bool) -> Tensor:
        bank = llama.bank([start(llama, 1), start(llama, 2)])
        if bad:
            bank.flat[1] = torch.nan
        (rows,) = bank.parameters()
        states = llama.states([sequences(1, 9), sequences(2, 9)], on=None, members=bank)
        torch.cat(states.split(states.logprobs())[0]).sum().backward()
        assert rows.grad is not None
        return rows.grad[0]

    assert torch.equal(gradients(False), gradients(True))


def test_the_base_gets_no_gradients_and_stays_bare(llama: TorchEngine) -> None:
    before = llama.base_sha256()
    bank = llama.bank([start(llama, 1)])
    bank.parameters()
    llama.states([sequences(1, 9)], on=None, members=bank).logprobs().sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in llama.model.parameters())
    assert not any("forward" in module.__dict__ for module in llama.model.modules())
    assert llama.base_sha256() == before


def test_without_parameters_states_are_the_scores(llama: TorchEngine) -> None:
    bank = llama.apply(mixed_updates()[:2], on=None)
    texts = [sequences(1, 9, 12), sequences(2, 7)]
    states = llama.states(texts, on=None, members=bank)
    assert not states.hidden.requires_grad
    pairs = [[(text.ids[:2], text.ids[2:]) for text in some] for some in texts]
    for row, scored in zip(states.split(states.logprobs()), llama.score(pairs, on=None, members=bank), strict=True):
        for ours, theirs in zip(row, scored, strict=True):
            assert ours.tolist() == pytest.approx(theirs.logprobs, abs=1e-5)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.5)])
def test_what_was_sampled_is_scored_as_it_was_sampled(llama: TorchEngine, temperature: float, top_p: float) -> None:
    """So ratios are 1 on policy, whatever the temperature and top_p."""
    prompts = [[1, 5, 9], [1, 20, 30, 40]]
    written = llama.sample(prompts, [3, 4], on=None, max_new_tokens=12, temperature=temperature, top_p=top_p)
    texts = [
        TrainSequence(w.prompt_ids + w.token_ids, (False,) * len(w.prompt_ids) + (True,) * len(w.token_ids)) for w in written
    ]
    states = llama.states([texts], on=None)
    for ours, one in zip(states.split(states.logprobs(temperature, top_p))[0], written, strict=True):
        assert ours.tolist() == pytest.approx(one.logprobs, abs=1e-4)


def test_a_policy_with_targets_of_its_own_can_be_trained_further(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", targets="paper")
    policy = engine.initial_adapter(rank=3, alpha=6.0, seed=0, targets="all-linear")
    bank = engine.bank([policy], targets="all-linear")
    (rows,) = bank.parameters()
    engine.states([sequences(1, 9)], on=None, members=bank).logprobs().sum().backward()
    assert rows.grad is not None
    assert len(bank.layout.targets) == 14
    with pytest.raises(ModelError, match="no target here"):
        engine.bank([policy])


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([[], []], UpdateError, "member 0: it has no sequences"),
        ([[TrainSequence((5, 6), (True, True))], [TrainSequence((5, 999), (True, True))]], UpdateError, "member 1: .*outside"),
        ([[TrainSequence((5, 6), (True, False))]] * 2, UpdateError, "no target tokens"),
        ([[TrainSequence((5, 6), (True, True))]], SettingsError, "1 groups for a bank of 2"),
    ],
)  # fmt: skip
def test_bad_batches_are_refused(
    llama: TorchEngine, texts: list[list[TrainSequence]], error: type[Exception], message: str
) -> None:
    bank: Bank = llama.bank([start(llama, 1), start(llama, 2)])
    with pytest.raises(error, match=message):
        llama.states(texts, on=None, members=bank)


@pytest.mark.parametrize(("rank", "alpha"), [(0, 8.0), (999, 8.0), (4, float("nan")), (4, -1.0)])
def test_bad_adapters_are_refused(llama: TorchEngine, rank: int, alpha: float) -> None:
    with pytest.raises(SettingsError, match=r"rank .* alpha"):
        llama.initial_adapter(rank=rank, alpha=alpha, seed=0)
