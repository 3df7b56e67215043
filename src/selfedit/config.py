"""A run's settings. Torch-free; a field's description is its help, written once.

A run is one TOML file; every field has a default that is right for the embedded world. `PRESETS` holds starting points;
``preset = "paper"`` in a file starts from one, the file's own fields win.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import SettingsError
from .templates import TEMPLATES, Templates

Form = Literal["implications", "rewrite", "self_qa"]
Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)] | Auto
# Fields of `ModelSettings` whose "auto" the machine answers, once, before a run. They move a run's numbers by rounding only.
MACHINE_FIELDS = ("device", "dtype", "memory_gib", "members_at_once", "rows_at_once", "tokens_at_once")
# Those of them that only decide about the others: where these are named, they change nothing.
PLANNING_FIELDS = ("memory_gib",)


class Section(BaseModel):
    """Base of every settings section: unknown fields are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AtOnce(NamedTuple):
    """How much goes through the model together: members in training, rows in decoding, tokens in a pass without gradients.

    The defaults are where CPUs are busy; more of each gains little.
    """

    members: int = 8
    rows: int = 128
    tokens: int = 8192


class ModelSettings(Section):
    """The frozen base, and how it is run."""

    path: str = Field("embedded", description="'embedded', a directory in the HF format, or a hub id")
    templates: Literal["auto", "world", "general"] = Field("auto", description="auto: world for the embedded base")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="dtype of the base and the computation (adapters' masters stay fp32); auto: bf16 where the device has "
        "matrix units for it (CUDA, x86 with AMX) and a short measurement finds it at least 1.1 times as fast, or where fp32 "
        "does not fit; else fp32",
    )
    device: str = Field("auto", description="auto: cuda where present, else cpu")
    targets: str = Field(
        "auto",
        description="modules that adapters change: all-linear, paper (q and v), or comma-separated suffixes, each also in some "
        "layers only (all-linear@4: without the first four, paper@-2: in the last two); auto: all-linear, and for the "
        "embedded base its feed-forward matrices, where new facts interfere least",
    )
    memory_gib: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto",
        description="memory the run plans with, in GiB; auto: 0.9 of a GPU's free memory, half of the RAM available to a CPU",
    )
    members_at_once: Count = Field(
        "auto",
        description="adapters trained in one set of tensor operations; on a CPU up to 4 such sets run on threads of their own; "
        "auto: what fits into the memory, at most 8 on a CPU",
    )
    rows_at_once: Count = Field("auto", description="texts written in one batch; auto: what fits, at most 128")
    tokens_at_once: Count = Field(
        "auto", description="tokens in one pass that only scores; auto: what fits, at most 8192"
    )
    deterministic: bool = Field(
        False,
        description="compute with torch's deterministic algorithms: on one machine, with the same versions and threads, "
        "the same settings then give the same digits (a CPU gives them anyway; a GPU becomes slower, and none was tried yet). An "
        "operation that has no such algorithm there stops the run. What is auto can come out differently another time: repeat a "
        "run from the config.toml in its directory",
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the checkpoint")
    allow_pickle: bool = Field(False, description="load pickled weights where there is no safetensors file")

    @property
    def at_once(self) -> AtOnce:
        """What goes through the model together; what is still "auto" counts as `AtOnce`'s default."""
        asked = (self.members_at_once, self.rows_at_once, self.tokens_at_once)
        return AtOnce(*(d if n == "auto" else n for n, d in zip(asked, AtOnce(), strict=True)))


class TaskSettings(Section):
    """Where contexts come from, and how many are drawn. Train, development and test tasks never overlap."""

    source: str = Field("world", description="'world', or a tasks file (SQuAD v1 JSON, flat JSON, JSONL)")
    families: tuple[Literal["e1", "e2", "e3"], ...] = Field(("e1",), description="families of world passages")
    probes_per_kind: int = Field(2, ge=1, description="world probes of each kind in one task")
    per_round: int = Field(12, ge=1, description="training contexts drawn each round")
    dev: int = Field(8, ge=1, description="development tasks: the guards' look, and passage_only's learning rate")
    evaluation: int = Field(60, ge=1, description="held-out tasks of the ladder")
    split: Literal["dev", "test"] = Field("dev", description="which held-out tasks the ladder uses; test is ledgered")


class EditSettings(Section):
    """How self-edits are sampled and bounded."""

    form: Form = Field("implications", description="which prompt the policy answers")
    per_task: int = Field(8, ge=1, description="self-edits sampled for each context")
    max_new_tokens: int = Field(176, ge=1, description="longest self-edit, in tokens")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_lines: int = Field(24, ge=1, description="lines of an edit that are trained on")
    include_context: bool = Field(True, description="append the raw passage as the last training sequence (SEAL)")


class InnerSettings(Section):
    """The inner loop: how an edit becomes an adapter. Every trained rung gets the same number of steps."""

    steps: int = Field(16, ge=1, description="optimiser steps")
    batch_size: int = Field(8, ge=1, description="sequences a step")
    lr: float = Field(1e-2, gt=0)
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    seeds: Count = Field(
        1,
        description="inner loops per edit, each with its own seed; the reward is their mean. auto: one, and up to three for "
        "edits that are too close to call (reward.pilot and reward.margin say how that is found out)",
    )


class RewardSettings(Section):
    """What an outcome is worth."""

    metric: Literal["exact", "exact_match", "token_f1", "offline", "logprob", "perplexity"] = Field(
        "exact",
        description="exact: greedy text equals the gold (one teacher-forced pass); exact_match and token_f1: SQuAD's, "
        "on decoded text; offline: right for the offline grader (docs/grader.md), on decoded text; "
        "logprob: gold log-likelihood per token; perplexity: minus log-perplexity of a validation text",
    )
    max_answer_tokens: int = Field(16, ge=1)
    pilot: int = Field(
        4,
        ge=0,
        description="edits of each round that get a second seed where inner.seeds is 1 or auto: they show how much of the reward "
        "is noise; 0: none",
    )
    margin: float = Field(
        1.0,
        ge=0,
        description="inner.seeds auto: a kept edit and another of its context get more seeds while they differ by at most this "
        "many standard errors",
    )
    validation_text: str = Field("", description="file whose perplexity is the reward")
    custom: str = Field("", description="'module:function' of the user's own: (task, answers) -> float")


class GradientSettings(Section):
    """Policy gradients: reinforce, grpo and ppo (rest_em clones instead, and takes nothing from here)."""

    minibatch: int = Field(32, ge=1, description="edits of one optimiser step")
    normalise: Literal["token", "sequence", "sum"] = Field(
        "token",
        description="a minibatch's loss is the mean over its tokens, over its edits of each one's mean over tokens, or over its "
        "edits of each one's sum (the gradient of the expected reward)",
    )
    max_grad_norm: float = Field(1.0, gt=0)
    entropy: float = Field(0.0, ge=0, description="weight of an entropy bonus, per token")
    invalid_reward: float = Field(
        -1.0, le=0, description="what an edit that could not be applied is worth, in the units of rank_by; never a gain"
    )
    stale: Literal["refuse", "weight"] = Field(
        "refuse",
        description="edits that another policy wrote: refused, or kept with importance weights; counted either way",
    )
    baseline: Literal["none", "mean", "moving_average", "leave_one_out"] = Field(
        "leave_one_out", description="reinforce: what is taken from an edit's reward (leave_one_out is RLOO)"
    )
    moving_average: float = Field(0.8, ge=0, lt=1, description="reinforce: share of the old average kept each round")
    scale: bool = Field(
        True, description="grpo, ppo: divide advantages by their standard deviation (of the task's, of all edits)"
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio's lower bound is 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="the ratio's upper bound is 1 + clip_high")
    kl: float = Field(0.0, ge=0, description="weight of KL(policy || frozen base), nats")
    kl_in: Literal["loss", "reward"] = Field(
        "loss", description="where that KL counts: in the loss (k3), or in the reward"
    )
    kl_target: float = Field(
        0.0, ge=0, description="ppo with kl_in = 'reward': the KL a token that its price adapts to; 0: fixed"
    )
    kl_stop: float = Field(
        0.0, ge=0, description="end a round's training where KL(old || new) a token is above this; 0: never"
    )
    gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount a token")
    lam: float = Field(0.95, ge=0, le=1, description="ppo: lambda of the generalised advantages")
    value_weight: float = Field(0.1, ge=0, description="ppo: weight of the value head's error")
    value_clip: float = Field(
        0.2, gt=0, description="ppo: how far a value may move in a round before its error counts in full"
    )


class AlgorithmSettings(Section):
    """How the policy learns from a round. The defaults are rest_em's; each other name starts from its own (`ALGORITHMS`)."""

    name: Literal["rest_em", "reinforce", "grpo", "ppo"] = Field(
        "rest_em",
        description="rest_em: fine-tuning on the best edits (SEAL, section 3.1); the others are policy gradients",
    )
    rank_by: tuple[Literal["gain", "logprob"], ...] = Field(
        ("logprob",),
        min_length=1,
        description="what orders a context's edits, the first first: the gain in reward; the gold answers' log-likelihood, which "
        "has fewer ties and less noise than the accuracy on a few probes. Policy gradients take the first as the reward",
    )
    keep: int = Field(2, ge=1, description="rest_em: best edits kept per context")
    positive_only: bool = Field(True, description="rest_em: keep an edit only if its gain over no edit is positive")
    confidence: float = Field(
        0.0,
        ge=0,
        description="rest_em: with positive_only, a gain has to be above so many of its standard errors over seeds",
    )
    all_correct: bool = Field(False, description="rest_em: keep an edit only if it made every probe right")
    weighted: bool = Field(False, description="rest_em: weight winners by what they gained")
    replay: int = Field(
        0, ge=0, description="rest_em: winners of earlier rounds that are cloned again, the latest first"
    )
    epochs: int = Field(4, ge=1, description="passes over a round's edits (rest_em: over the winners)")
    batch_size: int = Field(8, ge=1, description="edits in one forward (rest_em: and of one optimiser step)")
    lr: float = Field(2e-3, gt=0)
    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    targets: str = Field(
        "all-linear", description="modules that the policy's adapter changes (the inner loop's are model.targets)"
    )
    gradient: GradientSettings = GradientSettings()


# What an algorithm's own settings are where nobody set them.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "rest_em": {},
    "reinforce": {"epochs": 1, "lr": 1e-3},
    "grpo": {"epochs": 2, "lr": 1e-3, "gradient": {"kl": 0.01}},
    "ppo": {"epochs": 2, "lr": 1e-3, "gradient": {"kl": 0.01, "kl_in": "reward", "kl_stop": 0.1}},
}


class GuardSettings(Section):
    """Budgets; a round that goes over one is rolled back."""

    anchors: int = Field(24, ge=1, description="anchor texts for KL, and closed-book questions for retention")
    max_kl: float = Field(0.5, gt=0, description="KL(policy || base) per token on anchors, nats")
    max_retention_drop: float = Field(0.1, gt=0, description="closed-book accuracy lost, absolute")
    max_norm_ratio: float = Field(1.0, gt=0, description="largest ||dW|| / ||W|| of a module")
    max_dev_drop: float = Field(0.15, gt=0, description="development accuracy lost against the best round so far")


Rung = Literal[
    "no_edit",
    "passage_only",
    "base_edits",
    "base_self_qa",
    "rounds",
    "best_of_k",
    "perfect_edits",
    "rl_edits_base_learner",
    "passage_only_rl_learner",
    "in_context",
]
ALL_RUNGS: tuple[Rung, ...] = Rung.__args__  # type: ignore[attr-defined]


class LadderSettings(Section):
    """Which ways of preparing a model are compared, on the same held-out tasks."""

    rungs: tuple[Rung, ...] = Field(ALL_RUNGS, description="those a data set cannot have are left out")
    oracle_tasks: int = Field(4, ge=1, description="tasks of best_of_k")
    middle_tasks: int = Field(
        12, ge=1, description="tasks of the rounds before the last, and of the controls that take the RL model apart"
    )
    middle_rounds: tuple[int, ...] | Literal["all"] = Field(
        "all", description="which of the rounds before the last get a rung, by number"
    )
    passage_lr_factors: tuple[float, ...] = Field(
        (0.5, 1.0), description="multiples of inner.lr; the best on development is passage_only's"
    )


class Settings(Section):
    """Everything that decides a run's numbers."""

    preset: str = Field("demo", description="the starting point these settings were made from")
    seed: int = Field(0, ge=0, description="the root of every random number")
    rounds: int = Field(3, ge=1, description="rounds of reinforcement learning")
    model: ModelSettings = ModelSettings()
    tasks: TaskSettings = TaskSettings()
    edits: EditSettings = EditSettings()
    inner: InnerSettings = InnerSettings()
    reward: RewardSettings = RewardSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    guards: GuardSettings = GuardSettings()
    ladder: LadderSettings = LadderSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.reward.metric == "perplexity" and not self.reward.validation_text:
            raise ValueError("reward.metric = 'perplexity' needs reward.validation_text, a text file")
        if self.inner.seeds == "auto" and not self.reward.pilot:
            raise ValueError(
                "inner.seeds = 'auto' needs reward.pilot, at least 1: it measures how much a seed moves a reward"
            )
        return self

    @property
    def targets(self) -> str:
        """The modules that adapters change."""
        if self.model.targets != "auto":
            return self.model.targets
        return "gate_proj,up_proj,down_proj" if self.model.path == "embedded" else "all-linear"

    @property
    def templates(self) -> Templates:
        """The texts this run prompts and trains with."""
        name = self.model.templates
        if name == "auto":
            name = "world" if self.model.path == "embedded" else "general"
        return TEMPLATES[name]

    def on_machine(self, **values: Any) -> Settings:
        """These settings with some of `MACHINE_FIELDS` resolved."""
        return self.model_copy(update={"model": self.model.model_copy(update=values)})

    def sha256(self) -> str:
        """Hash of the settings; the same hash means the same plan.

        Without ``memory_gib``, which "auto" takes from what is free at the moment: what follows from it is in the hash.
        """
        fields = self.model_dump_json(exclude={"model": set(PLANNING_FIELDS)})
        return hashlib.sha256(fields.encode()).hexdigest()


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    # The published recipe (arXiv 2506.10943, section 4.2 and appendix) for a 1-7B model on one GPU.
    "paper": {
        "rounds": 2,
        "model": {"dtype": "bf16", "targets": "paper"},
        "tasks": {"per_round": 50, "evaluation": 200},
        "edits": {"per_task": 5, "max_new_tokens": 1024, "temperature": 1.0, "top_p": 0.95, "max_lines": 200},
        "inner": {"steps": 100, "batch_size": 1, "lr": 1e-3, "rank": 32, "alpha": 64.0, "seeds": 3},
        "reward": {"metric": "exact_match", "max_answer_tokens": 64},
        "algorithm": {
            "keep": 1,
            "positive_only": False,
            "rank_by": ["gain"],
            "epochs": 2,
            "batch_size": 10,
            "lr": 3e-4,
            "rank": 64,
            "alpha": 128.0,
        },
    },
}


