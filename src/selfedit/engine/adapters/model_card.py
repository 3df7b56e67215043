"""The README of an exported adapter: what it is and how to load it, with the header that the model hub reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

CARD_FILE = "README.md"


def model_card(*, base: str, rank: int, alpha: float, targets: Sequence[str], sha256: str) -> str:
    """The card as Markdown. Its header names a base on the hub; a local directory, which is no id there, only the text."""
    on_hub = _is_hub_id(base)
    source = base if on_hub else "the/base"
    return f"""---
{f"base_model: {base}" if on_hub else "# base_model: not on the hub, see below"}
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- selfedit
---

# A LoRA adapter made by selfedit

It adds `alpha / rank * B A` to the weights of a frozen base, which is needed to use it.

| | |
|---|---|
| base | `{base or "not recorded"}` |
| rank | {rank} |
| alpha | {alpha:g} |
| adapted modules | {", ".join(f"`{name}`" for name in targets)} |
| sha256 of tensors, names, rank and alpha | `{sha256}` |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({source!r})
model = PeftModel.from_pretrained(base, "this/directory")
```
"""


def _is_hub_id(name: str) -> bool:
    """Only by its form, and that there is no such directory: nothing is asked of the hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()
