"""The recipe: a YAML file that is checked completely before anything starts.

A check reports all faults at once, each with its key, its value and the allowed values. The
result is frozen and typed. The parts that features depend on are the objects that the DSP code
takes.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    with_config,
)

from melmill.transforms.catalogue.left_out import absolute_file
from melmill.transforms.catalogue.licenses import OtherLicense
from melmill.transforms.catalogue.meanings import TableKeys
from melmill.transforms.catalogue.parts import DEFAULT_EXTENSIONS
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import number_of
from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import ChunkSpec, Edges, Long, Short, Tail
from melmill.transforms.features.logarithm import Contradiction, LogSpec
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.mel_spec import (
    MelSpec,
    contradictions,
    mel_neighbour_contradictions,
)
from melmill.transforms.features.mfcc import MfccSpec, mfcc_contradictions
from melmill.transforms.features.model_spec import (
    ModelSpec,
    is_python,
    model_contradictions,
    model_neighbour_contradictions,
)
from melmill.transforms.features.pcen import (
    PcenSpec,
    pcen_contradictions,
    pcen_neighbour_contradictions,
)
from melmill.transforms.features.resample import Quality as Resampler
from melmill.transforms.features.spec import KINDS, Feature, FeatureSpec, KindSpec
from melmill.transforms.features.standardization import StandardizationSpec
from melmill.transforms.features.stft_spec import (
    StftSpec,
    neighbour_contradictions,
    stft_contradictions,
)
from melmill.transforms.features.variant_entries import parse_variant
from melmill.transforms.features.variants_spec import VariantSpec
from melmill.transforms.features.waveform import (
    WaveformSpec,
    waveform_contradictions,
    waveform_neighbour_contradictions,
)
from melmill.transforms.measures.chunk_meters import MAX_OVERLAPPING
from melmill.transforms.measures.expressions import selection_of
from melmill.transforms.measures.registry import (
    CHUNK_MEASURES,
    METERS,
    QUALITIES,
    chunk_measures,
    meters_in,
    quality_text,
    quality_with,
)
from melmill.transforms.plan.group_decisions import Dedupe
from melmill.transforms.plan.job import Format, Limits, RefreshSpec, WriterSpec
from melmill.transforms.plan.packing import ShardSpec
from melmill.transforms.plan.recordings import Damaged
from melmill.transforms.plan.splits import SplitSpec, check_split_name
from melmill.transforms.rows.columns import is_label
from melmill.transforms.store.filesystems import StorageOptions

Raw = dict[str, Any]
Fault = tuple[str, object, str]

_FORBID = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


#: Sample rate of a feature; ``None`` for ``audio.sample_rate_hz``.
_OwnRate = Annotated[int, Field(ge=1000, le=768_000)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MelFeature(MelSpec):
    """An entry of the kind ``mel`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["mel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MfccFeature(MfccSpec):
    """An entry of the kind ``mfcc`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["mfcc"]


