"""Models and tokenizers from a directory or the hub, with every refusal saying what to do next."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from ...errors import ModelError, SettingsError
from ...tasks.formats import is_lfs_pointer
from .attention import register as attention_for_cpus
from .soundness import refuse_meta
from .whereabouts import may_be_at_hub, no_such_directory

Dtype = Literal["auto", "fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NOWHERE = "no-such-folder"
_NEEDS_JSON = "put the tokenizer.json and tokenizer_config.json of the same model in the Hugging Face format beside its weights"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA where present, else the CPU.

    Raises:
        SettingsError: it is neither the CPU nor a CUDA device, or is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        chosen = torch.device(("cuda" if there else "cpu") if device == "auto" else device)
    except RuntimeError:  # torch's own words list what it was built for
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise SettingsError(f"model.device: {device!r} is no device of this engine; set it to 'auto', 'cpu', 'cuda' or 'cuda:0'")
    if chosen.type == "cpu":
        return torch.device("cpu")
    if not there:
        raise SettingsError("model.device: there is no CUDA device here; set it to 'cpu' or 'auto'")
    if (chosen.index or 0) >= there:
        raise SettingsError(f"model.device: {device!r} is not here; the last of the {there} CUDA devices is 'cuda:{there - 1}'")
    return chosen


def has_bf16_units(device: torch.device) -> bool:
    """Whether the device has matrix units for bf16 (in software it is slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # newer torch only
    return bool(ask and ask().get("amx_bf16"))


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the device has matrix units for it, else fp32."""
    if dtype == "auto":
        dtype = "bf16" if has_bf16_units(device) else "fp32"
    return DTYPES[dtype]


def _check_source(source: str, allow_pickle: bool) -> None:
    """Refuse what is neither a hub id nor a model's directory, before anything of it is read."""
    path = Path(source)
    if not path.is_dir():
        if not may_be_at_hub(source):
            raise no_such_directory(source)
        return
    _refuse_pointers(path)
    if not (path / "config.json").exists():
        adapter = (path / _ADAPTER_CONFIG).exists()
        hint = (
            "it is an adapter: load its base, and give the adapter by its own setting"
            if adapter
            else "name a directory in the Hugging Face format"
        )
        raise ModelError(f"{path}: no config.json; {hint}")
    if not any(file.name != _ADAPTER_WEIGHTS for file in path.glob("*.safetensors")):
        pickled = any(path.glob("pytorch_model*.bin"))
        if pickled and not allow_pickle:
            raise ModelError(
                f"{path}: only pickled weights (pytorch_model.bin), which can run code when loaded; convert them with "
                "model.save_pretrained, or set allow_pickle if you trust their source"
            )
        if not pickled:
            only = " but an adapter's" if (path / _ADAPTER_WEIGHTS).exists() else ""
            raise ModelError(f"{path}: no weights (*.safetensors){only}; copy the whole checkpoint there")
    if not any((path / name).exists() for name in _TOKENIZER_FILES):
        if any(path.glob("tekken*.json")) or any(path.glob("tokenizer.model.v*")):
            raise ModelError(f"{path}: its tokenizer is in Mistral's own format alone (such as tekken.json); {_NEEDS_JSON}")
        raise ModelError(f"{path}: no tokenizer; save the model's own into it: tokenizer.save_pretrained({str(path)!r})")


def _refuse_pointers(path: Path) -> None:
    """Refuse a directory where Git has left pointers in the place of large files.

    Raises:
        ModelError: there is one.
    """
    pointers = [file.name for file in sorted(path.iterdir()) if is_lfs_pointer(file)]
    if pointers:
        raise ModelError(f"{path}: {', '.join(pointers)}: a Git LFS pointer, not the file itself; run 'git lfs pull' there")


@contextmanager
def progress_for_long_loads(source: str) -> Iterator[None]:
    """No progress bar for a directory with one file of weights: it would be gone before it is read."""
    shown = logging.is_progress_bar_enabled()
    if (Path(source) / "model.safetensors").exists():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _unloadable(source: str, error: Exception) -> ModelError:
    """A damaged checkpoint can raise anything, down to its parsers' own errors."""
    reason = " ".join(str(error).split())[:400]
    advice = "copy the whole checkpoint again" if Path(source).is_dir() else "check the name"
    return ModelError(f"{source}: can't be loaded as a causal language model ({reason}); {advice}")


def _read_config(source: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """A checkpoint's config, and the family of classes that reads its language model.

    Raises:
        ModelError: it can't be read, or no class writes texts with it.
    """
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _unloadable(source, error) from error
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or AutoModelForCausalLM.__name__ in (getattr(config, "auto_map", None) or {}):
        return config, AutoModelForCausalLM
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and config.get_text_config() is not config:
        return config, AutoModelForImageTextToText
    raise ModelError(
        f"{source}: a model of the kind {config.model_type!r} is no causal language model, and holds none that could be taken "
        "alone; use one that writes texts, such as a Llama-, Qwen-, Mistral- or Gemma-like one"
    )


def load_outline(source: str, *, trust_remote_code: bool, allow_pickle: bool) -> PreTrainedModel:
    """The model's modules without its weights (on the meta device): what its shape says, at the cost of its config.json.

    Raises:
        ModelError: it can't be read, or is no causal language model.
        Exception: of the model's own code, which can raise anything on the meta device; with weights it may load.
    """
    _check_source(source, allow_pickle)
    config, family = _read_config(source, trust_remote_code)
    try:
        with torch.device("meta"):
            return family.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-any-return]
    except Exception as error:
        # A checkpoint's own code is entered there as it is read.
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or family is AutoModelForImageTextToText:
            raise
        raise _unloadable(source, error) from error


def _load_tokenizer(source: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, in a form that can take special tokens in a text as plain text.

    mistral-common's tokenizers, which transformers prefers where that package is installed, can't: a checkpoint's
    tokenizer.json is then read instead.

    Raises:
        ModelError: there is no tokenizer of that form.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    if _takes_plain_text(tokenizer):
        return tokenizer
    with suppress(Exception):  # whatever is wrong with it, it is not there in that form
        plain: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(source)
        if plain.eos_token_id is not None and _takes_plain_text(plain):
            return plain
    raise ModelError(
        f"{source}: its tokenizer ({type(tokenizer).__name__}) can't take special tokens in a text as plain text; {_NEEDS_JSON}"
    )


def _takes_plain_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        tokenizer("a", add_special_tokens=False, split_special_tokens=True)
    except (ValueError, NotImplementedError):
        return False
    return True


def load_model(
    source: str, *, dtype: Dtype, device: torch.device, trust_remote_code: bool, allow_pickle: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in ``dtype`` on ``device``, and its tokenizer.

    Raises:
        ModelError: it can't be loaded, is incomplete, or has no tokenizer or end-of-text token.
    """
    _check_source(source, allow_pickle)
    _, family = _read_config(source, trust_remote_code)
    if (Path(source) / _ADAPTER_CONFIG).exists():
        warnings.warn(
            f"{source}: an adapter lies beside the model, and is left alone: the base is loaded bare. To use the adapter, copy "
            f"{_ADAPTER_CONFIG} and {_ADAPTER_WEIGHTS} to a directory of their own, and name that where an adapter is asked for",
            stacklevel=3,
        )
    # None: the fused one where the model has it (attention with soft-capping has none).
    attention = None if device.type == "cuda" else attention_for_cpus()
    try:
        tokenizer = _load_tokenizer(source, trust_remote_code)
        with progress_for_long_loads(source):
            load = partial(
                family.from_pretrained,
                source,
                dtype=choose_dtype(dtype, device),
                trust_remote_code=trust_remote_code,
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
                adapter_kwargs={"subfolder": _NOWHERE},  # adapters are looked for there, and would be put into the model
            )
            try:
                model, info = load(attn_implementation=attention)
            except KeyError as error:  # Falcon looks its attention up among its own
                if error.args != (attention,):
                    raise
                model, info = load()
    except ModelError:
        raise
    except Exception as error:
        raise _unloadable(source, error) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        lost = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise ModelError(f"{source}: {len(lost)} weights are missing, such as {lost[0]}; copy the whole checkpoint again")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{source}: its tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
    refuse_meta(model, source)
    return model.to(device), tokenizer


def has_chat_template(source: str) -> bool:
    """Whether the model's tokenizer knows turns; loads nothing but the tokenizer.

    Raises:
        ModelError: there is no such model, or its tokenizer can't be read.
    """
    _check_source(source, allow_pickle=True)
    try:
        return bool(AutoTokenizer.from_pretrained(source).chat_template)
    except Exception as error:
        raise _unloadable(source, error) from error
