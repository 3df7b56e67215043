"""Settings of what a policy is tested by: one passage at a time, many at once, or a stream of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from .sections import Section

ProtocolName = Literal["single", "cpt", "continual", "stream"]


class GateSettings(Section):
    """What a merge may cost. An edit that costs more is merged at the largest scale of its change (of B alone) that passes, as
    bisection finds it, or rejected (STABLE, arXiv 2510.16089). Nothing here looks at a task's probes.
    """

    max_norm_ratio: float = Field(1.0, gt=0, description="largest ||dW|| / ||W|| of a module, of the edit alone")
    max_kl: float = Field(1.0, gt=0, description="KL(merged model || frozen base) per token on anchors, nats")
    max_drop: float = Field(
        0.07,
        gt=0,
        description="share of the questions in earlier edits that are answered wrong after the merge, right before it",
    )
    max_bits: float = Field(0.5, gt=0, description="what the text of earlier edits costs more, in bits a token")
    confidence: float = Field(
        2.0, ge=0, description="what the edit's own text gains has to be above so many of its standard errors"
    )
    bisections: int = Field(3, ge=0, description="scales tried below 1")
    earlier: int = Field(16, ge=1, description="earlier edits that are looked at, drawn anew for each merge")
    anchors: int = Field(24, ge=1, description="passages, of no stream, that KL is measured on")


class ConsolidationSettings(Section):
    """How lessons are made: questions that the policy writes about a passage, answered by the model that learned its edit."""

    samples: int = Field(8, ge=1, description="texts of question-answer pairs that the policy writes for a passage")
    votes: int = Field(8, ge=1, description="answers sampled for each question, without the passage")
    least_share: float = Field(0.6, gt=0, le=1, description="share of the votes that an answer needs")
    temperature: float = Field(1.0, gt=0, description="at which answers are sampled")


class ArmSettings(Section):
    """One way of taking in a stream; the defaults are SEAL's: train on an edit, merge, go on."""

    merge: Literal["sum", "average", "ties", "routed"] = Field(
        "sum",
        description="sum: each edit is trained on the model as the stream left it, and added. The others train every edit on the "
        "model as it was before the stream; average, ties: all edits so far as one; routed: kept apart, and a question goes "
        "to the edit of the passage whose rare words it has",
    )
    learns: Literal["edits", "passage", "perfect"] = Field(
        "edits", description="what is trained on: self-edits, the raw passages, or the edits that came with the tasks"
    )
    untrained: bool = Field(False, description="the base, instead of the trained policy, writes and learns")
    writer: Literal["stream", "policy"] = Field(
        "stream",
        description="merge = sum, one model: who writes an edit, the model as the stream left it, or the policy as it was before "
        "(which writes in all other cases)",
    )
    replay: float = Field(
        0.0,
        ge=0,
        description="lines of earlier edits trained on for each line of the new one; the steps grow with them, so the new "
        "one gets as many as without",
    )
    rehearsal: float = Field(
        0.0,
        ge=0,
        description="texts that the base wrote by itself, trained on for each line of the new edit (KL to the base, by samples)",
    )
    distill: float = Field(
        0.0,
        ge=0,
        description="of rehearsal: above 0, this times KL(base || model) after each token of its texts is trained on, instead of "
        "the token that comes",
    )
    orthogonal: bool = Field(
        False,
        description="an edit starts on inputs that no earlier one reads, and is projected onto those after training (after "
        "O-LoRA's subspaces); take a low rank with it: as many inputs as a layer has are all there is",
    )
    rank: int = Field(0, ge=0, description="rank of an edit, at inner.alpha / inner.rank; 0: inner.rank")
    lr: float = Field(0.0, ge=0, description="learning rate of an edit; 0: inner.lr")
    steps: int = Field(
        0,
        ge=0,
        description="optimiser steps of an edit, before replay and rehearsal add theirs; 0: inner.steps (or inner.epochs)",
    )
    keep: float = Field(0.2, gt=0, le=1, description="ties: largest share of each edit's change")
    consolidate: int = Field(
        0,
        ge=0,
        description="after so many passages one adapter is trained anew on lessons (what edited models answered consistently: "
        "[protocol.consolidation]) of all passages so far, and takes the place of the edits (0: never)",
    )
    refresh: int = Field(
        0,
        ge=0,
        description="after so many passages the edits of all so far are trained on together once more, beside the stream, and "
        "that is added to it (0: never)",
    )
    refresh_steps: int = Field(
        6, ge=1, description="refresh: optimiser steps for each passage so far, before rehearsal adds its own"
    )
    gate: bool = Field(False, description="merge what [protocol.gate] lets through")
    groups: int = Field(
        0, ge=0, description="of the protocol's groups the first so many; 0 (or more than there are): all"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ArmSettings:
        if self.merge != "sum" and any(
            (self.replay, self.rehearsal, self.orthogonal, self.gate, self.consolidate, self.refresh)
        ):
            raise ValueError(
                f"merge = {self.merge!r} trains every edit by itself: replay, rehearsal, orthogonal, gate, consolidate and "
                "refresh need merge = 'sum'"
            )
        if self.distill and not self.rehearsal:
            raise ValueError("distill is about the texts of rehearsal; set rehearsal, too")
        return self


# A name is a directory's and a file's, too.
ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Arms = Annotated[dict[ArmName, ArmSettings], Field(min_length=1)]


class ProtocolSettings(Section):
    """How the trained policy is tested, beside the ladder's settings."""

    name: ProtocolName = Field(
        "single",
        description="single: one passage, one edit, revert (the ladder); cpt: all passages of a group in one adapter; continual: "
        "a group's passages one after another, merged after each, all so far asked each time; stream: the same, with many "
        "passages, asked about ten times on the way",
    )
    policy: str = Field(
        "",
        description="directory of a finished run, whose last round writes the edits (and learns), or of an adapter; "
        "empty: the run trains its own first",
    )
    passages: int = Field(20, ge=1, description="passages of one group (single takes tasks.evaluation)")
    groups: int = Field(1, ge=1, description="groups, each with passages of its own")
    steps: int = Field(0, ge=0, description="cpt: optimiser steps for each passage; 0: inner.steps")
    arms: Arms = Field(
        default_factory=lambda: {"plain": ArmSettings()}, description="continual and stream: ways of taking it in"
    )
    gate: GateSettings = GateSettings()
    consolidation: ConsolidationSettings = ConsolidationSettings()
    general: int = Field(
        100, ge=1, description="questions that the base answers by heart, asked before and after a stream"
    )
    own_texts: int = Field(128, ge=1, description="texts that the base writes by itself, for rehearsal and routing")

    @property
    def n_tasks(self) -> int:
        """Passages of all groups."""
        return self.passages * self.groups
