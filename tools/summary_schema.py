"""The JSON Schema of a run's ``summary.json`` and of a pooled result, published as docs/summary.schema.json.

    python -m tools.summary_schema            # writes it
    python -m tools.summary_schema --check    # writes nothing; exits with 1 if the file is not up to date

It is made from the models of `selfedit.summary`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from selfedit.summary import SCHEMA_VERSION, PooledSummary, Summary

FILE = Path(__file__).parents[1] / "docs" / "summary.schema.json"


def schema() -> dict[str, Any]:
    """The schema (JSON Schema, 2020-12) of both files, with a description of every field."""
    references, definitions = models_json_schema([(Summary, "validation"), (PooledSummary, "validation")])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "selfedit summary",
        "description": f"A run's summary.json, or the pooled result of several runs; schema_version {SCHEMA_VERSION} or older.",
        "anyOf": [references[kind, "validation"] for kind in (Summary, PooledSummary)],
        **definitions,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.summary_schema", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is not up to date")
    asked = parser.parse_args(arguments)
    text = json.dumps(schema(), indent=1) + "\n"
    current = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    if text == current:
        return 0
    if asked.check:
        print(f"{FILE.name} is not up to date; run python -m tools.summary_schema")
        return 1
    FILE.write_text(text, encoding="utf-8")
    print(f"written: {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
