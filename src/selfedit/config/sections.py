"""Sections of a run's settings: the model, the tasks, edits, the inner loop, guards and the ladder."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from .. import plugins
from ..templates import TEMPLATE_ARGUMENTS, problem_of
from ..types import Recipe
from .plugged import PathText, PluggedSection, Section, plugged

Form = str  # the name of a prompt that `Settings.templates` has
Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)] | Auto
# Fields of `ModelSettings` whose "auto" the machine answers, once, before a run. They move a run's numbers by rounding only.
MACHINE_FIELDS = ("device", "dtype", "memory_gib", "members_at_once", "rows_at_once", "tokens_at_once")
# Those of them that only decide about the others: where these are named, they change nothing.
PLANNING_FIELDS = ("memory_gib",)
# The values of "auto" for the base that ships with the package, and for any other.
_EMBEDDED = {"templates": "world", "targets": "gate_proj,up_proj,down_proj@3:"}
_OTHER = {"templates": "general", "targets": "all-linear"}

# What a chat template is given by those who apply it.
_RESERVED = {"messages", "conversation", "chat_template", "tools", "documents", "add_generation_prompt", "tokenize"} | {
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"),
    *("return_assistant_tokens_mask", "strftime_now"),
}


class AtOnce(NamedTuple):
    """How much goes through the model together: members in training, rows in decoding, tokens in a pass.

    The defaults are where CPUs are busy; more of each gains little.
    """

    members: int = 8
    rows: int = 128
    tokens: int = 8192


class ModelSettings(Section):
    """The frozen base model, and how it is run."""

    path: PathText = Field(
        "embedded",
        description="'embedded', the name of a model that was fetched or imported (selfedit model list), a directory in the "
        "Hugging Face format, or a hub id",
    )
    templates: Literal["auto", "world", "general", "chat"] = Field(
        "auto",
        description="the texts with which this model is prompted and trained. world: those that the embedded base was "
        "pretrained on. general: for any base model. chat: for an instruct model, as turns in its tokenizer's chat template "
        "(many base models have one too, but continue a text better without it). auto: world for the embedded base, else "
        "general",
    )
    template_arguments: dict[str, bool | int | float | str] = Field(
        {},
        description="chat: arguments of the tokenizer's chat template, such as {enable_thinking = true}. What is not given: "
        "enable_thinking, thinking and reasoning are false and thinking_budget is 0, so that a model does not think where its "
        "template has such a switch (thoughts are never trained on nor graded), and today is 2026-01-01, the date that a "
        "template sees on whatever day the run goes on",
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="dtype of the base and of the computation (adapters are kept in fp32). auto: bf16 if the device has "
        "matrix units for it (CUDA, x86 with AMX) and a short measurement finds it at least 1.1 times as fast, or if fp32 does "
        "not fit into memory; else fp32",
    )
    device: str = Field("auto", description="where the model runs, such as cuda or cpu. auto: cuda if there is one, else cpu")
    targets: str = Field(
        "auto",
        description="modules that adapters change: all-linear, paper (q and v), or comma-separated suffixes of names; with a "
        "range of layers if wanted (all-linear@4: without the first four; paper@-2: in the last two). auto: all-linear; for "
        "the embedded base the feed-forward matrices of its upper half, where new facts interfere least (LOG.md)",
    )
    memory_gib: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto",
        description="memory that the run plans with, in GiB. auto: 0.9 of a GPU's total memory minus 1 GiB; on a CPU half of "
        "the RAM or of this process's limit (control group, RLIMIT_AS), rounded down. It does not depend on how much is free",
    )
    members_at_once: Count = Field(
        "auto",
        description="adapters trained in one set of tensor operations; on a CPU up to 4 such sets run on threads of their "
        "own. auto: what fits into memory, on a CPU at most 8",
    )
    rows_at_once: Count = Field("auto", description="texts written in one batch. auto: what fits into memory, at most 128")
    tokens_at_once: Count = Field(
        "auto",
        description="tokens per pass that scores, or trains adapters or the policy; minibatches with more of them take several "
        "passes, whose gradients add up to the same. auto: what fits into memory, at most 8192",
    )
    deterministic: bool = Field(
        False,
        description="use torch's deterministic algorithms: on one machine, with the same versions and threads, the same "
        "settings then give the same digits. A CPU does so anyway; a GPU becomes slower, and was not tried yet. An operation "
        "without such an algorithm stops the run. dtype = auto is measured and may come out differently at another time: name "
        "the dtype, or repeat a run from the config.toml in its directory",
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the checkpoint")
    allow_pickle: bool = Field(False, description="load pickled weights if there is no safetensors file")

    @model_validator(mode="before")
    @classmethod
    def _of_the_base(cls, fields: Any) -> Any:
        """The values of "auto" for this base is recorded and hashed with the rest: another release may choose otherwise."""
        if not isinstance(fields, dict):
            return fields
        own = _EMBEDDED if fields.get("path", "embedded") == "embedded" else _OTHER
        fields = fields | {name: value for name, value in own.items() if fields.get(name, "auto") == "auto"}
        given = fields.get("template_arguments", {})
        if fields["templates"] == "chat" and isinstance(given, dict):
            named = {name: value.isoformat() if isinstance(value, date) else value for name, value in given.items()}
            fields |= {"template_arguments": {**TEMPLATE_ARGUMENTS, **named}}
        return fields

    @model_validator(mode="after")
    def _arguments_can_be_given(self) -> ModelSettings:
        given = self.template_arguments
        if given and self.templates != "chat":
            raise ValueError(f"template_arguments are for templates = 'chat', and these are {self.templates!r}: leave them out")
        if reserved := sorted(_RESERVED & set(given)):
            raise ValueError(f"template_arguments can't have {reserved[0]!r}: the run itself gives it to the template")
        try:
            date.fromisoformat(str(given.get("today", "2026-01-01")))
        except ValueError:
            raise ValueError(f"template_arguments.today is {given['today']!r}: give a date like 2026-01-31") from None
        return self

    @property
    def at_once(self) -> AtOnce:
        """What goes through the model together; what is still "auto" counts as `AtOnce`'s default."""
        asked = (self.members_at_once, self.rows_at_once, self.tokens_at_once)
        return AtOnce(*(d if n == "auto" else n for n, d in zip(asked, AtOnce(), strict=True)))


