"""Settings: unknown fields are refused by name, presets are starting points, seeds are named."""

import pytest

from selfedit.config import PRESETS, AtOnce, Settings, differing_fields, load_settings, make_settings, sub_seed
from selfedit.errors import SettingsError


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rounds": -1}, "rounds"),
        ({"edits": {"per_task": 0}}, "edits.per_task"),
        ({"inner": {"lr": float("nan")}}, "inner.lr"),
        ({"inner": {"lr": -1}}, "inner.lr"),
        ({"inner": {"seeds": 0}}, "inner.seeds"),
        ({"inner": {"seeds": "many"}}, "inner.seeds"),
        ({"inner": {"seeds": "auto"}, "reward": {"pilot": 0}}, "needs reward.pilot"),
        ({"reward": {"pilot": -1}}, "reward.pilot"),
        ({"reward": {"margin": -0.5}}, "reward.margin"),
        ({"inner": {"steppps": 3}}, "inner.steppps"),
        ({"tasks": {"evaluation": 0}}, "tasks.evaluation"),
        ({"ladder": {"rungs": ["no_such_rung"]}}, "ladder.rungs"),
        ({"preset": "nonsense"}, "no preset 'nonsense'"),
        ({"reward": {"metric": "perplexity"}}, "validation_text"),
        ({"model": {"members_at_once": 0}}, "model.members_at_once"),
        ({"model": {"memory_gib": -1}}, "model.memory_gib"),
    ],
)
def test_a_bad_setting_is_named(fields, named):
    with pytest.raises(SettingsError, match=named.replace(".", r"\.")):
        make_settings(fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_a_files_own_fields_win(preset):
    settings = make_settings({"preset": preset, "inner": {"rank": 7}})
    assert settings.inner.rank == 7
    assert settings.preset == preset


def test_what_goes_at_once_has_defaults_where_it_is_still_auto():
    assert make_settings({"model": {"rows_at_once": 3}}).model.at_once == AtOnce(8, 3, 8192)


@pytest.mark.parametrize(
    ("fields", "targets", "templates"),
    [
        ({}, "gate_proj,up_proj,down_proj@3:", "world"),
        ({"model": {"targets": "auto", "templates": "auto"}}, "gate_proj,up_proj,down_proj@3:", "world"),
        ({"model": {"path": "some/model"}}, "all-linear", "general"),
        ({"preset": "paper"}, "paper", "world"),
        ({"model": {"path": "some/model", "targets": "paper", "templates": "world"}}, "paper", "world"),
    ],
)
def test_what_auto_comes_to_for_a_base_is_recorded_and_hashed(fields, targets, templates):
    settings = make_settings(fields)
    assert (settings.model.targets, settings.model.templates) == (targets, templates)
    assert settings.targets == targets
    named = {**fields, "model": {**fields.get("model", {}), "targets": targets, "templates": templates}}
    assert settings == make_settings(named)
    assert settings.sha256() == make_settings(named).sha256()
    assert Settings() == make_settings({})


def test_one_task_and_one_edit_are_allowed():
    assert make_settings({"edits": {"per_task": 1}, "tasks": {"per_round": 1, "evaluation": 1, "dev": 1}})


def test_a_toml_file_is_read_and_its_mistakes_are_named(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("rounds = 3\n[inner]\nsteps = 4\n")
    settings = load_settings(file, seed=9)
    assert (settings.rounds, settings.inner.steps, settings.seed) == (3, 4, 9)
    file.write_text("rounds = ")
    with pytest.raises(SettingsError, match="not TOML"):
        load_settings(file)
    with pytest.raises(SettingsError, match="can't be read"):
        load_settings(tmp_path / "absent.toml")


TOML = 'preset = "demo"  # café\nrounds = 3\n[tasks]\nper_round = 5\n'


@pytest.mark.parametrize("raw", ["\ufeff" + TOML, TOML.replace("\n", "\r\n"), "\ufeff" + TOML.replace("\n", "\r\n")])
def test_a_toml_file_of_an_editor_on_windows_is_read(tmp_path, raw):
    (tmp_path / "run.toml").write_bytes(raw.encode())
    settings = load_settings(tmp_path / "run.toml")
    assert (settings.rounds, settings.tasks.per_round) == (3, 5)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (TOML.encode("utf-16"), "the file is UTF-16 or binary; save it as UTF-8"),
        (TOML.encode("utf-16-le"), "the file is UTF-16 or binary; save it as UTF-8"),
        (b"rounds = 3\n" + TOML.encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xe9\); save the file as UTF-8"),
    ],
)
def test_a_toml_file_in_another_encoding_is_told_to_be_so(tmp_path, raw, told):
    (tmp_path / "run.toml").write_bytes(raw)
    with pytest.raises(SettingsError, match=rf"run\.toml: {told}"):
        load_settings(tmp_path / "run.toml")


def test_the_hash_and_the_difference_see_every_field():
    a, b = make_settings({}), make_settings({"guards": {"max_kl": 0.25}})
    assert a.sha256() != b.sha256()
    assert a.sha256() == Settings.model_validate(a.model_dump(mode="json")).sha256()
    # What happens to be free is no setting; what follows from it is.
    assert a.sha256() == a.on_machine(memory_gib=3.5).sha256()
    assert a.sha256() != a.on_machine(members_at_once=3).sha256()
    assert differing_fields(a.model_dump(mode="json"), b.model_dump(mode="json")) == ["guards.max_kl"]


def test_the_hash_leaves_out_what_only_plans():
    def sha256(**model):
        return make_settings({"model": model}).sha256()

    named = {"members_at_once": 4, "rows_at_once": 8, "tokens_at_once": 512}
    assert sha256(memory_gib=1.5, **named) == sha256(memory_gib=7, **named) == sha256(**named)
    for name in named:
        assert sha256(**{**named, name: 3}) != sha256(**named)
    assert sha256(deterministic=True) != sha256()


def test_named_seeds_differ_by_name_and_root():
    seeds = {sub_seed(root, name, i) for root in (0, 1) for name in ("edit", "inner") for i in range(50)}
    assert len(seeds) == 200
