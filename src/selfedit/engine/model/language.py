"""The part of a model that reads text: all of it, or the language model inside one that also sees or hears."""

from __future__ import annotations

from typing import cast

from torch import nn
from transformers import PreTrainedModel


def is_composite(model: PreTrainedModel) -> bool:
    """The model has parts for images or sound beside its language model."""
    return model.config.get_text_config() is not model.config


def backbone(model: PreTrainedModel) -> nn.Module:
    """The module that turns tokens into hidden states, without the head."""
    if is_composite(model):
        return cast(nn.Module, model.get_decoder())
    inner = model.base_model
    # Some classes name another module as their base than they have.
    return inner if inner is not model else cast(nn.Module, getattr(model, "model", model))