class TaskSettings(PluggedSection):
    """Where tasks come from, and how many are drawn. Train, development and test tasks never overlap."""

    groups: ClassVar[tuple[str, ...]] = ("tasks",)
    source: PathText = Field(
        "world",
        description="'world', a tasks file (SQuAD, JSON, JSONL, Parquet), a folder of text and Markdown files (the base "
        "then writes the questions), or the name of a plug-in (selfedit plugins)",
    )
    passage_chars: int = Field(1000, ge=100, description="folder: longest passage, in characters")
    probes_per_passage: int = Field(5, ge=1, description="folder: questions that the base writes per passage, at most")
    families: tuple[Literal["e1", "e2", "e3"], ...] = Field(
        ("e1",), description="world: families of passages (e1, e2, e3: with one, two or three entities)"
    )
    probes_per_kind: int = Field(
        8, ge=1, description="world: questions of each kind per task, at most (8: all that a passage has)"
    )
    per_round: int = Field(12, ge=1, description="training tasks per round")
    dev: int = Field(16, ge=1, description="development tasks, for the guards and for the learning rate of passage_only")
    evaluation: int = Field(60, ge=1, description="held-out tasks of the ladder")
    split: Literal["dev", "test", "all"] = Field(
        "dev",
        description="which held-out tasks the ladder uses: dev, or test (every look at test is written to the ledger). all: "
        "any task of a file or folder, if nothing is trained or chosen on them (rounds = 0, one entry in "
        "ladder.passage_lr_factors); also written to the ledger",
    )
    split_by: Literal["passage", "title"] = Field(
        "passage",
        description="a tasks file: what is never divided between splits. title: all passages of one title, so that a model is "
        "tested on articles that it was not trained on",
    )

    def named(self) -> list[tuple[str, str]]:
        """The source, where it is a plug-in."""
        return [("tasks", self.source)] if self.is_plugged else []

    @property
    def is_plugged(self) -> bool:
        """The source is a plug-in's name, not a path (files and folders are named by their paths)."""
        return self.source in plugins.names("tasks") and self.source not in ("file", "folder")