def _absolute_model(model: str) -> str:
    return model if is_python(model) else absolute_file(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFeature(ModelSpec):
    """An entry of the kind ``model`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["model"]
    model: Annotated[str, Field(min_length=1), AfterValidator(_absolute_model)]
    sha256: Annotated[str, BeforeValidator(lambda value: value or "")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcenFeature(PcenSpec):
    """An entry of the kind ``pcen`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["pcen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StftFeature(StftSpec):
    """An entry of the kind ``stft`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["stft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveformFeature(WaveformSpec):
    """An entry of the kind ``waveform`` in the list of features."""

    name: str
    sample_rate_hz: _OwnRate = None
    kind: Literal["waveform"]


def _chunk_meters(value: object) -> object:
    """Return meters of chunks in the order of all meters.

    >>> _chunk_meters(["level", "gaps"]), _chunk_meters(["gaps", "level"])
    (('level', 'gaps'), ('level', 'gaps'))
    """
    allowed = f"meters of chunks: {', '.join(CHUNK_MEASURES)}"
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"should be a list of {allowed}")
    if wrong := [name for name in value if name not in tuple(CHUNK_MEASURES)]:
        why = "measures whole recordings only" if wrong[0] in tuple(METERS) else "is no meter"
        raise ValueError(f"should be a list of {allowed}; {wrong[0]} {why}")
    if len(set(value)) < len(value):
        raise ValueError("lists a meter twice")
    return tuple(name for name in CHUNK_MEASURES if name in value)


def _no_rate(value: object) -> object:
    if value is not None:
        raise ValueError("not allowed: measures are read at each recording's own sample rate")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuresFeature:
    """An entry of the kind ``measures`` in the list of features."""

    name: str
    meters: Annotated[tuple[str, ...], BeforeValidator(_chunk_meters)]
    kind: Literal["measures"]
    sample_rate_hz: Annotated[int | None, BeforeValidator(_no_rate)] = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures; the features depend on them, and not on their meters."""
        return chunk_measures(self.meters)


_Features: TypeAlias = (
    MeasuresFeature
    | MelFeature
    | MfccFeature
    | ModelFeature
    | PcenFeature
    | StftFeature
    | WaveformFeature
)

for _spec in (MelSpec, LogSpec, StandardizationSpec, *get_args(_Features)):
    with_config(_FORBID)(_spec)

_Entry = Annotated[_Features, Field(discriminator="kind")]

#: Names of features. Delta and WebDataset do not tell capital letters from small ones, and a tar
#: file has room for 48 letters.
_FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")

_Variant = Annotated[
    VariantSpec, PlainValidator(parse_variant), PlainSerializer(VariantSpec.values)
]
_LicenseName = Annotated[str, Field(min_length=1)]

_SplitName = Annotated[str, AfterValidator(check_split_name)]


class _Section(BaseModel):
    model_config = _FORBID


class AudioConfig(_Section):
    """The sample rate and the channels that every recording is converted to before chunking."""

    sample_rate_hz: Annotated[int, Field(ge=1000, le=768_000)] = 22_050
    channels: ChannelPolicy = "mono"
    resampler: Resampler = "soxr_hq"


class ChunkConfig(_Section):
    """How recordings are cut into chunks; seconds are converted to samples only here."""

    seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    hop_seconds: Annotated[float, Field(gt=0)] | None = None
    tail: Tail = "drop"
    short: Short = "pad"
    long: Long = "cut"
    pad_value: Annotated[float, Field(ge=-1, le=1)] = 0.0
    edges: Edges = "pad"

    def spec(self, sample_rate_hz: int) -> ChunkSpec:
        """Return the same settings in samples."""
        hop_seconds = self.seconds if self.hop_seconds is None else self.hop_seconds
        length = max(1, round(self.seconds * sample_rate_hz))
        hop = max(1, round(hop_seconds * sample_rate_hz))
        policies = self.tail, self.short, self.pad_value, self.edges, self.long
        return ChunkSpec(length, hop, *policies)


class SplitConfig(_Section):
    """How recordings are divided into training, validation and test data."""

    fractions: dict[_SplitName, Annotated[float, Field(gt=0)]] = Field(
        default={"train": 0.8, "validation": 0.1, "test": 0.1}, min_length=1
    )
    by: Literal["auto", "recording", "group", "catalogue"] = "auto"
    group: str | None = None
    seed: int = 0
    keep_together: Literal["duplicates"] | None = None
    min_recordings: Annotated[int, Field(ge=0)] = 0
    stratify: str | None = None

    def spec(self) -> SplitSpec:
        """Return the settings in the planner's type."""
        units = self.by, self.group, self.seed, self.keep_together, self.stratify
        return SplitSpec(tuple(self.fractions.items()), *units)


def _resolution(value: object) -> object:
    """Return a resolution as a number, ``None`` for ``exact``; any other value unchanged.

    >>> _resolution("1/64 dB"), _resolution("exact"), _resolution(0.5)
    (0.015625, None, 0.5)
    """
    if value == "exact":
        return None
    if isinstance(value, str):
        try:
            return float(Fraction(value.removesuffix("dB").strip()))
        except (ValueError, ZeroDivisionError, OverflowError):
            return value
    return value


def _quality(value: object) -> object:
    """Return a quality: a tier, or several tiers and meters; YAML reads ``off`` as false.

    >>> _quality(False), _quality(["basic", "acoustic"])
    ('off', ('basic', 'acoustic'))
    """
    if value is False:
        return "off"
    if isinstance(value, str) and value in QUALITIES:
        return value
    if isinstance(value, list | tuple) and value:
        names = tuple("off" if name is False else name for name in value)
        if all(name in (*QUALITIES, *METERS) for name in names):
            if len(set(names)) < len(names) or "off" in names:
                raise ValueError("lists a name twice, or off")
            return names
    raise ValueError(
        f"should be one of {', '.join(QUALITIES)}, or a list of these and of single meters: "
        f"{', '.join(METERS)}"
    )


#: Value of ``select`` that selects no recording: all are measured only.
NOTHING = "false"


def _select(value: object) -> object:
    """Return an expression that selects recordings; YAML reads ``false`` as no text.

    >>> _select(False), _select(" level.peak  < 0 ")
    ('false', 'level.peak < 0')
    """
    if value is None:
        return None
    if not isinstance(value, str | bool):
        raise ValueError("should be an expression, such as: clipping.share < 0.001")
    text = str(value).lower() if isinstance(value, bool) else " ".join(value.split())
    return selection_of(text).expression


def _off(value: object) -> object:
    """Return ``off``, which YAML reads as false, as text."""
    return "off" if value is False else value


class OutputConfig(_Section):
    """The formats, sizes and storage options of the dataset's files."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("parquet",)
    resolution: Annotated[float | None, BeforeValidator(_resolution)] = None
    shard_megabytes: Annotated[float, Field(gt=0, le=16_384)] = 256
    min_shards: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    row_group_rows: Annotated[int, Field(ge=1, le=65_536)] = 128
    compression_level: Annotated[int, Field(ge=1, le=22)] = 1
    order_seed: int = 0
    storage_options: dict[str, Any] = {}

    def shard_spec(self) -> ShardSpec:
        """Return the sizes in the planner's type."""
        return ShardSpec(int(self.shard_megabytes * 2**20), self.min_shards, self.order_seed)

    def writer_spec(self) -> WriterSpec:
        """Return the formats in the writers' type."""
        formats: tuple[Format, ...] = ("tfrecord",) if "tfrecord" in self.formats else ()
        return WriterSpec(("parquet", *formats), self.row_group_rows, self.compression_level)


def _separator(value: object) -> object:
    """Return the character between the cells of a table's row; ``tab`` is a name.

    >>> _separator("tab"), _separator(";")
    ('\\t', ';')
    """
    named = {"tab": "\t", "\\t": "\t"}.get(value, value) if isinstance(value, str) else value
    if named is not None and (not isinstance(named, str) or len(named) != 1 or named in '"\r\n\\'):
        raise ValueError("should be one character, such as ; or |, or tab")
    return named


class CatalogueConfig(_Section):
    """How the catalogue is read."""

    extensions: tuple[str, ...] = DEFAULT_EXTENSIONS
    exclude: Annotated[str, Field(min_length=1), AfterValidator(absolute_file)] | None = None
    require_license: Annotated[tuple[_LicenseName, ...], Field(min_length=1)] | None = None
    other_license: OtherLicense = "drop"
    publish_root: Annotated[str, Field(min_length=1), AfterValidator(absolute_file)] | None = None
    content_hashes: bool = False
    label_types: dict[str, str] = {}
    uri_column: Annotated[str, Field(min_length=1)] | None = None
    # An empty name stands for no column.
    start_column: str | None = None
    end_column: str | None = None
    duration_column: str | None = None
    separator: Annotated[str | None, BeforeValidator(_separator)] = None
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute_file)] | None = None
    storage_options: dict[str, Any] = {}

    def table_keys(self) -> TableKeys:
        """Return what the recipe says about a table."""
        values = {field.name: getattr(self, field.name) for field in fields(TableKeys)}
        return TableKeys(**{name: value for name, value in values.items() if value is not None})


