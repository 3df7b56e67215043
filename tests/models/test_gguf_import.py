"""GGUF files become models that transformers reads, with the values and tokens of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_gguf import Q, tiny, write
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfedit.errors import ModelError, SettingsError
from selfedit.models import shelf
from selfedit.models.bring import bring

UNTIED = {"tie_word_embeddings": False}
BASES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gemma2": "Gemma2ForCausalLM"}
BASES |= {"gemma3": "Gemma3ForCausalLM", "gemma": "GemmaForCausalLM", "smollm3": "SmolLM3ForCausalLM"}


def logits(model: Any, length: int = 40) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[(7 * i) % 250 for i in range(length)]])).logits[0]


def same(directory: Path, reference: Any) -> None:
    """The directory loads, warns of nothing missing, and computes what the reference does."""
    loaded, info = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits(loaded), logits(reference), rtol=1e-4, atol=1e-5)
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize(
    ("architecture", "kind", "fields", "pieces"),
    [
        ("llama", Q.Q4_1, {}, False),
        ("llama", Q.Q8_0, UNTIED | {"num_key_value_heads": 4}, True),
        ("llama", Q.BF16, {"attention_bias": True}, False),
        ("qwen2", Q.Q8_0, UNTIED, False),
        ("qwen2", Q.F16, {"tie_word_embeddings": True}, False),
        ("qwen3", Q.Q4_K, {"tie_word_embeddings": True}, False),
        ("gemma", Q.Q8_0, {}, True),
        ("gemma2", Q.F32, {"query_pre_attn_scalar": 64, "sliding_window": 8}, True),
        ("gemma3", Q.Q6_K, {"query_pre_attn_scalar": 64, "sliding_window": 8, "num_hidden_layers": 2}, True),
        ("smollm3", Q.Q4_0, {"pad_token_id": None, "num_hidden_layers": 4}, False),
    ],
    ids=str,
)
def test_a_file_of_every_supported_kind_computes_what_its_values_say(
    tmp_path: Path, tell: Any, architecture: str, kind: Any, fields: dict[str, Any], pieces: bool
) -> None:
    model = tiny(architecture, **fields)
    write(tmp_path / "Tiny.gguf", architecture, model, kind=kind, pieces=pieces)
    entry = bring(str(tmp_path / "Tiny.gguf"), None, tell)
    assert entry.name == "tiny"
    assert json.loads((entry.path / "config.json").read_text())["architectures"] == [BASES[architecture]]
    same(entry.path, model)


def greedy(model: Any, ids: list[int]) -> list[int]:
    return model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0].tolist()


@pytest.mark.parametrize(("architecture", "pieces"), [("llama", False), ("gemma3", True)])
def test_greedy_tokens_are_those_of_the_librarys_own_reading(tmp_path: Path, tell: Any, architecture: str, pieces: bool) -> None:
    file = tmp_path / "Tiny.gguf"
    write(file, architecture, tiny(architecture), kind=Q.Q8_0, pieces=pieces)
    made = bring(str(file), None, tell).path
    ours = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="Tiny.gguf", dtype=torch.float32)
    tokens, others = AutoTokenizer.from_pretrained(made), AutoTokenizer.from_pretrained(tmp_path, gguf_file="Tiny.gguf")
    for text in ("the end", " the 12 thes", "Zürich"):
        ids = tokens(text)["input_ids"]
        assert ids == others(text)["input_ids"]
        assert tokens.decode(ids, skip_special_tokens=True) == text
        assert greedy(ours, ids) == greedy(theirs, ids)


def llama3_divisors(factor: float) -> np.ndarray:
    """What a file of Llama 3.1 and later holds: the divisor of each frequency."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    base = {"rope_theta": 500000.0}
    scaled = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, rope_parameters=base | scaled | {"original_max_position_embeddings": 8192}
    )
    slow, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return (500000.0 ** (-torch.arange(0, 64, 2) / 64) / slow).numpy().astype(np.float32)


