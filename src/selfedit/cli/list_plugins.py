"""`selfedit plugins`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter


def plugins(*, json_lines: Annotated[bool, Parameter(show_default=False)] = False) -> None:
    """List what a settings file can name: edit kinds, task sources, rewards, algorithms, rungs and more.

    Each name is shown with what it does, and with its package if that is not
    selfedit. A package adds names by Python entry points (docs/plugins.md).

    For example:
      selfedit plugins
      selfedit plugins --json-lines | jq .name

    Parameters
    ----------
    json_lines
        Print one JSON object per line instead.
    """
    from ..plugins import GROUPS, describe, listed
    from ..report.words import plain

    for group in GROUPS.values():
        if not json_lines:
            print(f"{group.name}: {group.about}")
        for plugin in listed(group.name):
            about = describe(plugin)
            row = {"group": group.name, "name": plugin.name, "package": plugin.package, "about": about}
            package = f" (from {plain(plugin.package)})" if plugin.entry else ""
            print(json.dumps(row) if json_lines else f"  {plugin.name:<24}{plain(about)}{package}")
