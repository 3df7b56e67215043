from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from made_updates import mixed_updates, prompts, strong, update

from benchmarks.peft_reference import peft_fit
from selfedit.config import AtOnce
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.model import body
from selfedit.engine.model.body import Body
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training.cohort import Cohort, Member, forwards_of, lr_at, minibatches
from selfedit.engine.training.fit import cohorts, even_cohorts
from selfedit.errors import ModelError, UpdateError
from selfedit.evaluation.peft_parity import distance
from selfedit.types import TrainSequence, Update

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def start_of(engine: TorchEngine, one: Update) -> LoraAdapter:
    return initial_adapter(engine.layout, one.rank, one.alpha, one.seed)


def same_bits(ours: LoraAdapter, theirs: LoraAdapter) -> bool:
    return ours.sha256 == theirs.sha256


def crash_after_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Cohort.step

    def crash(cohort: Cohort, place: AdapterContext) -> None:
        step(cohort, place)
        raise KeyboardInterrupt

    monkeypatch.setattr(Cohort, "step", crash)


def test_k_members_at_once_get_what_peft_gives_each_alone(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]
) -> None:
    engine, updates = engines[family], mixed_updates()
    bank = engine.apply(updates, on=None)
    assert not bank.failed
    references = []
    for k, one in enumerate(updates):
        reference, losses = peft_fit(checkpoints[family], one, start_of(engine, one))
        references.append(reference)
        assert distance(bank.adapter(k), reference) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)
        assert bank.trained_tokens[k] == sum(len(one.sequences[i].ids) for b in minibatches(one) for i in b)
    asked = [prompts(k, (3, 9)) for k in range(len(updates))]
    theirs = engine.answer(asked, on=None, members=engine.bank(references), max_new_tokens=8)
    assert engine.answer(asked, on=None, members=bank, max_new_tokens=8) == theirs


def test_training_lowers_the_loss_and_changes_the_answers(llama: TorchEngine) -> None:
    one = update(1, steps=40, lr=2e-2, batch_size=6)
    bank = llama.apply([one], on=None)
    assert bank.losses[0][-1] < 0.5 * bank.losses[0][0]
    asked = [prompts(3, (4, 6, 8))]
    assert llama.answer(asked, on=None, members=bank, max_new_tokens=8) != llama.answer(asked, on=None, max_new_tokens=8)


def test_only_the_asked_targets_are_trained(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["qwen2"]), device="cpu", targets="paper")
    one = update(2)
    ours = engine.apply([one], on=None).adapter(0)
    assert {path.rpartition(".")[2] for path in ours.tensors} == {"q_proj", "v_proj"}
    reference, _ = peft_fit(checkpoints["qwen2"], one, start_of(engine, one), targets=["q_proj", "v_proj"])
    assert distance(ours, reference) <= 1e-4


def test_an_update_may_adapt_other_modules_than_the_engine(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", targets="gate_proj,up_proj,down_proj")
    policy = engine.apply([update(3, targets="all-linear")], on=None).adapter(0)
    assert {path.rpartition(".")[2] for path in policy.tensors} >= {"q_proj", "o_proj", "up_proj"}
    member = engine.apply([update(4)], on=policy).adapter(0)
    assert {path.rpartition(".")[2] for path in member.tensors} == {"gate_proj", "up_proj", "down_proj"}
    further = engine.apply([update(5, targets="all-linear")], on=None, init=policy).adapter(0)
    assert further.tensors.keys() == policy.tensors.keys()
    assert str(engine.check(update(1, targets="no_such"))).startswith("targets: ")
    with pytest.raises(UpdateError, match="all-linear"):
        engine.apply([update(5), update(5, targets="all-linear")], on=None)


def test_ready_adapters_become_members_as_they_are(llama: TorchEngine) -> None:
    policy, ready = strong(start_of(llama, update(8)), size=0.05), strong(start_of(llama, update(9, rank=5)))
    bank = llama.apply([ready, policy], on=policy)
    assert [bank.adapter(k).sha256 for k in range(2)] == [ready.sha256, policy.sha256]
    assert (bank.losses, bank.trained_tokens, bank.failed) == ([[], []], [0, 0], {})
    assert all(map(math.isnan, bank.shift))
    with pytest.raises(UpdateError, match="divide the changes"):
        llama.apply([ready, update(1)], on=None)


def test_a_ready_adapter_that_does_not_fit_is_refused(llama: TorchEngine) -> None:
    path, (a, b) = next(iter(start_of(llama, update(1)).tensors.items()))
    strange = replace(start_of(llama, update(1)), tensors={path: (a[:, 1:], b)})
    with pytest.raises(ModelError):
        llama.apply([strange], on=None)


def test_order_of_members_does_not_matter(llama: TorchEngine) -> None:
    updates = mixed_updates()
    forward, backward = llama.apply(updates, on=None), llama.apply(updates[::-1], on=None)
    for k in range(len(updates)):
        assert distance(forward.adapter(k), backward.adapter(len(updates) - 1 - k)) <= 1e-4


def test_more_members_than_fit_at_once_train_in_cohorts(llama: TorchEngine, checkpoints: dict[str, Path]) -> None:
    small = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=2))
    updates = [*mixed_updates(), update(9, steps=2)]
    whole, parts = llama.apply(updates, on=None), small.apply(updates, on=None)
    for k in range(len(updates)):
        assert distance(parts.adapter(k), whole.adapter(k)) <= 1e-4


