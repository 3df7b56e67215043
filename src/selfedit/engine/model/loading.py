"""Models and tokenizers from a directory or the hub, with every refusal saying what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ...errors import ModelError, SettingsError
from .attention import register as attention_for_cpus
from .body import refuse_meta

Dtype = Literal["auto", "fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA where present, else the CPU.

    Raises:
        SettingsError: CUDA is asked for and absent.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("model.device: there is no CUDA device here; set it to 'cpu' or 'auto'")
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
        if path.exists() or source.startswith((".", "/", "~")):
            raise ModelError(f"{source}: no such directory; name one in the Hugging Face format, or a hub id like 'org/name'")
        return
    if not (path / "config.json").exists():
        adapter = (path / "adapter_config.json").exists()
        hint = (
            "it is an adapter: load its base, and give the adapter by its own setting"
            if adapter
            else "name a directory in the Hugging Face format"
        )
        raise ModelError(f"{path}: no config.json; {hint}")
    if not any(path.glob("*.safetensors")):
        pickled = any(path.glob("pytorch_model*.bin"))
        if pickled and not allow_pickle:
            raise ModelError(
                f"{path}: only pickled weights (pytorch_model.bin), which can run code when loaded; convert them with "
                "model.save_pretrained, or set allow_pickle if you trust their source"
            )
        if not pickled:
            raise ModelError(f"{path}: no weights (*.safetensors); copy the whole checkpoint there")
    if not any((path / name).exists() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path}: no tokenizer; save the model's own into it: tokenizer.save_pretrained({str(path)!r})")


@contextmanager
def _progress_for_long_loads(source: str) -> Iterator[None]:
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
    return ModelError(f"{source}: can't be loaded as a causal language model ({reason}); check the name")


def load_outline(source: str, *, trust_remote_code: bool, allow_pickle: bool) -> PreTrainedModel:
    """The model's modules without its weights (on the meta device): what its shape says, at the cost of its config.json.

    Raises:
        ModelError: it can't be read, or is no causal language model.
        Exception: of the model's own code, which can raise anything on the meta device; with weights it may load.
    """
    _check_source(source, allow_pickle)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _unloadable(source, error) from error
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-any-return]
    except Exception as error:
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:  # a checkpoint's own code is entered there as it is read
            raise
        raise _unloadable(source, error) from error


def load_model(
    source: str, *, dtype: Dtype, device: torch.device, trust_remote_code: bool, allow_pickle: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in ``dtype`` on ``device``, and its tokenizer.

    Raises:
        ModelError: it can't be loaded, is incomplete, or has no tokenizer or end-of-text token.
    """
    _check_source(source, allow_pickle)
    # None: the fused one where the model has it (attention with soft-capping has none).
    attention = None if device.type == "cuda" else attention_for_cpus()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        with _progress_for_long_loads(source):
            load = partial(
                AutoModelForCausalLM.from_pretrained,
                source,
                dtype=choose_dtype(dtype, device),
                trust_remote_code=trust_remote_code,
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
            )
            try:
                model, info = load(attn_implementation=attention)
            except KeyError as error:  # Falcon looks its attention up among its own
                if error.args != (attention,):
                    raise
                model, info = load()
    except Exception as error:
        raise _unloadable(source, error) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        lost = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise ModelError(f"{source}: {len(lost)} weights are missing, such as {lost[0]}; copy the whole checkpoint again")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{source}: its tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
    refuse_meta(model, source)
    return model.to(device), tokenizer
