"""What sections of settings have in common, and how plug-ins bring settings of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from .. import plugins
from ..errors import SettingsError


class Section(BaseModel):
    """Base of every settings section: unknown fields are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Own = TypeVar("Own", bound=BaseModel)


def at_home(path: str) -> str:
    """The path with the home directory in place of a ``~`` that it begins with; ValueError where there is none."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        whose = "you have" if path.partition("/")[0] == "~" else "that user has"
        raise ValueError(f"{path!r}: {whose} no home directory here; write the path in full") from None


# A setting that is a path, or may be one; it is recorded as it is found here.
PathText = Annotated[str, AfterValidator(at_home)]


def plugged(*groups: str, optional: bool = False) -> AfterValidator:
    """Checks that a name is one of these groups' plug-ins; ``optional``: or empty."""

    def check(name: str) -> str:
        known = [name for group in groups for name in plugins.names(group)]
        if name not in known and not (optional and not name):
            raise ValueError(f"there is no {name!r} among the {' and '.join(groups)}; take one of {', '.join(known)}")
        return name

    return AfterValidator(check)


class PluggedSection(Section):
    """A section that names plug-ins. A plug-in's own settings, if it has any, are the table of its name in this section.

    The tables of the plug-ins that the section names are filled with their defaults, so that a run records them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    groups: ClassVar[tuple[str, ...]] = ()

    def named(self) -> list[tuple[str, str]]:
        """The plug-ins in use, as (group, name)."""
        return []

    @model_validator(mode="after")
    def _own_tables(self) -> Any:
        tables = self.__pydantic_extra__ if self.__pydantic_extra__ is not None else {}
        for name, fields in list(tables.items()):
            tables[name] = self._table(name, fields)
        for group, name in self.named():
            if name not in tables and plugins.settings_model(group, name):
                tables[name] = self._table(name, {})
        return self

    def _table(self, name: str, fields: Any) -> BaseModel:
        if isinstance(fields, BaseModel):
            return fields
        # Where a kind and its policy share a name, the table is that of the one that has settings.
        groups = [group for group in self.groups if name in plugins.names(group)]
        model = next((found for group in groups if (found := plugins.settings_model(group, name))), None)
        if model is None:
            raise ValueError(f"unknown field {name!r}; {self._instead_of(name)}")
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, (name, *e['loc'])))}: {e['msg']}" for e in error.errors()]
            raise ValueError("; ".join(lines)) from None

    def _instead_of(self, field: str) -> str:
        """What to write in place of an unknown field: it may be a plug-in's."""
        for group in self.groups:
            for plugin in plugins.listed(group) if plugins.GROUPS[group].ours_have_settings else ():
                model = plugins.settings_model(group, plugin.name) if plugin.entry is None else None
                if model is not None and field in model.model_fields:
                    return f"it is a setting of {plugin.name}: write {plugin.name}.{field}"
        return f"there are {', '.join(type(self).model_fields)}"

    def own(self, name: str, model: type[Own]) -> Own:
        """A plug-in's own settings; its defaults where the section does not name it."""
        found = self.table(name)
        if found is not None and not isinstance(found, model):
            raise SettingsError(f"the table {name!r} is another plug-in's; give the plug-ins different names")
        return model() if found is None else found

    def table(self, name: str) -> BaseModel | None:
        """A plug-in's own settings as the section has them, if it has any."""
        return (self.__pydantic_extra__ or {}).get(name)