def test_short_members_follow_each_other_in_a_slot_and_get_what_they_get_alone(
    llama: TorchEngine, checkpoints: dict[str, Path]
) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=3))
    steps = [12, 3, 4, 11, 5, 2, 1, 6]
    updates = [update(k, steps=n, rank=1 + k % 3, lr=5e-4 + 1e-4 * k) for k, n in enumerate(steps)]
    (first, *_) = cohorts([Member(k, u, u.steps) for k, u in enumerate(updates)], 3)
    assert [[m.number for m in chain] for chain in first] == [[0], [3, 6], [7, 4]]  # refilled, the longest first
    bank = engine.apply(updates, on=None)
    for k, one in enumerate(updates):
        alone = llama.apply([one], on=None)
        assert distance(bank.adapter(k), alone.adapter(0)) <= 1e-4
        assert bank.losses[k] == pytest.approx(alone.losses[0], rel=1e-4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 8))
def test_every_member_has_one_place_in_one_cohort(steps: list[int], slots: int) -> None:
    members = [Member(k, update(k), n) for k, n in enumerate(steps)]
    planned = cohorts(members, slots)
    assert sorted(m.number for chains in planned for chain in chains for m in chain) == list(range(len(steps)))
    for chains in planned:
        lengths = [sum(m.left for m in chain) for chain in chains]
        assert 1 <= len(chains) <= slots
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] == max(m.left for chain in chains for m in chain)


@pytest.mark.parametrize(("n", "sizes"), [(8, [8]), (12, [6, 6]), (17, [5, 5, 5, 2]), (32, [8, 8, 8, 8])])
def test_cohorts_that_threads_share_are_about_equally_large(n: int, sizes: list[int]) -> None:
    planned = even_cohorts([Member(k, update(k), 6) for k in range(n)], 8)
    assert [len(chains) for chains in planned] == sizes


def test_members_that_pause_or_are_dropped_change_nothing_for_those_that_go_on(llama: TorchEngine) -> None:
    updates = mixed_updates()
    whole, training = llama.apply(updates, on=None), llama.training(updates, on=None)
    early = training.run(until=3).adapter(1)
    assert [len(losses) for losses in training.bank.losses] == [3, 3, 3, 3]
    assert distance(early, llama.apply([updates[1]], on=None).adapter(0)) > 0.1
    training.run(until=5, members=[1, 3])
    bank = training.run(members=[1, 2])
    assert [len(losses) for losses in bank.losses] == [3, 9, 4, 5]
    for k in (1, 2):
        assert distance(bank.adapter(k), whole.adapter(k)) <= 1e-4
    assert training.run(members=[1, 2]) is bank  # nothing left to do


