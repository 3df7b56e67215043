"""Where a model is: in a directory, in the cache of downloaded ones, or at the hub. Nothing is downloaded here."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ...errors import ModelError

_PATIENCE_S = 10.0


def may_be_at_hub(source: str) -> bool:
    """Whether a name that is no directory may be a hub id: by its form, and because it does not lead into a folder here."""
    first, *rest = Path(source).parts or ("",)
    if source.startswith((".", "/", "~")) or Path(source).exists() or (rest and Path(first).is_dir()):
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def no_such_directory(source: str) -> ModelError:
    """The error for a name that is neither a directory nor may be a hub id."""
    return ModelError(f"{source}: no such directory; name one in the Hugging Face format, or a hub id like 'org/name'")


def is_here(source: str) -> bool:
    """Whether a model is on this machine, so that loading it downloads nothing. If not, the hub is asked whether it has it.

    Raises:
        ModelError: there is no such directory, and the hub has no such model or can't be asked.
    """
    if Path(source).is_dir() or _is_cached(source):
        return True
    if not may_be_at_hub(source):
        raise no_such_directory(source)
    try:
        HfApi().model_info(source, timeout=_PATIENCE_S)
    except RepositoryNotFoundError:
        raise ModelError(
            f"{source}: no such directory, and the hub has no model of that name for you; check the name, or log in "
            "(hf auth login) if it is private"
        ) from None
    except Exception as error:  # no network, offline mode, a hub that is down: of several libraries
        raise ModelError(
            f"{source}: no such directory, and not in the cache of downloaded models ({constants.HF_HUB_CACHE}). Whether the "
            f"hub has a model of that name is not known, as it can't be asked ({_in_short(error)}); check the name, or "
            "download the model first"
        ) from None
    return False


def _is_cached(source: str) -> bool:
    """The hub's model was downloaded before, with its weights."""
    if not may_be_at_hub(source):
        return False
    config = try_to_load_from_cache(source, "config.json")
    return isinstance(config, str) and any(any(Path(config).parent.glob(ending)) for ending in ("*.safetensors", "*.bin"))


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:150]
