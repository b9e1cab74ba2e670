"""Frozen records of settings from YAML files and from overrides such as `train.epochs=20`, checked, and back to YAML.

Settings stand in frozen dataclasses beside what they set, and their defaults there and nowhere else. A record may hold
further records; a setting has a dotted name. Hydra composes the files in `configs/`, the dataclasses are the schema,
and every mistake is told with the name of the setting, what it needs, and the nearest known name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import as_file, files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from twotower_lib.errors import ArtifactError, SettingError, nearest
from twotower_lib.storage import write_text

Record = TypeVar("Record")


def composed(kind: type[Record], groups: Sequence[str], overrides: Sequence[str] = ()) -> Record:
    """A record from the packaged `configs/` and overrides; the last one of a name counts.

    Values of text settings are taken as they are, so that paths may hold `=`, spaces, commas and quotes.

    Args:
        kind: the dataclass.
        groups: names of settings whose value is that of a file, such as `model` for `model=id`.
        overrides: `name=value`.

    Raises:
        SettingError: an override is unknown (the nearest known one is named), has the wrong type, or is out of range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    given = dict(_named(kind, groups, one) for one in overrides)
    texts = {name: value for name, value in given.items() if _is_text(kind, name)}
    ConfigStore.instance().store("schema", _schema(kind))
    GlobalHydra.instance().clear()
    with (
        as_file(files("twotower_lib") / "configs") as folder,
        initialize_config_dir(str(folder), version_base="1.3"),
    ):
        config = hydra_compose("config", [f"{name}={value}" for name, value in given.items() if name not in texts])
    plain = OmegaConf.to_container(config, resolve=True)
    for name, value in texts.items():
        _put(kind, plain, name, value)
    return _record(kind, plain)


def overridden(record: Record, overrides: Sequence[str]) -> Record:
    """The record with settings changed by overrides, without the files in `configs/`; the last one of a name counts.

    Args:
        record: the settings as they are.
        overrides: `name=value`.

    Raises:
        SettingError: an override is unknown (the nearest known one is named), has the wrong type, or is out of range.
    """
    kind = type(record)
    given = dict(_named(kind, (), one) for one in overrides)
    config = _schema(record)
    for name, value in given.items():
        if not _is_text(kind, name):
            OmegaConf.update(config, name, _parsed(name, value))
    plain = OmegaConf.to_container(config, resolve=False)
    for name, value in given.items():
        if _is_text(kind, name):
            _put(kind, plain, name, value)
    changed: Record = _record(kind, plain)
    return changed


def save(record: Any, path: Path) -> None:
    """Write all settings, defaults included, so that a later change of a default changes nothing that was written."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(record)))


def load(kind: type[Record], path: Path) -> Record:
    """Read what `save` wrote.

    Raises:
        ArtifactError: the file holds something else.
    """
    try:
        merged = OmegaConf.merge(_schema(kind), OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        reason = f"{error.full_key}: {error.msg}" if isinstance(error, OmegaConfBaseException) else str(error)
        came = f"{path} holds no settings of ours: {reason}"
        raise ArtifactError(came.splitlines()[0], "the file as `twotower train` wrote it") from error
    return _record(kind, OmegaConf.to_container(merged, resolve=False))


def _schema(record: Any) -> Any:
    """A dataclass or a record as a schema; a frozen one marks every node read-only, which would refuse any override."""
    schema = OmegaConf.structured(record)
    _unlock(schema)
    return schema


def _unlock(node: Any) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _unlock(child)


def _record(kind: Any, plain: Any) -> Any:
    """Plain dicts and lists as the records of settings."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _record(hints[name], value) for name, value in plain.items()})  # type: ignore[operator]
    return tuple(plain) if isinstance(plain, list) else plain


def _put(record: Any, plain: Any, name: str, value: str) -> None:
    """Set one text in nested dicts; `null` is none where a setting may be without."""
    *groups, last = name.split(".")
    for group in groups:
        plain = plain[group]
    plain[last] = None if value == "null" and NoneType in _kinds(known_settings(record)[name]) else value


def known_settings(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name, with its type."""
    hints = get_type_hints(record)
    known: dict[str, Any] = {}
    for one in fields(record):
        kind = hints[one.name]
        if is_dataclass(kind):
            known |= known_settings(kind, f"{prefix}{one.name}.")
        else:
            known[prefix + one.name] = kind
    return known


def _named(record: Any, groups: Sequence[str], override: str) -> tuple[str, str]:
    """Name and value of an override whose name is known, and whose value fits."""
    name, is_given, value = override.partition("=")
    known = known_settings(record)
    if name not in known and name not in groups:
        names = [*known, *groups, "out"] if groups else known
        raise SettingError(f"no setting is called {name}", "a known name", nearest(name, names))
    if not is_given:
        raise SettingError(f"{name} without a value", f"{name}=VALUE")
    if name in groups:
        _check_option(name, value)
    elif not _is_text(record, name) and not _fits(record, name, value):
        raise SettingError(f"{name} = {value}", _in_words(known[name]))
    return name, value


def _check_option(group: str, value: str) -> None:
    folder = files("twotower_lib") / "configs" / group
    options = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir())
    if value not in options:
        raise SettingError(f"{group} = {value}", f"one of {', '.join(options)}", nearest(value, options))


def _fits(record: Any, name: str, value: str) -> bool:
    """Whether Hydra reads this value as one of the setting's type."""
    from hydra.errors import HydraException

    schema = _schema(record)
    try:
        OmegaConf.update(schema, name, _parsed(name, value))
        OmegaConf.select(schema, name, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return False
    return True


def _parsed(name: str, value: str) -> Any:
    """What Hydra reads this value as."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"{name}={value}").value()


def _is_text(record: Any, name: str) -> bool:
    return str in _kinds(known_settings(record).get(name))


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _in_words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return " or ".join(words.get(one, "a list such as [id,history]") for one in _kinds(kind))