class EditSettings(PluggedSection):
    """How self-edits are sampled and bounded."""

    groups: ClassVar[tuple[str, ...]] = ("edits", "policies")
    kind: Annotated[str, plugged("edits")] = Field(
        "text",
        description="the kind of self-edits. text: lines to train on. directives: the policy also chooses how the model is "
        "trained on them ([edits.directives]). Or the name of a plug-in (selfedit plugins)",
    )
    policy: Annotated[str, plugged("policies", optional=True)] = Field(
        "", description="the plug-in that writes self-edits; empty: the one that belongs to the kind"
    )
    form: Form | Annotated[tuple[Form, ...], Field(min_length=1)] = Field(
        "implications",
        description="which prompt asks for an edit: implications, long, very_long, rewrite, self_qa, none (no instruction: "
        "the model continues the passage), or a name from templates; with the world's templates implications, rewrite and "
        "self_qa. A list is a mixture: a task's edits use its forms in turn (if samples is above 1, the samples of each edit "
        "do). A held-out task has one edit, with the first form",
    )
    templates: dict[str, str] = Field(
        {},
        description="texts of your own by name. A prompt for form, new or instead of a built-in one, has {context} and may "
        "have {title}. These names replace other texts: answer ({question}, {title}), open_book ({context}, {question}, "
        "{title}), line ({line}, {title}; a training sequence), directives ({context}, {title}, {options}), system (chat: the "
        "message before every turn, in place of the chat template's own)",
    )
    rules: Literal["plain", "seal"] = Field(
        "plain",
        description="how an edit's text becomes training sequences. plain: one per line, without list markers, "
        "code fences, JSON's signs, headings, greetings and offers, a question together with its answer. seal: as in SEAL's "
        "public code, which keeps numbers, drops a preamble, and takes numbered "
        "questions as items",
    )
    per_task: int = Field(8, ge=1, description="self-edits sampled per task")
    samples: int = Field(
        1,
        ge=1,
        description="texts that the policy writes for one self-edit: the edit is all their lines, each line once (SEAL's "
        "continued pretraining uses 5 per passage). Above 1 only with rest_em",
    )
    max_new_tokens: int = Field(176, ge=1, description="longest text that the policy writes, in tokens")
    temperature: float = Field(1.0, gt=0, description="temperature at which self-edits are sampled")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus from which self-edits are sampled")
    max_lines: int = Field(24, ge=1, description="lines per text that are trained on, at most")
    include_context: bool = Field(True, description="also train on the raw passage, as the last training sequence (SEAL)")

    def named(self) -> list[tuple[str, str]]:
        """The kind of self-edits, and the policy that writes them."""
        return [("edits", self.kind), ("policies", self.writer)]

    @property
    def writer(self) -> str:
        """The policy: the one named, or the kind's own."""
        return self.policy or str(plugins.find("edits", self.kind).policy)

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

    steps: int = Field(12, ge=1, description="optimiser steps, if epochs is 0")
    epochs: int = Field(
        0,
        ge=0,
        description="passes over an edit's sequences (SEAL: 10), instead of a fixed number of steps: longer edits then get "
        "more steps, also on rungs of the ladder whose edits are longer than the raw passage. 0: use steps",
    )
    pad_to: int = Field(
        0,
        ge=0,
        description="fill every training sequence up to this many tokens (at most the model's window) with EOS tokens that "
        "count in the loss and that no token attends to, and cut longer ones, as SEAL's public code does with 2048. 0: one EOS "
        "token, no padding in the loss",
    )
    batch_size: int = Field(8, ge=1, description="sequences per step")
    lr: float = Field(2e-2, gt=0, description="learning rate")
    rank: int = Field(16, ge=1, description="rank of an edit's adapter")
    alpha: float = Field(32.0, gt=0, description="alpha of an edit's adapter; its change is scaled by alpha / rank")
    schedule: Literal["linear", "constant"] = Field(
        "linear", description="linear: the learning rate decays to 0; constant: it does not"
    )
    seeds: Count = Field(
        1,
        description="inner loops per edit, each with its own seed; the reward is their mean. auto: one, and up to three for "
        "edits that are too close to call (reward.pilot and reward.margin decide which)",
    )

    @field_validator("pad_to")
    @classmethod
    def _something_is_left(cls, pad_to: int) -> int:
        if pad_to == 1:
            raise ValueError("a training sequence needs at least 2 tokens; 0 is no padding")
        return pad_to

    @property
    def recipe(self) -> Recipe:
        """How an update trains where an edit does not say otherwise."""
        return Recipe(self.steps, self.epochs, self.batch_size, self.lr, self.rank, self.alpha, self.schedule)


class GuardSettings(PluggedSection):
    """A round is rolled back if one of the guards objects to its policy. The limits here are those of the guard ``budget``."""

    groups: ClassVar[tuple[str, ...]] = ("guards",)
    names: tuple[Annotated[str, plugged("guards")], ...] = Field(
        ("budget",), description="the guards in use (selfedit plugins lists them)"
    )
    anchors: int = Field(24, ge=1, description="passages on which KL is measured, and closed-book questions for retention")
    max_kl: float = Field(0.5, gt=0, description="KL(policy || base) on anchor passages, in nats per token")
    max_retention_drop: float = Field(0.1, gt=0, description="loss of closed-book accuracy, absolute (0.1 is ten points)")
    max_norm_ratio: float = Field(1.0, gt=0, description="largest ||dW|| / ||W|| of any module")
    max_dev_drop: float = Field(0.15, gt=0, description="loss of development accuracy against the best round so far, absolute")

    def limits(self) -> dict[str, float]:
        """The budgets by name."""
        return {name: value for name, value in self.model_dump().items() if name.startswith("max_")}

    def named(self) -> list[tuple[str, str]]:
        """The guards."""
        return [("guards", name) for name in self.names]


# In the order of the ladder. Other people's rungs come after them.
RUNGS = (
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
)


class LadderSettings(PluggedSection):
    """Which ways of preparing a model are compared, on the same held-out tasks."""

    groups: ClassVar[tuple[str, ...]] = ("rungs",)
    rungs: tuple[Annotated[str, plugged("rungs")], ...] = Field(
        RUNGS,
        description="the rungs, in order (selfedit plugins lists them); rungs that a data set cannot have are left out",
    )
    oracle_tasks: int = Field(4, ge=1, description="tasks of the rung best_of_k")
    middle_tasks: int = Field(12, ge=1, description="tasks of the rounds before the last one, and of the two controls")
    middle_rounds: tuple[int, ...] | Literal["all"] = Field(
        "all", description="numbers of the rounds before the last one that get a rung, or all"
    )
    passage_lr_factors: tuple[float, ...] = Field(
        (0.5, 1.0),
        description="learning rates that passage_only chooses from on development tasks, as multiples of inner.lr",
    )

    def named(self) -> list[tuple[str, str]]:
        """The rungs."""
        return [("rungs", name) for name in self.rungs]