def make_settings(fields: dict[str, Any], where: str = "settings") -> Settings:
    """Settings from (nested) fields on top of their preset; `SettingsError` names what is wrong and where."""
    preset = fields.get("preset", "demo")
    if preset not in PRESETS:
        raise SettingsError(f"{where}: no preset {preset!r}; there are {', '.join(PRESETS)}")
    algorithm = fields.get("algorithm")
    name = algorithm.get("name", "rest_em") if isinstance(algorithm, dict) else "rest_em"
    own = {"algorithm": ALGORITHMS.get(name, {})} if isinstance(name, str) else {}
    try:
        return Settings.model_validate(_merged(_merged(PRESETS[preset], own), fields))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{where}: {len(lines)} bad setting(s)\n" + "\n".join(lines)) from None


def load_settings(path: Path, **overrides: Any) -> Settings:
    """Settings from a TOML file, with ``overrides`` (nested fields) on top."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); give a TOML file of settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML ({error})") from None
    return make_settings(_merged(fields, overrides), str(path))


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def differing_fields(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two dumped settings differ."""
    names: list[str] = []
    for name in sorted(set(a) | set(b)):
        x, y = a.get(name), b.get(name)
        if isinstance(x, dict) and isinstance(y, dict):
            names += differing_fields(x, y, f"{prefix}{name}.")
        elif json.dumps(x) != json.dumps(y):
            names.append(prefix + name)
    return names


def sub_seed(root: int, *names: object) -> int:
    """A named sub-seed of the run's root seed: 32 bits that depend on the root and the names alone."""
    return zlib.crc32("/".join(map(str, (root, *names))).encode())
