"""What can be plugged in, by name: self-edit kinds, task sources, policies, rewards, metrics, algorithms, guards and rungs.

A plug-in of ours is a file in its group's folder: ``algorithms/rest_em.py`` defines the class ``RestEm`` and is called
``rest_em``. Another package names its classes as Python entry points, such as ``selfedit.algorithms``. A plug-in may have
settings of its own, a pydantic model in its attribute ``Settings``: they are the table of its name in its section, such as
``[algorithm.rest_em]``.

Nothing is imported before it is asked for, so that names can be checked without torch.
"""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, util
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from .errors import PluginError

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Group:
    """A kind of plug-in. ``folder``: where ours are; ``needs``: the attributes that a plug-in must have.

    ``ours_have_settings``: some of ours have settings of their own; of other groups only other people's do.
    """

    name: str
    folder: str
    needs: tuple[str, ...]
    about: str
    ours_have_settings: bool = False

    @property
    def entry_points(self) -> str:
        """The entry-point group of other packages."""
        return f"selfedit.{self.name}"


GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        Group(
            "edits",
            "edits",
            ("change", "policy", "largest"),
            "kinds of self-edits: the change that an edit makes",
            True,
        ),
        Group("tasks", "tasks.sources", ("draw", "dev", "evaluation", "known"), "sources of contexts with their probes", True),
        Group("policies", "policies", ("propose",), "what writes self-edits"),
        Group("rewards", "rewards.terms", ("value",), "terms of a reward, beside the metrics"),
        Group("metrics", "rewards.metrics", ("grade",), "what calls an answer right", True),
        Group("algorithms", "algorithms", ("improve",), "how a policy learns from a round", True),
        Group("guards", "guards", ("measure", "objections"), "what a round's new policy has to keep"),
        Group("rungs", "evaluation.rungs", ("label", "climb", "cost"), "ways of preparing a model that are compared"),
    )
}


@dataclass(frozen=True)
class Plugin:
    """A name in a group and where it comes from: a module of ours, or another package's entry point."""

    group: Group
    name: str
    module: str = ""
    entry: EntryPoint | None = None

    @property
    def package(self) -> str:
        """The distribution that brings it, with its version."""
        if self.entry is None:
            return "selfedit"
        dist = self.entry.dist
        return f"{dist.name} {dist.version}" if dist else self.entry.value

    def load(self) -> Any:
        """The class (or another callable) itself.

        Raises:
            PluginError: it can't be imported, or lacks what its group needs; the message names its package.
        """
        where = f"the plug-in {self.name!r} ({self.group.entry_points}) of the package {self.package}"
        try:
            kind = "".join(part.capitalize() for part in self.name.split("_"))
            found = self.entry.load() if self.entry else getattr(import_module(self.module), kind)
        except Exception as error:  # another package can raise anything while it is imported
            raise PluginError(
                f"{where} can't be imported ({type(error).__name__}: {error}); update or uninstall that package"
            ) from error
        missing = [name for name in self.group.needs if not hasattr(found, name)]
        missing += sorted(getattr(found, "__abstractmethods__", ()))
        if not callable(found) or missing:
            lacks = f"it has no {', '.join(missing)}" if missing else "it is not callable"
            raise PluginError(f"{where} is not one of the {self.group.name}: {lacks}; see docs/plugins.md")
        own = getattr(found, "Settings", None)
        if own is not None and not (inspect.isclass(own) and hasattr(own, "model_validate")):
            raise PluginError(f"{where} has a Settings that is not a pydantic model; see docs/plugins.md")
        return found


def names(group: str) -> list[str]:
    """The names in a group, ours first."""
    return list(dict.fromkeys(plugin.name for plugin in listed(group)))


def listed(group: str) -> list[Plugin]:
    """Every plug-in of a group, ours first; a name may come twice, which `find` refuses."""
    return [*_ours(group), *_others(group, tuple(sys.path))]


def find(group: str, name: str) -> Any:
    """The plug-in of that name, loaded.

    Raises:
        PluginError: there is none, two packages use the name, or it can't be loaded.
    """
    found = [plugin for plugin in listed(group) if plugin.name == name]
    if not found:
        raise PluginError(f"there is no {name!r} among the {group}; there are {', '.join(names(group))}")
    if len(found) > 1:
        packages = " and ".join(plugin.package for plugin in found)
        raise PluginError(
            f"the name {name!r} is taken twice among the {group}, by {packages}; rename the entry point, or uninstall a package"
        )
    return found[0].load()


def settings_model(group: str, name: str) -> type[BaseModel] | None:
    """The model of a plug-in's own settings, None where it has none; raises as `find`."""
    if not GROUPS[group].ours_have_settings and [p.package for p in listed(group) if p.name == name] == ["selfedit"]:
        return None  # without importing it
    model: type[BaseModel] | None = getattr(find(group, name), "Settings", None)
    return model


def describe(plugin: Plugin) -> str:
    """The first line of a plug-in's docstring, or why it can't be loaded."""
    try:
        text = inspect.getdoc(plugin.load()) or ""
    except PluginError as error:
        return f"broken: {error}"
    return text.strip().split("\n")[0]


@cache
def _ours(group: str) -> tuple[Plugin, ...]:
    """The files of a group's folder. Finding them imports no module of the folder but its package."""
    kind = GROUPS[group]
    package = f"{__package__}.{kind.folder}"
    spec = util.find_spec(package)
    places: Sequence[str] = (spec and spec.submodule_search_locations) or ()
    modules = (m.name for m in pkgutil.iter_modules(places) if not m.ispkg and m.name != "base")
    return tuple(Plugin(kind, name, f"{package}.{name}") for name in modules)


@cache
def _others(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Other packages' plug-ins; looked for once on a search path, as that reads the metadata of every installed package."""
    kind = GROUPS[group]
    found = sorted(entry_points(group=kind.entry_points), key=lambda entry: (entry.name, entry.value))
    return tuple(Plugin(kind, entry.name, entry=entry) for entry in found)
