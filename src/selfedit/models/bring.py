"""A user's own model under a name: a GGUF file is converted, a directory is registered, a hub id is fetched and registered."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ModelError, SettingsError
from . import shelf
from .fetch import sha256_of
from .gguf_header import parts_of, read
from .shelf import Tell

# What a causal language model needs; not its copies in other formats, nor what lies in folders of its own.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*", "LICENCE*", "NOTICE*"]
_UNWANTED = ["*/*", "consolidated*", "*.fp16.*", "*.fp32.*"]


def bring(source: str, name: str | None, tell: Tell) -> shelf.Entry:
    """Make ``source`` (a .gguf file, a directory or a hub id) usable by ``name`` (default: made from its own name).

    Raises:
        SettingsError: the name can't be used, or names another model already; or the extra ``gguf`` is not installed.
        ModelError: it is not there, can't be converted, or is no causal language model with a tokenizer.
        DiskError: the disk is full, or can't be written.
    """
    path = Path(source).expanduser()
    name = shelf.check_name(_name_of(path.name) if name is None else name)
    where = str(path.absolute()) if path.exists() else source
    old = shelf.find(name)
    if old and not old.problem() and old.source != where:
        raise SettingsError(f"the name {name} is another model's, made from {old.source}; choose another one with --name")
    if path.is_dir():
        return _register(path.absolute(), name, where, tell)
    if path.is_file():
        return _convert(path.absolute(), name, tell)
    if source.startswith((".", "/", "~")) or source.endswith(".gguf") or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ModelError(f"{source}: no such file or directory; name a .gguf file, a directory, or a hub id like 'org/name'")
    return _register(_snapshot(source, tell), name, source, tell)


def _name_of(file: str) -> str:
    """A name made from a file's, a directory's or a repository's."""
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", file, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model"


def _convert(path: Path, name: str, tell: Tell) -> shelf.Entry:
    from .gguf_import import convert, need_gguf

    need_gguf()
    parts = parts_of(path)
    header = read(parts)  # before the folder is touched
    with shelf.placed(name) as work:
        shelf.check_space(sum(tensor.size for tensor in header.tensors.values()))
        convert(parts, work, source=f"the file {path.name}", sha256=sha256_of(parts[0]), tell=tell)
        shelf.record(work, shelf.Entry(name, str(path), str(header.metadata.get("general.license", ""))))
    return shelf.made(name)


def _register(directory: Path, name: str, source: str, tell: Tell) -> shelf.Entry:
    """A model that stays where it is."""
    from transformers import AutoTokenizer

    from ..engine.model.loading import load_outline

    files = sorted(directory.glob("*.gguf"))
    if files and not (directory / "config.json").exists():
        raise ModelError(f"{directory}: it holds GGUF files; name one of them, such as {files[0]}")
    load_outline(str(directory), trust_remote_code=False, allow_pickle=False)
    try:
        # Without its vocabulary, the library may make a tokenizer that knows no words.
        problem = "" if AutoTokenizer.from_pretrained(directory)("A word.")["input_ids"] else "it has no vocabulary"
    except Exception as error:  # any of the library's parsers
        problem = " ".join(str(error).split())[:300]
    if problem:
        raise ModelError(f"{directory}: its tokenizer can't be used ({problem}); copy the whole checkpoint there")
    tell(f"{directory} stays where it is", 0, 0)
    with shelf.placed(name) as work:
        shelf.record(work, shelf.Entry(name, source, directory=str(directory)))
    return shelf.made(name)


def _snapshot(hub_id: str, tell: Tell) -> Path:
    """The repository's files in the hub's own cache, where transformers finds them, too."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    tell(f"fetching {hub_id} from the Hugging Face hub", 0, 0)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id}: its owner asks you to accept terms first; do so at https://huggingface.co/{hub_id}, and log in with: "
            "hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{hub_id}: the hub has no such model; check the name, or log in with: hf auth login") from error
    except Exception as error:  # of the hub's client, of its http client, or of the network
        full = isinstance(error, OSError) and error.errno == 28
        reason = "the disk is full" if full else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(
            f"{hub_id}: can't be fetched from the hub ({reason}); connect to the network and run the same command again, which "
            "continues, or name a directory or a .gguf file. 'selfedit model list' shows models that pip can fetch"
        ) from error
