"""A run's settings. Torch-free; a field's description is its help, written once.

A run is one TOML file; every field has a default that is right for the embedded world. `PRESETS` holds starting points;
``preset = "paper"`` in a file starts from one, the file's own fields win.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import tomllib
import zlib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from .. import plugins
from ..errors import SettingsError
from ..templates import Templates, built_in_templates
from .learning import REACHING_FIELDS, AlgorithmSettings, RewardSettings
from .plugged import PathText, PluggedSection, Section, at_home
from .presets import PRESETS
from .protocol_settings import ArmSettings, GateSettings, ProtocolName, ProtocolSettings
from .sections import (
    MACHINE_FIELDS,
    PLANNING_FIELDS,
    RUNGS,
    AtOnce,
    EditSettings,
    Form,
    GuardSettings,
    InnerSettings,
    LadderSettings,
    ModelSettings,
    TaskSettings,
)


class Settings(Section):
    """Everything that decides a run's numbers."""

    preset: str = Field("demo", description="name of the preset that these settings start from: demo, paper or clean")
    seed: int = Field(0, ge=0, description="seed from which every random number of the run is derived")
    rounds: int = Field(3, ge=0, description="rounds of reinforcement learning")
    model: ModelSettings = ModelSettings()
    learner: ModelSettings | None = Field(
        None,
        description="a second model, which learns from the edits that [model] writes. It has the same fields as [model] and "
        "is not trained itself (a teacher and a student; SEAL, section 3.1). Without it, the model edits itself",
    )
    tasks: TaskSettings = Field(default_factory=TaskSettings)
    edits: EditSettings = Field(default_factory=EditSettings)
    inner: InnerSettings = InnerSettings()
    reward: RewardSettings = Field(default_factory=RewardSettings)
    algorithm: AlgorithmSettings = Field(default_factory=AlgorithmSettings)
    guards: GuardSettings = Field(default_factory=GuardSettings)
    ladder: LadderSettings = Field(default_factory=LadderSettings)
    protocol: ProtocolSettings = ProtocolSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        reward = self.reward
        if "perplexity" in reward.terms and not reward.validation_text:
            raise ValueError("a reward of perplexity needs reward.validation_text, a text file")
        if "custom" in reward.terms and not reward.custom:
            raise ValueError("reward.weights has custom: it needs reward.custom, 'module:function'")
        if reward.custom and "custom" not in reward.terms:
            raise ValueError("reward.custom is not used: reward.weights needs custom, such as {custom = 1.0}")
        if reward.proxy != "none" and self.algorithm.name != "rest_em":
            raise ValueError(
                f"reward.proxy = {reward.proxy!r} chooses the edits that are tried, and {self.algorithm.name} would learn from "
                "them as if the policy had written no others: take algorithm.name = 'rest_em', or no proxy"
            )
        ours, own = ("language_model", "directive_writer"), {"text": "language_model", "directives": "directive_writer"}
        if self.edits.writer in ours and self.edits.writer != own.get(self.edits.kind, self.edits.writer):
            raise ValueError(
                f"edits.policy = {self.edits.policy!r} does not write edits of the kind {self.edits.kind!r}; leave it out"
            )
        if self.edits.samples > 1 and self.edits.kind != "directives" and self.algorithm.name != "rest_em":
            raise ValueError(
                f"edits.samples = {self.edits.samples}: {self.algorithm.name} learns from edits of one sample; take "
                "algorithm.name = 'rest_em', or one sample"
            )
        if self.tasks.split == "all" and (self.rounds or self.tasks.source == "world" or len(self.ladder.passage_lr_factors) > 1):
            raise ValueError(
                "tasks.split = 'all' tests on tasks that others would be trained or chosen on: it needs rounds = 0, "
                "ladder.passage_lr_factors of one number, and a tasks.source other than the world, which has passages without end"
            )
        if self.protocol.policy and self.rounds:
            raise ValueError(
                f"protocol.policy = {self.protocol.policy!r} brings a trained policy, and rounds = {self.rounds} would train "
                "another: set rounds = 0, or no protocol.policy"
            )
        if "judge" in reward.terms and reward.metric != "judge":
            raise ValueError("reward.weights has judge: set reward.metric = 'judge', so that answers are judged")
        self._check_forms()
        if self.templates.system and not all(m is None or m.templates == "chat" for m in (self.model, self.learner)):
            raise ValueError("edits.templates.system is for turns: set model.templates = 'chat', or leave it out")
        if self.inner.seeds == "auto" and not self.reward.pilot:
            raise ValueError("inner.seeds = 'auto' needs reward.pilot, at least 1: it measures how much a seed moves a reward")
        return self

    def _check_forms(self) -> None:
        known, own = self.templates.prompts, "or a name of your own from [edits.templates]"
        directives: Any = self.edits.table("directives") if self.edits.kind == "directives" else None
        asked = [form for forms in directives.forms for form in forms] if directives else []
        for name, form in [*(("form", f) for f in self.edits.forms), *(("directives.forms", f) for f in asked)]:
            if form not in known:
                templates = self.model.templates
                why = ", which the embedded base was pretrained on" if templates == "world" else ""
                raise ValueError(
                    f"edits.{name}: no {form!r} in the {templates} templates{why}; take one of {', '.join(known)}, {own}"
                )

    def of_learner(self) -> Settings:
        """These settings with the model that learns as `model`; themselves where a model edits itself."""
        return self if self.learner is None else self.model_copy(update={"model": self.learner, "learner": None})

    @property
    def has_trained_policy(self) -> bool:
        """A trained policy is tested: one of this run's rounds, or one that it is given."""
        return bool(self.rounds or self.protocol.policy)

    @property
    def targets(self) -> str:
        """The modules that adapters change."""
        return self.model.targets

    @property
    def templates(self) -> Templates:
        """The texts this run prompts and trains with, the user's own among them."""
        return built_in_templates()[self.model.templates].with_own(self.edits.templates)

    def on_machine(self, **values: Any) -> Settings:
        """These settings with some of the model's `MACHINE_FIELDS` resolved."""
        return self.model_copy(update={"model": self.model.model_copy(update=values)})

    def fields(self) -> dict[str, Any]:
        """Every setting as JSON (and TOML) has it; a section that is not there is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def sha256(self) -> str:
        """Hash of the settings; the same hash means the same plan.

        Without ``memory_gib``, which decides nothing but other settings (they are in the hash), and without how a judge is
        reached.
        """
        planning = set(PLANNING_FIELDS)
        without: Any = {"model": planning, "learner": planning, "reward": {"judge": set(REACHING_FIELDS)}}
        fields = self.model_dump_json(exclude=without, exclude_none=True)
        return hashlib.sha256(fields.encode()).hexdigest()


def make_settings(fields: dict[str, Any], where: str = "settings") -> Settings:
    """Settings from (nested) fields on top of their preset; `SettingsError` names what is wrong and where."""
    preset = fields.get("preset", "demo")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{where}: no preset {preset!r}; there are {', '.join(PRESETS)}")
    plan = PRESETS[preset]
    planned = plan.get("algorithm", {}).get("name")
    name = _section(fields, "algorithm").get("name", planned or _algorithm(fields))
    kind = {"algorithm": {"name": name, **_algorithm_defaults(name)}}
    # What a preset says of one algorithm is not meant for another.
    if planned not in (None, name):
        common = {key: value for key, value in plan["algorithm"].items() if key != planned}
        plan = merged({**plan, "algorithm": common}, kind)
    plan = merged(kind, plan)
    own: dict[str, Any] = {"algorithm": _ranking(fields, plan)}
    inner = fields.get("inner")
    if isinstance(inner, dict) and "steps" in inner and "epochs" not in inner:
        own["inner"] = {"epochs": 0}  # who names a number of steps means it, whatever the preset counts in
    if "learner" in fields:
        own["learner"] = plan.get("model", {})
    try:
        return Settings.model_validate(merged(merged(plan, own), fields))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{where}: {len(lines)} bad setting(s)\n" + "\n".join(lines)) from None


def _section(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the fields; empty where it is not there, or is none (which is reported later)."""
    section = fields.get(name)
    return section if isinstance(section, dict) else {}