class LimitsConfig(_Section):
    """The time and memory that a recording may take, and how many recordings may fail."""

    max_failure_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    max_duration_hours: Annotated[float, Field(gt=0)] = 24
    memory_megabytes: Annotated[int, Field(ge=128)] = 1024
    damaged: Damaged = "fail"

    def spec(self) -> Limits:
        """Return the limits in the workers' type."""
        return Limits(
            timeout_s=self.timeout_seconds,
            max_seconds=self.max_duration_hours * 3600,
            memory_bytes=self.memory_megabytes * 2**20,
            max_failure_ratio=self.max_failure_ratio,
            damaged=self.damaged,
        )


class RefreshConfig(_Section):
    """How many recordings a refresh may remove, and how often it retries a recording."""

    max_removed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5

    def spec(self) -> RefreshSpec:
        """Return the settings in the workers' type."""
        return RefreshSpec(self.max_removed_ratio, self.max_attempts)


class RetentionConfig(_Section):
    """The snapshots and files that ``melmill gc`` keeps."""

    keep_snapshots: Annotated[int, Field(ge=1, le=100_000)] = 10
    keep_days: Annotated[float, Field(ge=0, le=36_500)] = 0
    grace_hours: Annotated[float, Field(ge=0, le=87_600)] = 168


class Config(_Section):
    """A whole recipe."""

    audio: AudioConfig = AudioConfig()
    chunk: ChunkConfig = ChunkConfig()
    mel: MelSpec = MelSpec()
    features: Annotated[tuple[_Entry, ...], Field(min_length=1)] | None = None
    variants: tuple[_Variant, ...] = ()
    split: SplitConfig = SplitConfig()
    output: OutputConfig = OutputConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    limits: LimitsConfig = LimitsConfig()
    refresh: RefreshConfig = RefreshConfig()
    retention: RetentionConfig = RetentionConfig()
    quality: Annotated[str | tuple[str, ...], BeforeValidator(_quality)] = "basic"
    select: Annotated[str | None, BeforeValidator(_select)] = None
    dedupe: Annotated[Dedupe, BeforeValidator(_off)] = "off"

    def feature_spec(self) -> FeatureSpec:
        """Return the settings that a row's values depend on."""
        entries = self.features or ()
        features = tuple(
            Feature(entry.name, _spec_of(entry), self._own_rate(entry)) for entry in entries
        )
        return FeatureSpec(
            sample_rate_hz=self.audio.sample_rate_hz,
            channels=self.audio.channels,
            resampler=self.audio.resampler,
            chunk=self.chunk.spec(self.audio.sample_rate_hz),
            features=features or (Feature("mel", self.mel),),
            resolution=self.output.resolution,
            variants=self.variants,
        )

    def _own_rate(self, entry: _Features) -> int | None:
        rate = entry.sample_rate_hz
        return None if rate == self.audio.sample_rate_hz else rate

    def as_dict(self, *, secrets: bool = False) -> dict[str, Any]:
        """Return the recipe as plain values: with ``mel`` or with ``features``, which it has.

        Storage options may be secret, and are left out unless `secrets` is true.
        """
        secret = {"storage_options"}
        unused = "features" if self.features is None else "mel"
        hidden: dict[str, Any] = {} if secrets else {"output": secret, "catalogue": secret}
        hidden[unused] = True
        if not self.variants:
            hidden["variants"] = True  # as in recipes from before there were variants
        return self.model_dump(mode="json", exclude=hidden)


