"""Sections of a run's settings: the model, the tasks, edits, the inner loop, guards and the ladder."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..templates import problem_of

Form = str  # the name of a prompt that `Settings.templates` has
Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)] | Auto
# Fields of `ModelSettings` whose "auto" the machine answers, once, before a run. They move a run's numbers by rounding only.
MACHINE_FIELDS = ("device", "dtype", "memory_gib", "members_at_once", "rows_at_once", "tokens_at_once")
# Those of them that only decide about the others: where these are named, they change nothing.
PLANNING_FIELDS = ("memory_gib",)
# What "auto" comes to for the base that ships with the package, and for any other.
_EMBEDDED = {"templates": "world", "targets": "gate_proj,up_proj,down_proj@3:"}
_OTHER = {"templates": "general", "targets": "all-linear"}


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
    templates: Literal["auto", "world", "general", "chat"] = Field(
        "auto",
        description="the texts this model is prompted and trained with. world: those the embedded base was pretrained on; "
        "general: for any base model; chat: for an instruct model, as turns in its tokenizer's chat template (many base models "
        "have one too, and go on with a text better without). auto: world for the embedded base, else general",
    )
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
        "embedded base the feed-forward matrices of its upper half, where new facts interfere least (LOG.md)",
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

    @model_validator(mode="before")
    @classmethod
    def _of_the_base(cls, fields: Any) -> Any:
        """What "auto" comes to for this base is recorded and hashed with the rest: another release may choose otherwise."""
        if not isinstance(fields, dict):
            return fields
        own = _EMBEDDED if fields.get("path", "embedded") == "embedded" else _OTHER
        return fields | {name: value for name, value in own.items() if fields.get(name, "auto") == "auto"}

    @property
    def at_once(self) -> AtOnce:
        """What goes through the model together; what is still "auto" counts as `AtOnce`'s default."""
        asked = (self.members_at_once, self.rows_at_once, self.tokens_at_once)
        return AtOnce(*(d if n == "auto" else n for n, d in zip(asked, AtOnce(), strict=True)))


class TaskSettings(Section):
    """Where contexts come from, and how many are drawn. Train, development and test tasks never overlap."""

    source: str = Field(
        "world",
        description="'world', a tasks file (SQuAD v1 JSON, flat JSON, JSONL), or a folder of text and Markdown files, whose "
        "passages the base writes the probes of",
    )
    passage_chars: int = Field(1000, ge=100, description="longest passage cut from a folder's files, in characters")
    probes_per_passage: int = Field(5, ge=1, description="most probes that the base writes for a folder's passage")
    families: tuple[Literal["e1", "e2", "e3"], ...] = Field(("e1",), description="families of world passages")
    probes_per_kind: int = Field(
        8, ge=1, description="world probes of each kind in one task, at most (8: all that a passage has)"
    )
    per_round: int = Field(12, ge=1, description="training contexts drawn each round")
    dev: int = Field(16, ge=1, description="development tasks: the guards' look, and passage_only's learning rate")
    evaluation: int = Field(60, ge=1, description="held-out tasks of the ladder")
    split: Literal["dev", "test", "all"] = Field(
        "dev",
        description="which held-out tasks a model is tested on; test is ledgered. all: any of a file's or folder's tasks, where "
        "nothing is trained or chosen on them (rounds = 0, one ladder.passage_lr_factors); ledgered, too",
    )


class EditSettings(Section):
    """How self-edits are sampled and bounded."""

    form: Form | Annotated[tuple[Form, ...], Field(min_length=1)] = Field(
        "implications",
        description="which prompt the policy answers: implications, long, very_long, rewrite, self_qa, none (the passage is "
        "just gone on with), or a name from templates; for the world's templates implications, rewrite and self_qa. A list is a "
        "mixture: a task's edits take its forms in turn, or, where samples is above 1, the samples of each edit do. A task that "
        "gets one edit (held-out ones) gets the first form's",
    )
    templates: dict[str, str] = Field(
        {},
        description="texts of your own by name, with {context} and {title} filled in: prompts for form, or others in the place "
        "of those that there are; so also answer ({question}, {title}), open_book ({context}, {question}, {title}) and line "
        "({line}, {title}: a training sequence)",
    )
    rules: Literal["plain", "seal"] = Field(
        "plain",
        description="how an edit's text becomes training sequences. plain: one a line, without list markers, a question with "
        "its answer; seal: as SEAL's public code does it, where numbers stay, a preamble goes and numbered questions are items",
    )
    per_task: int = Field(8, ge=1, description="self-edits sampled for each context")
    samples: int = Field(
        1,
        ge=1,
        description="texts that the policy writes for one self-edit, each by itself: the edit is their lines together, each "
        "line once (SEAL's continued pretraining takes 5 a passage); rest_em only",
    )
    max_new_tokens: int = Field(176, ge=1, description="longest text that the policy writes, in tokens")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_lines: int = Field(24, ge=1, description="lines of a sample that are trained on")
    include_context: bool = Field(True, description="append the raw passage as the last training sequence (SEAL)")

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms of a mixture, or the only one."""
        return (self.form,) if isinstance(self.form, str) else self.form

    @field_validator("templates")
    @classmethod
    def _templates_can_be_filled(cls, own: dict[str, str]) -> dict[str, str]:
        problems = [problem for name, text in own.items() if (problem := problem_of(name, text))]
        if problems:
            raise ValueError("; ".join(problems))
        return own


class InnerSettings(Section):
    """The inner loop: how an edit becomes an adapter. Every trained rung gets the same number of steps, or of epochs."""

    steps: int = Field(12, ge=1, description="optimiser steps, where epochs is 0")
    epochs: int = Field(
        0,
        ge=0,
        description="passes over an edit's sequences (SEAL: 10), in place of a number of steps: an edit of more sequences then "
        "gets more steps, and so do rungs of the ladder whose edits are longer than the raw passage. 0: steps",
    )
    pad_to: int = Field(
        0,
        ge=0,
        description="fill every training sequence up to so many tokens (at most the model's window) with EOS that counts in the "
        "loss and that no token sees, and cut it there, as SEAL's public code does with 2048; 0: one EOS, no padding in the loss",
    )
    batch_size: int = Field(8, ge=1, description="sequences a step")
    lr: float = Field(2e-2, gt=0)
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    seeds: Count = Field(
        1,
        description="inner loops per edit, each with its own seed; the reward is their mean. auto: one, and up to three for "
        "edits that are too close to call (reward.pilot and reward.margin say how that is found out)",
    )

    @field_validator("pad_to")
    @classmethod
    def _something_is_left(cls, pad_to: int) -> int:
        if pad_to == 1:
            raise ValueError("a training sequence needs at least 2 tokens; 0 is no padding")
        return pad_to

    def steps_for(self, n_sequences: int) -> int:
        """Optimiser steps on so many training sequences."""
        return self.epochs * -(-n_sequences // self.batch_size) if self.epochs else self.steps


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