def test_a_large_vocabulary_goes_through_the_head_in_parts(
    family: str, engines: dict[str, TorchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, sizes = engines[family], []
    whole = engine.apply(mixed_updates(), on=None)
    monkeypatch.setattr(body, "LOGITS_AT_ONCE", 7 * 260)
    logits = Body.logits
    monkeypatch.setattr(Body, "logits", lambda self, hidden: sizes.append(len(hidden)) or logits(self, hidden))
    parts = engine.training(mixed_updates(), on=None).run()
    assert max(sizes) == 7
    for k in range(4):
        assert distance(parts.adapter(k), whole.adapter(k)) <= 1e-4
        assert parts.losses[k] == pytest.approx(whole.losses[k], rel=1e-5)


def test_the_loss_is_torchs_own_to_the_last_bit(llama: TorchEngine) -> None:
    """A more exact one gave signs of gradients, and so AdamW's first step, that are nobody else's."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 49_152, generator=generator)
    targets = torch.tensor([7, 40_000, 0])
    body, states = copy.copy(llama.body), [torch.eye(3, requires_grad=True) for _ in range(2)]
    body.logits = lambda hidden: hidden @ logits  # type: ignore[method-assign]
    ours = body.token_losses(states[0], targets)
    theirs = F.cross_entropy(states[1] @ logits, targets, reduction="none")
    assert torch.equal(ours, theirs)
    for some in (ours, theirs):
        some.sum().backward()
    assert torch.allclose(states[0].grad, states[1].grad, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [1, 45, 100])
def test_members_whose_forwards_do_not_fit_together_get_what_they_get_together(
    tokens: int, family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]
) -> None:
    cut = TorchEngine.load(str(checkpoints[family]), device="cpu", at_once=AtOnce(tokens=tokens))
    whole, parts = (engine.apply(mixed_updates(), on=None) for engine in (engines[family], cut))
    for k in range(4):
        assert distance(parts.adapter(k), whole.adapter(k)) <= 1e-4
        assert parts.losses[k] == pytest.approx(whole.losses[k], rel=1e-4)
    assert parts.trained_tokens == whole.trained_tokens


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 120))
def test_every_member_is_in_one_forward_with_as_many_others_as_fit(tokens: list[int], most: int) -> None:
    found = forwards_of(tokens, most)
    assert [row for members in found for row in members] == list(range(len(tokens)))
    for members, after in zip(found, [*found[1:], range(0)], strict=True):
        held = sum(tokens[row] for row in members)
        assert held <= most or len(members) == 1
        assert not after or held + tokens[after.start] > most


@pytest.mark.parametrize("tokens", [1, 20])
def test_a_member_alone_adds_up_the_gradients_of_forwards_that_fit(
    tokens: int, llama: TorchEngine, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = update(3, batch_size=6)
    narrow = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(tokens=tokens))
    longest: list[int] = []
    hidden = Body.packed_hidden
    monkeypatch.setattr(Body, "packed_hidden", lambda body, packed: (longest.append(packed.ids.numel()), hidden(body, packed))[1])
    whole, parts = (engine.apply([one], on=None) for engine in (llama, narrow))
    assert distance(parts.adapter(0), whole.adapter(0)) <= 1e-5
    assert parts.losses[0] == pytest.approx(whole.losses[0], rel=1e-5)
    assert parts.trained_tokens == whole.trained_tokens
    assert max(longest[one.steps + 2 :]) <= 30  # a longer sequence than asked for is a forward of its own


def test_a_training_that_was_interrupted_does_not_go_on(llama: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    training = llama.training(mixed_updates(), on=None)
    training.run(until=2)
    crash_after_a_step(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    with pytest.raises(UpdateError, match="begin a new one"):
        training.run()


def test_a_nan_neighbour_changes_no_bit_of_the_others_across_a_pause(llama: TorchEngine) -> None:
    healthy = mixed_updates()
    sick = [healthy[0], replace(healthy[1], lr=1e30), *healthy[2:]]
    banks = []
    for updates in (healthy, sick):
        training = llama.training(updates, on=None)
        training.run(until=3)
        banks.append(training.run())
    well, ill = banks
    assert list(ill.failed) == [1]
    assert not ill.flat[1].any()
    for k in (0, 2, 3):
        assert same_bits(ill.adapter(k), well.adapter(k))


def test_the_same_call_twice_gives_the_same_bits(llama: TorchEngine) -> None:
    first, second = llama.apply(mixed_updates(), on=None), llama.apply(mixed_updates(), on=None)
    assert torch.equal(first.flat, second.flat)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_nan_neighbour_changes_no_bit_of_the_others(steps: int, llama: TorchEngine) -> None:
    healthy = mixed_updates()
    healthy[1] = replace(healthy[1], steps=steps)
    sick = list(healthy)
    sick[1] = replace(sick[1], lr=1e30)
    well, ill = llama.apply(healthy, on=None), llama.apply(sick, on=None)
    assert list(ill.failed) == [1]
    assert "not finite" in ill.failed[1]
    assert not ill.flat[1].any()
    for k in (0, 2, 3):
        assert same_bits(ill.adapter(k), well.adapter(k))
        assert ill.losses[k] == well.losses[k]
    asked = [prompts(k, (5,)) for k in range(4)]
    assert llama.answer(asked, on=None, members=ill, max_new_tokens=6)[1] == llama.answer(asked, on=None, max_new_tokens=6)[1]


def test_an_infinite_start_is_a_failure_of_its_member(llama: TorchEngine) -> None:
    one = update(1)
    start = start_of(llama, one)
    next(iter(start.tensors.values()))[0][0, 0] = float("inf")
    bank = llama.apply([one], on=None, init=start)
    assert bank.failed == {0: "loss not finite at step 1"}
    assert not bank.flat.any()


def test_init_continues_from_an_adapter(llama: TorchEngine, checkpoints: dict[str, Path]) -> None:
    one = update(6)
    start = strong(start_of(llama, one), size=0.05)
    reference, _ = peft_fit(checkpoints["llama"], one, start)
    assert distance(llama.apply([one], on=None, init=start).adapter(0), reference, start) <= 1e-4


def test_training_on_a_policy_equals_peft_on_merged_weights(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine, updates = engines[family], mixed_updates()[:2]
    policy = strong(start_of(engine, updates[0]), size=0.05)
    policy.save(tmp_path / "policy")
    base = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    merged = PeftModel.from_pretrained(base, tmp_path / "policy").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    bank = engine.apply(updates, on=policy)
    ours = engine.answer([prompts(1, (4, 7)), prompts(2, (9,))], on=policy, members=bank, max_new_tokens=8)
    for k, one in enumerate(updates):
        reference, _ = peft_fit(tmp_path / "merged", one, start_of(engine, one))
        assert distance(bank.adapter(k), reference) <= 1e-4
    checkpoint = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    theirs = TorchEngine(checkpoint, engine.tokenizer, name="merged")
    assert theirs.answer([prompts(1, (4, 7)), prompts(2, (9,))], on=None, members=bank, max_new_tokens=8) == ours


def test_the_base_is_never_mutated_even_by_a_crash(
    family: str, engines: dict[str, TorchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines[family]
    before = engine.base_sha256()
    engine.apply(mixed_updates()[:2], on=None)
    crash_after_a_step(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        engine.apply(mixed_updates(), on=None)
    assert engine.base_sha256() == before
    assert not any(module._forward_hooks or "forward" in vars(module) for module in engine.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in engine.model.parameters())


def test_the_base_hash_sees_one_changed_number(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu")
    before = engine.base_sha256()
    with torch.no_grad():
        next(engine.model.parameters())[0, 0] += 1e-3
    assert engine.base_sha256() != before


def test_bf16_trains_close_to_fp32(checkpoints: dict[str, Path], llama: TorchEngine) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", dtype="bf16")
    ours, exact = engine.apply(mixed_updates(), on=None), llama.apply(mixed_updates(), on=None)
    assert ours.flat.dtype == torch.float32
    for k in range(4):
        assert ours.losses[k] == pytest.approx(exact.losses[k], rel=0.02)
        assert distance(ours.adapter(k), exact.adapter(k)) < 0.4


def test_every_epoch_visits_every_sequence_once() -> None:
    one = update(3, steps=7, batch_size=4)
    batches = minibatches(one)
    assert [len(batch) for batch in batches] == [3] * 7
    for epoch in range(3):
        assert Counter(batches[2 * epoch] + batches[2 * epoch + 1]) == Counter(range(6))
    assert minibatches(one) == batches != minibatches(replace(one, seed=4))


def test_learning_rate_falls_to_nought_after_the_last_step() -> None:
    one = update(1, steps=4, lr=1.0)
    assert [lr_at(one, step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert lr_at(replace(one, schedule="constant"), 3) == 1.0


def text(*ids: int, mask: tuple[bool, ...] | None = None) -> tuple[TrainSequence, ...]:
    return (TrainSequence(ids, mask if mask is not None else (True,) * len(ids)),)


BROKEN = {
    "sequences: there are none": {"sequences": ()},
    "sequences[0]: it is empty": {"sequences": text()},
    "no target tokens": {"sequences": text(5, 6, mask=(True, False))},
    "mask entries": {"sequences": text(5, 6, mask=(True,))},
    "outside the vocabulary": {"sequences": text(5, 260)},
    "model's window of 96": {"sequences": text(*[5] * 97)},
    "rank: 0 ": {"rank": 0},
    "rank: 33 ": {"rank": 33},
    "lr: nan": {"lr": float("nan")},
    "lr: 0.0": {"lr": 0.0},
    "lr: inf": {"lr": float("inf")},
    "steps: 0": {"steps": 0},
    "batch_size: 0": {"batch_size": 0},
    "alpha: 0": {"alpha": 0},
    "weight_decay: -1": {"weight_decay": -1},
    "max_grad_norm: 0": {"max_grad_norm": 0},
    "seed: -1": {"seed": -1},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_an_unusable_update_is_refused_with_member_and_field(reason: str, llama: TorchEngine) -> None:
    broken = replace(update(1), **BROKEN[reason])
    assert reason in str(llama.check(broken))
    with pytest.raises(UpdateError, match="member 1: ") as caught:
        llama.apply([update(2), broken], on=None)
    assert reason in str(caught.value)


def test_a_usable_update_passes_the_check(llama: TorchEngine) -> None:
    assert [llama.check(one) for one in mixed_updates()] == [None] * 4


def test_no_updates_is_an_error(llama: TorchEngine) -> None:
    with pytest.raises(UpdateError):
        llama.apply([], on=None)


def test_another_rank_than_the_initial_adapters_is_refused(llama: TorchEngine) -> None:
    start = start_of(llama, update(1))
    assert "initial adapter" in str(llama.check(update(1, rank=5), start))
    with pytest.raises(UpdateError):
        llama.apply([update(1, rank=5)], on=None, init=start)