def _spec_of(entry: _Features) -> KindSpec:
    kind = KINDS[entry.kind]
    return kind(**{field.name: getattr(entry, field.name) for field in fields(kind)})


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), stored: Raw | None = None
) -> Config:
    """Read a recipe, apply ``--set`` overrides, check all of it, and return it.

    Parameters
    ----------
    path
        The YAML file, or the name of a recipe that comes with melmill; ``None`` for `stored`, or
        else for the defaults, which are librosa's settings.
    overrides
        The settings to change, as ``section.key=value`` with the value in YAML.
    stored
        The recipe that a dataset was made with.

    Raises
    ------
    ConfigError
        The recipe has faults; the message lists all of them, one per line.
    """
    raw = read_yaml(find_recipe(path)) if path else copy.deepcopy(stored or {})
    if not path and any(override.startswith("features=[") for override in overrides):
        raw.pop("mel", None)  # the list replaces the stored recipe's only feature
    for override in overrides:
        _apply(raw, override)
    presets = list(_expand_presets(raw))
    config, faults = check(raw)
    faults = [*presets, *faults]
    if config is not None and not faults:
        faults += _overridden(path, config)
    if config is None or faults:
        where = f"configuration {path}" if path else "configuration"
        lines = [f"  {key}: {_format_value(value)}: {allowed}" for key, value, allowed in faults]
        raise ConfigError(f"{where}: {number_of(len(faults), 'fault')}\n" + "\n".join(lines))
    return config


def find_recipe(name: str | Path, folder: str = "") -> str | Path:
    """Return the path of a YAML file, given its path or the name of a file that melmill ships.

    Parameters
    ----------
    name
        The name, such as ``"librosa"``, or the path. An existing file, and anything that looks
        like a path, is returned unchanged.
    folder
        The folder of the shipped files: ``""`` for recipes, ``"runners"`` for runners' options.

    Raises
    ------
    ConfigError
        There is neither a file nor a shipped file with this name.
    """
    if Path(name).is_file():
        return name
    shipped = shipped_recipes(folder)
    looks_like_a_name = re.fullmatch(r"[\w-]+", str(name)) or str(name) in shipped
    return shipped_recipe(str(name), folder) if looks_like_a_name else name


def shipped_recipe(name: str, folder: str = "") -> str:
    """Return the path of a YAML file that melmill ships; raise ``ConfigError`` if there is none."""
    shipped = shipped_recipes(folder)
    if name not in shipped:
        close = difflib.get_close_matches(name, shipped, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"configuration {name}: there is no file {name}, and melmill ships no file of this "
            f"name; {hint}it ships: {', '.join(sorted(shipped))}"
        )
    return shipped[name]


def shipped_recipes(folder: str = "") -> dict[str, str]:
    """Return the path of each YAML file that melmill ships in a folder, by its name."""
    files = (resources.files("melmill") / "configs" / folder).iterdir()
    return {Path(str(file)).stem: str(file) for file in files if file.name.endswith(".yaml")}