def _algorithm(fields: dict[str, Any]) -> str:
    """The algorithm where nobody named one: the default, or what can learn from edits as these settings make them."""
    several = _section(fields, "edits").get("samples", 1) != 1
    screened = _section(fields, "reward").get("proxy", "none") != "none"
    return "rest_em" if several or screened else str(AlgorithmSettings.model_fields["name"].default)


def _algorithm_defaults(name: Any) -> dict[str, Any]:
    """What an algorithm's common settings are where nobody set them."""
    if name not in plugins.names("algorithms"):
        return {}
    defaults: dict[str, Any] = getattr(plugins.find("algorithms", name), "defaults", {})
    return dict(defaults)


def _ranking(fields: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """What edits are ranked by where nobody said so: a reward that somebody made, or pays for, by what it gained; on pretrained
    models the gold answers' probability, which agrees better with their answers than the log-likelihood (docs/real-models.md).
    """
    reward = _section(fields, "reward")
    made = reward.get("weights") or reward.get("custom") or reward.get("metric") in ("judge", "perplexity")
    if made or "rank_by" in plan["algorithm"]:
        return {"rank_by": ["gain"]} if made else {}
    learns = _section(fields, "learner" if isinstance(fields.get("learner"), dict) else "model").get("path", "embedded")
    return {} if learns == "embedded" else {"rank_by": ["probability"]}


def load_settings(path: Path, **overrides: Any) -> Settings:
    """Settings from a TOML file, with ``overrides`` (nested fields) on top."""
    try:
        fields = read_toml(path)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); give a TOML file of settings") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    return make_settings(merged(fields, overrides), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The fields of a TOML file, also of one with a byte order mark, as editors on Windows write it.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not UTF-8, or not TOML; says which, where and what to do.
    """
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
        raise ValueError("the file is UTF-16 or binary; save it as UTF-8 (in PowerShell: Set-Content -Encoding utf8)")
    try:
        return tomllib.loads(raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML ({error}); correct it there") from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested fields of ``base`` with those of ``over`` in their place."""
    made = dict(base)
    for name, value in over.items():
        old = made.get(name)
        made[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return made


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