@pytest.mark.parametrize(
    ("architecture", "scaled", "extra", "tensors"),
    [
        (
            "llama",
            {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            | {"original_max_position_embeddings": 8192, "rope_theta": 500000.0},
            {},
            {"rope_freqs.weight": llama3_divisors(32.0)},
        ),
        (
            "qwen2",
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e6},
            {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}
            | {"qwen2.rope.scaling.original_context_length": 16},
            {},
        ),
        (
            "gemma3",
            {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
            | {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
            {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0},
            {},
        ),
    ],
)
def test_scaled_positions_are_kept(
    tmp_path: Path, tell: Any, architecture: str, scaled: dict[str, Any], extra: dict[str, Any], tensors: dict[str, Any]
) -> None:
    fields = {"query_pre_attn_scalar": 64, "num_hidden_layers": 6, "sliding_window": 4} if architecture == "gemma3" else {}
    model = tiny(architecture, rope_parameters=scaled, **fields)
    write(tmp_path / "Tiny.gguf", architecture, model, extra=extra, tensors=tensors)
    same(bring(str(tmp_path / "Tiny.gguf"), None, tell).path, model)


def test_the_largest_gemma_scales_attention_by_its_width(tmp_path: Path) -> None:
    """Both 27B models are recognised by their number of layers, as in llama.cpp."""
    from selfedit.models.gguf_config import config_of
    from selfedit.models.gguf_header import Header, Tensor

    table = Tensor("token_embd.weight", (300, 5376), 0, tmp_path, 0, 0)
    sizes = {"embedding_length": 5376, "attention.head_count": 32, "attention.head_count_kv": 16, "attention.key_length": 128}
    sizes |= {"feed_forward_length": 10, "context_length": 10, "attention.sliding_window": 1024}
    for layers, scalar in ((62, 168), (48, 128)):
        metadata = {f"gemma3.{name}": value for name, value in (sizes | {"block_count": layers}).items()}
        header = Header(tmp_path, metadata | {"general.architecture": "gemma3"}, {table.name: table})
        assert config_of(header, lambda name: np.zeros(1, np.float32))["query_pre_attn_scalar"] == scalar


def test_a_split_file_is_one_model_whichever_part_is_named(tmp_path: Path, tell: Any) -> None:
    model = tiny("llama")
    write(tmp_path / "Tiny.gguf", "llama", model, split=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    assert parts[0].name == "Tiny-00001-of-00003.gguf"
    same(bring(str(parts[1]), None, tell).path, model)
    assert shelf.find("tiny")
    parts[2].unlink()
    with pytest.raises(ModelError, match=r"1 of its 3 parts are missing, such as Tiny-00003-of-00003.gguf"):
        bring(str(parts[0]), "again", tell)


def test_a_turns_end_and_the_end_of_text_both_stop_an_answer(tmp_path: Path, tell: Any) -> None:
    write(tmp_path / "Tiny.gguf", "llama", tiny("llama"))
    made = bring(str(tmp_path / "Tiny.gguf"), None, tell).path
    assert json.loads((made / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    write(tmp_path / "Other.gguf", "llama", tiny("llama"), extra={"tokenizer.ggml.eot_token_id": 1})
    assert json.loads((bring(str(tmp_path / "Other.gguf"), None, tell).path / "generation_config.json").read_text())[
        "eos_token_id"
    ] == [0, 1, 2]


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [("smollm", "a12", ["a", "1", "2"]), ("llama-bpe", "thes", ["<|endoftext|>", "the", "s"]), ("qwen2", "e\u0301", ["Ã", "©"])],
)
def test_texts_are_divided_as_the_original_divides_them(tmp_path: Path, tell: Any, pre: str, text: str, words: list[str]) -> None:
    """Digits one by one; a start token, and whole words without merges; composed characters."""
    write(tmp_path / "Tiny.gguf", "llama", tiny("llama"), pre=pre)
    tokens = AutoTokenizer.from_pretrained(bring(str(tmp_path / "Tiny.gguf"), None, tell).path)
    assert tokens.convert_ids_to_tokens(tokens(text)["input_ids"]) == words


def test_a_way_of_dividing_texts_that_is_not_known_is_told(tmp_path: Path, tell: Any, told: list[str]) -> None:
    write(tmp_path / "Tiny.gguf", "llama", tiny("llama"), pre="martian")
    made = bring(str(tmp_path / "Tiny.gguf"), None, tell).path
    assert any("martian" in sentence and "other tokens" in sentence for sentence in told)
    assert "martian" in (made / "README.md").read_text()


def test_no_space_is_put_before_a_text_where_the_file_says_so(tmp_path: Path, tell: Any) -> None:
    write(tmp_path / "Tiny.gguf", "llama", tiny("llama"), pieces=True, extra={"tokenizer.ggml.add_space_prefix": False})
    tokens = AutoTokenizer.from_pretrained(bring(str(tmp_path / "Tiny.gguf"), None, tell).path)
    ids = tokens("the", add_special_tokens=False)["input_ids"]
    assert tokens.convert_ids_to_tokens(ids) == ["the"]
    assert tokens.decode(ids) == "the"


def test_weights_keep_their_type_and_quantised_ones_become_fp32(tmp_path: Path, tell: Any) -> None:
    for kind, dtype in ((Q.F16, "F16"), (Q.BF16, "BF16"), (Q.Q4_0, "F32")):
        write(tmp_path / f"{kind.name}.gguf", "llama", tiny("llama"), kind=kind)
        made = bring(str(tmp_path / f"{kind.name}.gguf"), None, tell).path
        with safe_open(made / "model.safetensors", "pt") as file:
            assert file.get_slice("model.layers.0.mlp.up_proj.weight").get_dtype() == dtype
            assert file.get_slice("model.norm.weight").get_dtype() == "F32"
        assert json.loads((made / "config.json").read_text())["torch_dtype"].endswith(dtype[-2:])


def test_large_models_are_written_as_several_files(tmp_path: Path) -> None:
    from selfedit.models.tensor_stream import Planned, begin, files_for, write_index

    tensors = [Planned(f"w{i}", dtype, (10, 4)) for i, dtype in enumerate(("F16", "F32", "F16"))]
    files = files_for(tensors, most=250)
    assert {name: [t.name for t in group] for name, group in files.items()} == {
        "model-00001-of-00002.safetensors": ["w1", "w0"],
        "model-00002-of-00002.safetensors": ["w2"],
    }
    for name, group in files.items():
        with (tmp_path / name).open("wb") as file:
            begin(file, group)
            for tensor in group:
                file.write(
                    np.full(tensor.shape, int(tensor.name[1]), np.float32 if tensor.dtype == "F32" else np.float16).tobytes()
                )
    write_index(tmp_path, files)
    where = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file_name in where.items():
        with safe_open(tmp_path / file_name, "pt") as file:
            assert set(file.get_tensor(name).flatten().tolist()) == {float(name[1])}


def test_memory_is_bounded_by_a_group_of_rows(tmp_path: Path) -> None:
    from selfedit.models.tensor_stream import row_groups

    groups = list(row_groups(1000, 4096, most=100_000))
    assert sum(g.stop - g.start for g in groups) == 1000
    assert max(g.stop - g.start for g in groups) == 24


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"architecture": "mamba"}, "architecture 'mamba' can't be converted; there are llama, qwen2"),
    "experts": ({"extra": {"llama.expert_count": 8}}, "a mixture of experts can't be converted"),
    "an adapter": ({"extra": {"general.type": "adapter"}}, "it holds an adapter, not a model"),
    "long positions": ({"extra": {"llama.rope.scaling.type": "longrope"}}, "positions scaled by 'longrope'"),
    "unknown positions": ({"tensors": {"rope_freqs.weight": np.arange(1, 33, dtype=np.float32)}}, "scaled in an unknown way"),
    "a tensor less": ({"leave_out": ["blk.1.ffn_up.weight"]}, "the tensor blk.1.ffn_up.weight is missing"),
    "a tensor more": (
        {"tensors": {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}},
        "such as blk.0.attn_sinks.weight, have no place",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cant_be_converted_is_one_sentence_and_leaves_nothing(tmp_path: Path, tell: Any, case: str) -> None:
    fields, said = BAD[case]
    fields = dict(fields)
    architecture = fields.pop("architecture", "llama")
    if architecture == "llama":
        write(tmp_path / "Tiny.gguf", architecture, tiny(architecture), **fields)
    else:
        from gguf import GGUFWriter

        writer = GGUFWriter(tmp_path / "Tiny.gguf", architecture)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    with pytest.raises(ModelError, match=said) as refused:
        bring(str(tmp_path / "Tiny.gguf"), None, tell)
    assert "\n" not in str(refused.value)
    assert not shelf.entries()


def test_a_quantisation_that_cant_be_unpacked_is_named(tmp_path: Path, tell: Any) -> None:
    file = tmp_path / "Tiny.gguf"
    write(file, "llama", tiny("llama"), kind=Q.Q8_0)
    data = file.read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    for kind, said in ((15, "weights of the type Q8_K can't be unpacked"), (99, "quantised in a way")):
        file.write_bytes(data[:at] + kind.to_bytes(4, "little") + data[at + 4 :] + bytes(1 << 20))
        with pytest.raises(ModelError, match=said):
            bring(str(file), None, tell)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<html>Sign in</html>", "no GGUF file"),
        (b"", "no GGUF file"),
        (b"GGUF\x03\x00\x00\x00\x05", "cut off or damaged"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "big-endian"),
    ],
)
def test_a_file_that_is_no_whole_gguf_file_is_called_that(tmp_path: Path, tell: Any, content: bytes, said: str) -> None:
    (tmp_path / "Tiny.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        bring(str(tmp_path / "Tiny.gguf"), None, tell)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, tell: Any) -> None:
    file = tmp_path / "Tiny.gguf"
    write(file, "llama", tiny("llama"))
    whole = file.read_bytes()
    for length in (len(whole) - 1000, 5000):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="cut off"):
            bring(str(file), None, tell)


def test_without_the_extra_the_error_names_it(tmp_path: Path, tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'selfedit\[gguf\]'"):
        bring(str(tmp_path / "Tiny.gguf"), None, tell)