def _expand_presets(raw: Raw) -> Iterator[Fault]:
    """Put the settings of a preset into each entry of ``features`` that names one."""
    entries = raw.get("features")
    if not isinstance(entries, list):
        return
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "preset" not in entry:
            continue
        section, name = f"features.{number}", str(entry.pop("preset"))
        shipped = shipped_recipes()
        if name not in shipped:
            yield f"{section}.preset", name, f"a preset's name; {_hint(name, shipped)}"
            name = "librosa"  # any, so that the other keys are checked, too
        else:
            yield from _contradicting(section, name, raw, entry)
        preset = read_yaml(shipped[name])
        settings = (preset.get("features") or [{"kind": "mel", **preset.get("mel", {})}])[0]
        own_name = entry.get("name", re.sub(r"\W", "_", name))
        rate = load_config(shipped[name]).audio.sample_rate_hz
        entries[number] = {**settings, "name": own_name, "sample_rate_hz": rate}


def _contradicting(section: str, name: str, raw: Raw, entry: Raw) -> Iterator[Fault]:
    """Yield each setting of a recipe that contradicts a preset which an entry names."""
    own, expected = raw.get("audio"), load_config(shipped_recipe(name)).audio.channels
    value = own.get("channels", "mono") if isinstance(own, dict) else "mono"
    if expected == "each" and value != "each":
        yield "audio.channels", value, f"each, as in the preset {name} of {section}"
    for key in sorted(entry.keys() - {"name"}):
        allowed = f"not allowed beside preset; melmill presets {name} prints the preset's settings"
        yield f"{section}.{key}", entry[key], allowed


def _hint(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}melmill presets lists them"


def _overridden(path: str | Path | None, config: Config) -> Iterator[Fault]:
    """Yield each setting that is not what a preset stands for: its sample rate or its mels."""
    name = str(path)
    if path is None or name == "librosa" or name not in shipped_recipes():
        return
    if (preset := find_recipe(path)) == path:
        return  # a file of the user's own comes first
    shipped = load_config(preset)
    channels = ["channels"] if shipped.audio.channels == "each" else []
    own, now = _front_end(shipped, channels), _front_end(config, channels)
    how = f"melmill presets {name} > recipe.yaml, change the file, and use --recipe recipe.yaml"
    for key in sorted(own.keys() | now.keys()):
        if own.get(key) != now.get(key):
            kept = _format_value(own.get(key))
            yield key, now.get(key), f"in the preset {name} it is {kept}; to change it: {how}"


def _front_end(config: Config, channels: Sequence[str]) -> Raw:
    features = {"mel": True} if config.features is None else {"features": True}
    audio = {"sample_rate_hz", *channels}
    return _flat(config.model_dump(mode="json", include={"audio": audio, **features}))


def _flat(raw: Raw, prefix: str = "") -> Raw:
    """Return a mapping of dotted keys.

    >>> _flat({"mel": {"log": {"kind": "ln"}}, "seed": 1})
    {'mel.log.kind': 'ln', 'seed': 1}
    """
    flat: Raw = {}
    for key, value in raw.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def _format_value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text) if isinstance(value, str) else text


class _Loader(yaml.SafeLoader):
    """A stricter YAML loader: ``1e-10`` is a number, and a key that appears twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Raw:
    mapping: Raw = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in mapping:
            raise yaml.MarkedYAMLError(
                problem=f"{key}: appears twice", problem_mark=key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(path: str | Path) -> Raw:
    """Return the YAML mapping in a file; raise ``ConfigError`` with the file and the line."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            raw = yaml.load(file, _Loader)
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: not YAML: {error}") from error
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError(f"configuration {path}: must be a mapping of sections")
    return raw or {}


def read_storage_options(option: str, settings: Sequence[str]) -> StorageOptions:
    """Return the ``key=value`` settings of a command-line option as storage options.

    Raises
    ------
    ConfigError
        A setting is not of the form ``key=value``.
    """
    raw: Raw = {}
    for setting in settings:
        _apply(raw, setting, option)
    return tuple(raw.items())


def _apply(raw: Raw, override: str, option: str = "--set") -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        syntax = "section.key=value" if option == "--set" else "key=value"
        raise ConfigError(f"{option} {override}: write it as {syntax}")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {override}: the value is not YAML: {error}") from error
    *sections, name = key.split(".")
    inner: Any = raw
    for section in sections:
        if isinstance(inner, list) and section.isdigit() and int(section) < len(inner):
            inner = inner[int(section)]  # an entry of features
        elif isinstance(inner, dict):
            if inner.get(section) is None:  # a section that may be null: mel.standardization
                inner[section] = {}
            inner = inner[section]
        if not isinstance(inner, (dict, list)):
            raise ConfigError(f"{option} {override}: {section} is not a section")
    if isinstance(inner, list):
        raise ConfigError(f"{option} {override}: {sections[-1]} is a list: name an entry by number")
    inner[name] = value


