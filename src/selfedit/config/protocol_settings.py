"""Settings of what a policy is tested by: one passage at a time, many at once, or a stream of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from .plugged import PathText, Section

ProtocolName = Literal["single", "cpt", "continual", "stream"]


class GateSettings(Section):
    """What a merge may cost. An edit that costs more is merged at the largest scale of its change (of B alone) that stays
    within the limits, found by bisection, or rejected (STABLE, arXiv 2510.16089). Nothing here looks at a task's probes.
    """

    max_norm_ratio: float = Field(1.0, gt=0, description="largest ||dW|| / ||W|| of any module, for the edit alone")
    max_kl: float = Field(1.0, gt=0, description="KL(merged model || frozen base) on anchor passages, in nats per token")
    max_drop: float = Field(
        0.07,
        gt=0,
        description="share of the questions in earlier edits that are answered right before the merge and wrong after it",
    )
    max_bits: float = Field(0.5, gt=0, description="increase in the cost of earlier edits' text, in bits per token")
    bisections: int = Field(3, ge=0, description="how many scales below 1 are tried")


class ArmSettings(Section):
    """One way of learning a stream. The defaults are SEAL's: train on an edit, merge it, continue."""

    merge: Literal["sum", "average", "routed"] = Field(
        "sum",
        description="sum: each edit is trained on the model as the stream has left it, and added. The others train every "
        "edit on the model as it was before the stream. average: all edits so far are averaged. routed: edits stay separate, "
        "and a question goes to the edit of the passage whose rare words it contains",
    )
    learns: Literal["edits", "passage", "perfect"] = Field(
        "edits", description="what is trained on: self-edits, the raw passages, or the edits that came with the tasks"
    )
    untrained: bool = Field(False, description="let the base, not the trained policy, write and learn")
    writer: Literal["stream", "policy"] = Field(
        "stream",
        description="which model writes the edits: stream: the model as the stream has left it (only with merge = 'sum' and "
        "one model); policy: the policy as it was before the stream. In all other cases the policy writes",
    )
    replay: float = Field(
        0.0,
        ge=0,
        description="lines of earlier edits that are trained on per line of the new edit; the number of steps grows "
        "accordingly, so the new edit gets as many steps as without replay",
    )
    rehearsal: float = Field(
        0.0,
        ge=0,
        description="texts written by the base that are trained on per line of the new edit (KL to the base, estimated from "
        "samples)",
    )
    distill: float = Field(
        0.0,
        ge=0,
        description="above 0: rehearsal trains on this factor times KL(base || model) after each token of its texts, instead "
        "of on the next token",
    )
    rank: int = Field(0, ge=0, description="rank of an edit's adapter, with alpha / rank as in [inner]; 0: inner.rank")
    lr: float = Field(0.0, ge=0, description="learning rate of an edit; 0: inner.lr")
    steps: int = Field(
        0,
        ge=0,
        description="optimiser steps per edit, before replay and rehearsal add theirs; 0: inner.steps (or inner.epochs)",
    )
    consolidate: int = Field(
        0,
        ge=0,
        description="after this many passages, a new adapter is trained on lessons (what the edited models answered "
        "consistently) from all passages so far, and replaces the edits; 0: never",
    )
    refresh: int = Field(
        0,
        ge=0,
        description="after this many passages, the edits of all passages so far are trained on together once more, and the "
        "result is added to the stream; 0: never",
    )
    refresh_steps: int = Field(
        6, ge=1, description="optimiser steps of a refresh per passage so far, before rehearsal adds its own"
    )
    gate: bool = Field(False, description="merge only what [protocol.gate] allows")
    groups: int = Field(0, ge=0, description="how many of the protocol's groups this arm uses, from the first; 0: all")

    @model_validator(mode="after")
    def _consistent(self) -> ArmSettings:
        if self.merge != "sum" and any((self.replay, self.rehearsal, self.gate, self.consolidate, self.refresh)):
            raise ValueError(
                f"merge = {self.merge!r} trains every edit by itself: replay, rehearsal, gate, consolidate and refresh need "
                "merge = 'sum'"
            )
        if self.distill and not self.rehearsal:
            raise ValueError("distill is about the texts of rehearsal; set rehearsal, too")
        return self


# A name is a directory's and a file's, too.
ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Arms = Annotated[dict[ArmName, ArmSettings], Field(min_length=1)]


class ProtocolSettings(Section):
    """How the trained policy is tested; [ladder] has further settings."""

    name: ProtocolName = Field(
        "single",
        description="single: one passage, one edit, revert (the ladder). cpt: all passages of a group in one adapter. "
        "continual: a group's passages one after another, each edit merged, and all passages so far asked after each. stream: "
        "the same with many passages, asked about ten times on the way",
    )
    policy: PathText = Field(
        "",
        description="directory of a finished run, whose policy after the last round writes the edits and learns, or "
        "directory of an adapter; empty: the run trains its own policy first",
    )
    passages: int = Field(20, ge=1, description="passages per group (single uses tasks.evaluation)")
    groups: int = Field(1, ge=1, description="number of groups; each has passages of its own")
    steps: int = Field(0, ge=0, description="cpt: optimiser steps per passage; 0: inner.steps")
    arms: Arms = Field(
        default_factory=lambda: {"plain": ArmSettings()},
        description="continual and stream: the ways of learning a stream that are compared",
    )
    gate: GateSettings = GateSettings()
    general: int = Field(
        100, ge=1, description="closed-book questions that the base answers right, asked before and after a stream"
    )
    own_texts: int = Field(128, ge=1, description="texts that the base writes without a prompt, for rehearsal and routing")

    @property
    def n_tasks(self) -> int:
        """Passages of all groups."""
        return self.passages * self.groups