def check(raw: Raw) -> tuple[Config | None, list[Fault]]:
    """Return the recipe, or ``None`` if it cannot be built, and every fault.

    A key with a wrong value is reported and then replaced by its default, so that combinations
    of the remaining keys are checked too.
    """
    faults: list[Fault] = []
    body = json.loads(json.dumps(raw, default=str))
    for _ in range(100):
        try:
            config = Config.model_validate_json(json.dumps(body))
        except ValidationError as error:
            # pydantic reports a fault in a union once for each branch.
            paths = {tuple(_key_path(detail["loc"], body)): None for detail in error.errors()}
            inner = [path for path in paths if not any(_is_below(other, path) for other in paths)]
            wrong = [key for key, _, _ in faults]
            new = [_fault(path, error, body) for path in inner]
            # A wrong value that has no default is missing afterwards.
            faults += [fault for fault in new if fault[0] not in wrong]
            if () in inner:
                return None, faults
            for path in inner:
                _use_default(body, path)
        else:
            wrong = [key for key, _, _ in faults]
            conflicts = [*_both_ways(raw), *_unnamed_logs(raw), *_contradictions(config)]
            if raw.get("features") is not None:
                conflicts = [fault for fault in conflicts if not fault[0].startswith("mel.")]
            faults += [fault for fault in conflicts if not _is_reported(fault[0], wrong)]
            return config, faults
    return None, faults


def _both_ways(raw: Raw) -> Iterator[Fault]:
    if raw.get("mel") is not None and raw.get("features") is not None:
        allowed = "not allowed beside mel: leave out mel, or make it an entry with kind: mel"
        entries = raw["features"] if isinstance(raw["features"], list) else []
        names = [e.get("name", e.get("preset")) for e in entries if isinstance(e, dict)]
        yield "features", names or raw["features"], allowed


def _unnamed_logs(raw: Raw) -> Iterator[Fault]:
    """Yield each entry whose ``log`` does not name its kind, which is not the kind of ``mel``."""
    entries = raw.get("features")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and entry.get("kind") in ("stft", "pcen"):
            log = entry.get("log")
            if isinstance(log, dict) and "kind" not in log:
                allowed = "is missing: a log of an stft or a pcen names its kind"
                yield f"features.{number}.log.kind", None, allowed


def _is_below(path: Sequence[int | str], above: Sequence[int | str]) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _is_reported(key: str, wrong: Sequence[str]) -> bool:
    return any(f"{reported}.".startswith(f"{key}.") for reported in wrong)


def _kind_of(body: Raw, path: Sequence[int | str]) -> str:
    """Return the kind of the entry of ``features`` that a path leads into; else ``mel``."""
    if list(path[:1]) == ["features"] and len(path) > 1 and isinstance(path[1], int):
        return str(body["features"][path[1]].get("kind"))
    return "mel"


def _fault(path: Sequence[int | str], error: ValidationError, body: Raw) -> Fault:
    details = [d for d in error.errors() if _key_path(d["loc"], body) == list(path)]
    key = ".".join(str(part) for part in path)
    if details[0]["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return key, details[0]["input"], _unknown_key(path, _kind_of(body, path))
    if details[0]["type"].startswith("union_tag"):
        kind = details[0]["input"].get("kind")
        return f"{key}.kind", kind, f"must be one of: {', '.join(KINDS)}"
    if details[0]["type"] == "missing":
        return f"{key}.{details[0]['loc'][-1]}", None, "is missing"
    first, *rest = dict.fromkeys(d["msg"].removeprefix("Value error, ") for d in details)
    allowed = [first[0].lower() + first[1:], *(m.removeprefix("Input should be ") for m in rest)]
    return key, details[0]["input"], " or ".join(allowed)


def _key_path(loc: Sequence[int | str], body: Any) -> list[int | str]:
    """Return a path of pydantic without the parts that name a branch of a union."""
    path: list[int | str] = []
    if loc[:1] == ("features",):
        loc = (*loc[:2], *loc[3:])  # without the kind, which may also be the name of a key
    for part in loc:
        index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if index or (isinstance(body, dict) and part in body):
            body = body[part]
            path.append(part)
    return path


def _use_default(body: Any, path: Sequence[int | str]) -> None:
    if len(path) > 1 and path[0] == "features":
        # The other entries keep their numbers, and are checked to the end.
        entries, number, key = body["features"], path[1], path[-1]
        if len(path) == 2 or key in ("name", "kind"):
            entries[number] = {"name": f"unusable_{number}", "kind": "waveform"}
            return
        body, path = entries[number], path[2:]
    # Removing an item from a list would renumber the items after it: remove the whole list.
    keys = list(takewhile(lambda part: isinstance(part, str), path))
    for part in keys[:-1]:
        body = body.get(part, {})
    body.pop(keys[-1], None)


def _unknown_key(loc: Sequence[int | str], kind: str) -> str:
    allowed = sorted(_keys(Config, [str(part) for part in loc[:-1]], kind))
    meant = _meant(str(loc[-1]), allowed)
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    return f"no such key; {hint}allowed: {', '.join(allowed)}"


def _meant(name: str, allowed: Sequence[str]) -> list[str]:
    """Return the keys that may be meant: of this section, or with their sections, of others."""
    paths = {
        f"{section}.{key}": key
        for section in Config.model_fields
        for key in _keys(Config, [section])
    }
    if name not in paths.values() and (close := difflib.get_close_matches(name, allowed, n=1)):
        return close
    close = difflib.get_close_matches(name, paths.values(), n=1)
    return [path for path, key in paths.items() if key in close]


def _keys(model: Any, path: Sequence[str], kind: str = "mel") -> Iterator[str]:
    if path == ["features"]:
        return  # a list has numbers, and no keys
    if path[:1] == ["features"]:
        # An entry: the second part is its number.
        if kind == "measures":
            yield from ("kind", "meters", "name")
            return
        if len(path) == 2:
            yield from ("kind", "name", "sample_rate_hz")
        model, path = KINDS[kind], path[2:]
    for part in path:
        model = _children(model)[part]
    yield from _children(model)


def _children(model: Any) -> Mapping[str, Any]:
    if is_dataclass(model):
        types = {"log": LogSpec, "standardization": StandardizationSpec}
        return {field.name: types.get(field.name) for field in fields(model)}
    fields_of = getattr(model, "model_fields", {})  # a key without a section has none
    return {name: field.annotation for name, field in fields_of.items()}


def _contradictions(config: Config) -> Iterator[Fault]:
    chunk = config.chunk.spec(config.audio.sample_rate_hz)
    if chunk.edges == "neighbours":
        where = "where chunk.edges is neighbours: a chunk is a part of the recording"
        for key, wrong in (("tail", "shift_back"), ("short", "repeat")):
            if getattr(chunk, key) == wrong:
                yield f"chunk.{key}", wrong, f"drop or pad {where}"
        for number, variant in enumerate(config.variants):
            if variant.changes_chunks:
                allowed = (
                    "only speed where chunk.edges is neighbours: each chunk is changed on its own"
                )
                yield f"variants.{number}", variant.values(), allowed
    spec = config.feature_spec()
    if spec.measured and chunk.length > MAX_OVERLAPPING * chunk.hop:
        least = f"at least chunk.seconds / {MAX_OVERLAPPING} where chunks are measured"
        yield "chunk.hop_seconds", config.chunk.hop_seconds, least
    if config.features is None:
        yield from _feature_contradictions("mel", config.mel, spec)
    for number, entry in enumerate(config.features or ()):
        section = f"features.{number}"
        yield from _name_contradictions(section, entry.name, config)
        rate = entry.sample_rate_hz or config.audio.sample_rate_hz
        yield from _rate_contradictions(section, rate, config, chunk)
        yield from _feature_contradictions(section, _spec_of(entry), spec.at_rate(rate))
    yield from _split_contradictions(config.split)
    yield from _output_contradictions(config)
    yield from _select_contradictions(config)
    yield from _duplicate_contradictions(config)


def _select_contradictions(config: Config) -> Iterator[Fault]:
    if config.select is None:
        return
    needed, measured = selection_of(config.select).meters, meters_in(config.quality)
    if not measured:
        yield "quality", config.quality, "basic, full or a list of meters where select is set"
        return
    if missing := [meter for meter in needed if meter not in measured]:
        quality = quality_text(quality_with(config.quality, missing))
        yield "select", config.select, f"only measures that are made; set quality: {quality}"


def _duplicate_contradictions(config: Config) -> Iterator[Fault]:
    wanted = {"dedupe": config.dedupe, "split.keep_together": config.split.keep_together}
    for key, value in wanted.items():
        if value not in ("off", None) and "acoustic" not in meters_in(config.quality):
            quality = quality_text(quality_with(config.quality, ("acoustic",)))
            yield key, value, f"only with fingerprints; set quality: {quality}"
    if config.split.keep_together and config.split.by == "catalogue":
        allowed = "null where split.by is catalogue: the catalogue decides about each recording"
        yield "split.keep_together", config.split.keep_together, allowed


def _rate_contradictions(
    section: str, rate: int, config: Config, chunk: ChunkSpec
) -> Iterator[Fault]:
    base = config.audio.sample_rate_hz
    fractions = [samples * rate % base for samples in (chunk.length, chunk.hop)]
    if chunk.edges == "neighbours" and any(fractions):
        allowed = "a rate at which chunk.seconds and chunk.hop_seconds are whole numbers of samples"
        yield f"{section}.sample_rate_hz", rate, f"{allowed} where chunk.edges is neighbours"


def _feature_contradictions(section: str, spec: KindSpec, at_rate: FeatureSpec) -> Iterator[Fault]:
    if isinstance(spec, MeasuresSpec):
        return
    found: list[Contradiction] = []
    chunk = at_rate.chunk
    if isinstance(spec, MfccSpec):
        found += mfcc_contradictions(spec)
    if isinstance(spec, PcenSpec):
        found += pcen_contradictions(spec)
    if isinstance(spec, MelSpec):
        found += contradictions(spec, at_rate.sample_rate_hz, chunk.length)
    elif isinstance(spec, StftSpec):
        found += stft_contradictions(spec, chunk.length)
    elif isinstance(spec, ModelSpec):
        found += model_contradictions(spec)
    else:
        found += waveform_contradictions(spec, at_rate.sample_rate_hz)
    if chunk.edges == "neighbours" and not found:
        found += _neighbour_contradictions(spec, chunk)
    for key, value, allowed in found:
        yield f"{section}.{key}", value, allowed


def _neighbour_contradictions(spec: KindSpec, chunk: ChunkSpec) -> Iterator[Contradiction]:
    if isinstance(spec, PcenSpec):
        yield from pcen_neighbour_contradictions()
    elif isinstance(spec, MelSpec):
        yield from mel_neighbour_contradictions(spec, chunk.length, chunk.hop)
    elif isinstance(spec, StftSpec):
        yield from neighbour_contradictions(spec, chunk.length, chunk.hop)
    elif isinstance(spec, ModelSpec):
        yield from model_neighbour_contradictions(spec)
    elif isinstance(spec, WaveformSpec):
        yield from waveform_neighbour_contradictions(spec)


def _name_contradictions(section: str, name: str, config: Config) -> Iterator[Fault]:
    names = [entry.name for entry in config.features or ()]
    if not _FEATURE_NAME.fullmatch(name):
        allowed = "a small letter, then small letters, digits and _, at most 48"
        yield f"{section}.name", name, allowed
    elif (name != "mel" and not is_label(name)) or (name == "variant" and config.variants):
        yield f"{section}.name", name, "another name: melmill has a column of this name"
    elif names.count(name) > 1:
        yield f"{section}.name", name, "used once: two features have this name"
    elif counted := [c.name for c in config.feature_spec().columns if c.valid == name]:
        allowed = f"another name: the number of valid frames of {counted[0]} has this name"
        yield f"{section}.name", name, allowed
    elif measures := _measures_with_column(name, config):
        allowed = f"another name: the measures {measures} have a column of this name"
        yield f"{section}.name", name, allowed


def _measures_with_column(name: str, config: Config) -> str:
    """Return the name of the measures that have a column; ``""`` if none has it."""
    measured = config.feature_spec().measured.items()
    return next((other for other, spec in measured if name in spec.columns(other)), "")


def _split_contradictions(split: SplitConfig) -> Iterator[Fault]:
    total = sum(split.fractions.values())
    if abs(total - 1) > 1e-6:
        yield "split.fractions", split.fractions, f"must sum to 1, not {total:g}"
    if split.by == "group" and split.group is None:
        yield "split.group", None, "split.by is group: name the label column that divides"
    if split.by != "group" and split.group is not None:
        yield "split.by", split.by, "must be group, since split.group names a column"
    if split.stratify is not None and split.by not in ("auto", "recording"):
        yield "split.by", split.by, "must be auto or recording where split.stratify is set"
    if split.stratify is not None and split.keep_together is not None:
        yield "split.keep_together", split.keep_together, "must be null where split.stratify is set"


def _output_contradictions(config: Config) -> Iterator[Fault]:
    step = config.output.resolution
    if step is not None and not _is_power_of_two(step):
        yield "output.resolution", step, "must be exact, or a power of two such as 1/64"
    if step is not None and not any(f.has_logarithm for f in config.feature_spec().features):
        allowed = "must be exact where mel.log.kind is none"
        if config.features is not None:
            allowed = "must be exact where no feature of the kind mel or stft has a logarithm"
        yield "output.resolution", step, allowed
    if config.split.stratify is not None and config.dedupe != "off":
        yield "dedupe", config.dedupe, "must be off where split.stratify is set"
    if config.split.stratify is not None and config.catalogue.content_hashes:
        yield "catalogue.content_hashes", True, "must be false where split.stratify is set"
    if config.catalogue.extensions == ():
        yield "catalogue.extensions", [], "must name at least one extension"
    if config.catalogue.end_column and config.catalogue.duration_column:
        allowed = "not allowed beside catalogue.end_column: a segment has an end or a duration"
        yield "catalogue.duration_column", config.catalogue.duration_column, allowed


def _is_power_of_two(step: float) -> bool:
    ratio = Fraction(step)
    return step > 0 and ratio.numerator.bit_count() == 1 and ratio.denominator.bit_count() == 1
