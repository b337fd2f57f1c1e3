"""Tests of recipes: every fault is reported with its key, its value and what is allowed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.config import CatalogueConfig, Config, load_config, read_yaml
from melmill.pipelines.presets import list_presets, preset_text
from melmill.transforms.catalogue.meanings import TableKeys
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.standardization import StandardizationSpec

Recipe = Callable[[str], Path]
RECIPES = Path(__file__).parents[2] / "configs"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    def write(text: str) -> Path:
        (tmp_path / "recipe.yaml").write_text(text)
        return tmp_path / "recipe.yaml"

    return write


def faults(*overrides: str, path: Path | None = None) -> list[str]:
    """Return a line for each fault, without the headline that counts the faults."""
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    headline, *lines = str(raised.value).splitlines()
    assert re.search(rf": {len(lines)} faults?$", headline)
    return [line.strip() for line in lines]


# Values that are read


def test_the_defaults_are_librosas() -> None:
    assert load_config(None).feature_spec() == FeatureSpec()


def test_the_default_recipe_says_the_defaults() -> None:
    assert load_config(RECIPES / "librosa.yaml") == Config()


def test_the_default_recipe_leaves_no_key_out() -> None:
    sections = read_yaml(RECIPES / "librosa.yaml")
    defaults = Config().model_dump(mode="json")
    assert (defaults.pop("features"), sections.pop("features")) == (None, None)
    keys, default_keys = (
        {
            name: set(values) if isinstance(values, dict) else values
            for name, values in recipe.items()
        }
        for recipe in (sections, defaults)
    )
    assert keys == default_keys
    assert set(defaults["mel"]["log"]) == set(sections["mel"]["log"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_right(path: Path) -> None:
    assert load_config(path)


def test_an_empty_recipe_is_the_defaults(recipe: Recipe) -> None:
    assert load_config(recipe("# nothing\n")) == Config()


def test_a_given_value_replaces_its_default_and_nothing_else(recipe: Recipe) -> None:
    config = load_config(recipe("mel:\n  n_mels: 64\n  log: {kind: ln, top_db: null}\n"))
    assert (config.mel.n_mels, config.mel.n_fft) == (64, 2048)
    assert (config.mel.log.kind, config.mel.log.floor) == ("ln", 1e-10)


def test_seconds_become_samples() -> None:
    config = load_config(None, ["chunk.seconds=0.5", "chunk.hop_seconds=0.25"])
    assert config.feature_spec().chunk == ChunkSpec(11025, 5512)


def test_without_a_hop_chunks_lie_end_to_end() -> None:
    assert load_config(None, ["chunk.seconds=1.1"]).feature_spec().chunk == ChunkSpec(24255, 24255)


@pytest.mark.parametrize("text", ["1e-10", "1E-10", "1.0e-10", "1.e-10", "0.0000000001"])
def test_numbers_can_be_written_as_people_write_them(text: str) -> None:
    assert load_config(None, [f"mel.log.floor={text}"]).mel.log.floor == 1e-10


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("exact", None),
        ("null", None),
        ("1/64 dB", 1 / 64),
        ("1/64dB", 1 / 64),
        ("1/64", 1 / 64),
        ("0.25", 0.25),
        ("2 dB", 2.0),
        ("2", 2.0),
    ],
)
def test_resolutions_can_be_written_as_people_write_them(text: str, step: float | None) -> None:
    assert load_config(None, [f"output.resolution={text}"]).feature_spec().resolution == step


@pytest.mark.parametrize(
    "text",
    ["1/0 dB", "1/3 dB", "0.01", "0", "-1/64", "fine", "dB", "true", "1e400", ".inf", ".nan"],
)
def test_other_resolutions_are_refused(text: str) -> None:
    (fault,) = faults(f"output.resolution={text}")
    assert fault.startswith("output.resolution: ")


def test_parquet_is_always_written() -> None:
    spec = load_config(None, ["output.formats=[tfrecord]"]).output.writer_spec()
    assert spec.formats == ("parquet", "tfrecord")


def test_a_recipe_reads_back_from_what_is_kept_of_it(recipe: Recipe) -> None:
    config = load_config(None, ["mel.n_mels=64", "split.fractions={a: 0.5, b: 0.5}"])
    assert load_config(recipe(json.dumps(config.as_dict()))) == config


def test_secrets_are_not_kept() -> None:
    config = load_config(None, ["output.storage_options={secret: hunter2, client_kwargs: {a: 1}}"])
    assert config.output.storage_options == {"secret": "hunter2", "client_kwargs": {"a": 1}}
    assert "hunter2" not in json.dumps(config.as_dict())


@given(st.integers(1, 10**6), st.sampled_from([16_000, 22_050, 44_100, 48_000]))
def test_whole_numbers_of_samples_stay_whole(samples: int, rate_hz: int) -> None:
    rate = f"audio.sample_rate_hz={rate_hz}"
    seconds = [f"chunk.seconds={samples / rate_hz:.9f}", "mel.pad_mode=constant"]
    assert load_config(None, [rate, *seconds]).feature_spec().chunk.length == samples


# --set


def test_a_later_override_wins(recipe: Recipe) -> None:
    config = load_config(recipe("mel: {n_mels: 32}"), ["mel.n_mels=40", "mel.n_mels=64"])
    assert config.mel.n_mels == 64


def test_a_whole_section_can_be_overridden() -> None:
    assert load_config(None, ["mel.log={kind: none, top_db: null}"]).mel.log.kind == "none"


@pytest.mark.parametrize("override", ["mel.n_mels", "=3", "", "mel"])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"write it as section\.key=value"):
        load_config(None, [override])


def test_an_override_below_a_value_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"--set mel\.n_mels\.x=3: n_mels is not a section"):
        load_config(recipe("mel: {n_mels: 32}"), ["mel.n_mels.x=3"])


def test_an_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set mel=\{: the value is not YAML"):
        load_config(None, ["mel={"])


# Files


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"there is no file librsa.*did you mean librosa\?"):
        load_config("librsa")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize("text", ["mel: [", "mel: {a: 1", "\t- x", "a: b: c", "\0"])
def test_what_is_not_yaml_is_refused(recipe: Recipe, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml: not YAML"):
        load_config(recipe(text))


@pytest.mark.parametrize("text", ["- mel", "mel", "3"])
def test_what_is_not_a_mapping_is_refused(recipe: Recipe, text: str) -> None:
    with pytest.raises(ConfigError, match="must be a mapping of sections"):
        load_config(recipe(text))


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"mel: \xff")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: not YAML"):
        load_config(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("mel:\n  n_mels: 3\n\n  n_mels: 4\n", "n_mels", 4),
        ("mel: {n_fft: 512}\nchunk: {}\nmel: {}\n", "mel", 3),
        ("mel:\n  log: {kind: db,\n    kind: ln}\n", "kind", 3),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_line(
    recipe: Recipe, text: str, key: str, line: int
) -> None:
    message = rf"(?s){key}: appears twice.*recipe\.yaml.*line {line}\b"
    with pytest.raises(ConfigError, match=message):
        load_config(recipe(text))


@pytest.mark.parametrize("text", ["[a]: 1", "? {a: 1}\n: 1", "1: 2", "null: 1", "true: {}"])
def test_keys_that_are_no_words_are_refused(recipe: Recipe, text: str) -> None:
    (fault,) = faults(path=recipe(text))
    assert "no such key" in fault


# Single faults


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("mell.n_mels=3", "mel"),
        ("mel.n_mel=3", "n_mels"),
        ("mel.log.knd=ln", "kind"),
        ("chunk.second=3", "seconds"),
        ("limits.timeout=3", "timeout_seconds"),
        ("n_mels=3", "mel.n_mels"),
        ("audio.n_mel=3", "mel.n_mels"),
        ("storage_option=3", "output.storage_options or catalogue.storage_options"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(override: str, meant: str) -> None:
    (fault,) = faults(override)
    assert f"no such key; did you mean {meant}? allowed: " in fault


def test_an_unknown_key_like_no_other_is_named_with_what_is_allowed() -> None:
    (fault,) = faults("xyzzy=3")
    assert fault == (
        "xyzzy: 3: no such key; allowed: audio, catalogue, chunk, dedupe, features, limits, mel, "
        "output, quality, refresh, retention, select, split, variants"
    )


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ('mel.n_mels="3"', "mel.n_mels: '3': input should be a valid integer"),
        ("mel.n_mels=3.0", "mel.n_mels: 3.0: input should be a valid integer"),
        ("mel.n_mels=true", "mel.n_mels: true: input should be a valid integer"),
        ("mel.n_mels=null", "mel.n_mels: null: input should be a valid integer"),
        ("mel.n_mels=0", "mel.n_mels: 0: input should be greater than or equal to 1"),
        ("mel.center=1", "mel.center: 1: input should be a valid boolean"),
        ("mel.scale=bark", "mel.scale: 'bark': input should be 'slaney' or 'htk'"),
        ("mel.log=3", "mel.log: 3: input should be an object"),
        ("mel.log.ref=min", "mel.log.ref: 'min': input should be a valid number or 'max'"),
        ("mel.log.floor=-1", "mel.log.floor: -1: input should be greater than or equal to 0"),
        ("chunk.seconds=true", "chunk.seconds: true: input should be a valid number"),
        ('chunk.seconds="3"', "chunk.seconds: '3': input should be a valid number"),
        ("chunk.seconds=0", "chunk.seconds: 0: input should be greater than 0"),
        ("chunk.seconds=.nan", "chunk.seconds: NaN: input should be a finite number"),
        ("chunk.hop_seconds=.inf", "chunk.hop_seconds: Infinity: input should be a finite number"),
        ("limits.max_failure_ratio=2", "limits.max_failure_ratio: 2: input should be less than"),
        ("output.formats=[parquet, csv]", "output.formats.1: 'csv': input should be 'parquet' or"),
        ("output.formats=[]", "output.formats: []: tuple should have at least 1 item"),
        ("catalogue.extensions=wav", "catalogue.extensions: 'wav': input should be a valid array"),
        ("audio=null", "audio: null: input should be an object"),
        ("split.seed=2020-01-01", "split.seed: '2020-01-01': input should be a valid integer"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override: str, fault: str) -> None:
    (actual_fault,) = faults(override)
    assert actual_fault.startswith(fault)


@pytest.mark.parametrize("name", ["a b", "../x", "-x", "my-split", "all", "é", '""'])
def test_splits_that_no_loader_could_name_are_refused(name: str) -> None:
    (fault,) = faults(f"split.fractions={{{name}: 0.5, train: 0.5}}")
    assert "must be ASCII letters, digits and _" in fault


# Combinations


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["mel.win_length=4096"], "mel.win_length: 4096: at most n_fft, 2048"),
        (["mel.f_max_hz=12000"], "mel.f_max_hz: 12000.0: at most 11025.0, half the sample rate"),
        (["mel.log.kind=ln"], "mel.log.top_db: 80.0: null where log.kind is 'ln'"),
        (["mel.window=kaiser"], "mel.window: 'kaiser': a scipy.signal.get_window name"),
        (["split.fractions={train: 0.8}"], 'split.fractions: {"train": 0.8}: must sum to 1, not'),
        (["split.by=group"], "split.group: null: split.by is group: name the label column"),
        (["split.group=album"], "split.by: 'auto': must be group, since split.group names"),
        (["catalogue.extensions=[]"], "catalogue.extensions: []: must name at least one extension"),
        (
            ["output.resolution=1/64", "mel.log.kind=none", "mel.log.top_db=null"],
            "output.resolution: 0.015625: must be exact where mel.log.kind is none",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(overrides: list[str], fault: str) -> None:
    (actual_fault,) = faults(*overrides)
    assert actual_fault.startswith(fault)


def test_shares_of_thirds_sum_to_one() -> None:
    third = f"{1 / 3:.6f}"
    assert load_config(None, [f"split.fractions={{a: {third}, b: {third}, c: 0.333334}}"])


# All at once


def test_all_faults_are_reported_at_once(recipe: Recipe) -> None:
    path = recipe(
        "mel: {n_mels: many, win_length: 4096, log: {kind: ln, ref: min, knd: 1}}\n"
        "chunk: {seconds: -1}\n"
        "bogus: 1\n"
        "output: {formats: [csv, tsv], resolution: 0.3}\n"
    )
    keys = [fault.split(":")[0] for fault in faults("split.by=group", path=path)]
    assert sorted(keys) == [
        "bogus",
        "chunk.seconds",
        "mel.log.knd",
        "mel.log.ref",
        "mel.log.top_db",
        "mel.n_mels",
        "mel.win_length",
        "output.formats.0",
        "output.formats.1",
        "output.resolution",
        "split.group",
    ]


def test_a_wrong_share_is_not_reported_twice() -> None:
    assert len(faults("split.fractions={train: -1, test: 0.5}")) == 1


def test_the_headline_names_the_file(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"^configuration .*recipe\.yaml: 1 fault\n"):
        load_config(recipe("x: 1"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = sorted(
    f"{section}.{key}" if isinstance(values, dict) else section
    for section, values in Config().as_dict().items()
    for key in (values if isinstance(values, dict) else [""])
)


@given(st.sampled_from([*KEYS, "mel.log.ref", "mel.log.kind", "mel.log.top_db"]), VALUES)
def test_any_value_is_accepted_or_reported(key: str, value: object) -> None:
    if key in ("mel.n_fft", "mel.n_mels", "mel.win_length") and isinstance(value, int):
        value = min(value, 10_000)
    with contextlib.suppress(ConfigError):
        load_config(None, [f"{key}={json.dumps(value)}"])


# Presets


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "mel.n_mels=64",
            "mel.n_mels: 64: in the preset whisper-80 it is 80; to change it: melmill",
        ),
        ("mel.power=1", "mel.power: 1: in the preset whisper-80 it is 2"),
        ("audio.sample_rate_hz=8000", "audio.sample_rate_hz: 8000: in the preset"),
        ("audio={channels: left}", "audio.sample_rate_hz: 22050: in the preset"),
        ("mel.standardization=null", "mel.standardization.mean: null: in the preset"),
        ("mel={}", "mel.n_mels: 128: in the preset whisper-80 it is 80"),
        ("mel.log={kind: log10, top_db: null}", "mel.log.range: null: in the preset"),
    ],
)
def test_an_override_that_contradicts_a_preset_is_named(override: str, fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("whisper-80", [override])
    assert fault in str(raised.value)


def test_a_fault_of_an_override_is_reported_once() -> None:
    with pytest.raises(ConfigError, match=r"1 fault\n.*mel\.log\.foo: 1: no such key"):
        load_config("whisper-80", ["mel.log.foo=1"])


def test_a_section_that_is_null_can_be_set() -> None:
    config = load_config("librosa", ["mel.standardization.mean=0"])
    assert config.mel.standardization == StandardizationSpec(mean=0.0)


def test_a_folder_does_not_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "musicnn").mkdir()
    assert load_config("musicnn").feature_spec().columns[0].shape == (96, 187)
    (tmp_path / "panns").write_text("mel: {n_mels: 7}")  # a file of the user's own comes first
    assert load_config("panns").mel.n_mels == 7
    assert [preset.shape[0] for preset in list_presets() if preset.name == "panns"] == [64]


def test_a_preset_takes_overrides_of_what_it_does_not_stand_for() -> None:
    config = load_config(
        "whisper-80",
        [
            "mel.n_mels=80",
            "mel.center=true",
            "chunk.hop_seconds=15",
            "output.formats=[parquet,tfrecord]",
        ],
    )
    assert config.feature_spec().columns[0].shape == (80, 3000)
    assert config.chunk.hop_seconds == 15
    assert load_config("librosa", ["mel.n_mels=64"]).mel.n_mels == 64
    assert load_config(Path("librosa"), ["mel.n_mels=64"]).mel.n_mels == 64


def test_a_copy_of_a_preset_can_be_changed(tmp_path: Path) -> None:
    copy = tmp_path / "recipe.yaml"
    copy.write_text(preset_text("whisper-80"))
    assert load_config(copy) == load_config("whisper-80")
    assert load_config(copy, ["mel.n_mels=64"]).mel.n_mels == 64


def test_an_unknown_preset_is_refused_with_a_near_name() -> None:
    with pytest.raises(ConfigError, match="did you mean whisper-80"):
        load_config("whisper-8")
    with pytest.raises(ConfigError, match="did you mean hifigan"):
        preset_text("hifi-gan")


def measures(text: str) -> tuple[str, ...]:
    """Return ``--set`` for a mel and an entry of the kind ``measures``."""
    return (f"features=[{{name: mel, kind: mel}}, {{name: quality, kind: measures, {text}}}]",)


def test_measures_are_the_same_in_whatever_order_their_meters_are_named() -> None:
    config = load_config(None, measures("meters: [gaps, clipping]"))
    assert config == load_config(None, measures("meters: [clipping, gaps]"))
    entry = config.as_dict()["features"][1]
    assert entry["meters"] == ["clipping", "gaps"]
    assert load_config(None, stored=config.as_dict()) == config
    names = [column.name for column in config.feature_spec().columns]
    assert names[1:3] == ["quality_clipping_runs", "quality_clipping_share"]
    assert names[-1] == "quality_gaps_longest"


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (measures("meters: [loud]"), "1.meters", "level, clipping, gaps, channels, spectrum, bits"),
        (measures("meters: [loud]"), "1.meters", "loud is no meter"),
        (measures("meters: [hum]"), "1.meters", "hum measures whole recordings only"),
        (measures("meters: [{a: 1}]"), "1.meters", "{'a': 1} is no meter"),
        (measures("meters: [gaps, gaps]"), "1.meters", "lists a meter twice"),
        (measures("meters: []"), "1.meters", "should be a list of meters of chunks: level"),
        (measures("meters: level"), "1.meters", "should be a list of meters of chunks: level"),
        (("features=[{name: quality, kind: measures}]",), "0.meters", "is missing"),
        (measures("meters: [gaps], sample_rate_hz: 8000"), "1.sample_rate_hz", "own sample rate"),
        (
            measures("meters: [gaps], measures: [gaps.count]"),
            "1.measures",
            "allowed: kind, meters, name",
        ),
        (
            measures("meters: [gaps]}, {name: quality, kind: mel"),
            "1.name",
            "two features have this",
        ),
        (
            measures("meters: [level]}, {name: quality_level_rms, kind: waveform"),
            "2.name",
            "another name: the measures quality have a column of this name",
        ),
    ],
)
def test_measures_that_no_chunk_has_are_refused(
    overrides: tuple[str, ...], key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, overrides)
    first = str(raised.value).splitlines()[1]
    assert first.startswith(f"  features.{key}: ")
    assert message in first
    assert str(raised.value).count(f"features.{key}") == 1


def test_chunks_that_overlap_too_much_are_not_measured() -> None:
    hop = ("chunk.seconds=1", "chunk.hop_seconds=0.015")
    with pytest.raises(ConfigError, match=r"chunk.hop_seconds: 0.015: at least chunk.seconds / 64"):
        load_config(None, (*hop, *measures("meters: [gaps]")))
    load_config(None, ("chunk.seconds=1", "chunk.hop_seconds=0.02", *measures("meters: [gaps]")))
    load_config(None, hop)


# The catalogue's table


def test_a_stored_recipe_shows_every_key_of_the_catalogue_but_its_secrets() -> None:
    stored = Config().as_dict()
    assert stored["catalogue"].keys() == set(CatalogueConfig.model_fields) - {"storage_options"}
    assert stored.keys() == set(Config.model_fields) - {"features", "variants"}


def test_the_keys_of_a_table_are_read(recipe: Recipe) -> None:
    config = load_config(
        recipe("catalogue: {uri_column: path, duration_column: s, separator: tab}")
    )
    expected = TableKeys(uri_column="path", duration_column="s", separator="\t")
    assert config.catalogue.table_keys() == expected
    assert load_config(None).catalogue.table_keys() == TableKeys()


def test_an_empty_name_of_a_column_is_not_the_default(recipe: Recipe) -> None:
    config = load_config(recipe("catalogue: {start_column: e}"), ["catalogue.start_column=''"])
    assert config.catalogue.table_keys() == TableKeys(start_column="")
    assert load_config(None, ["catalogue.start_column="]).catalogue.table_keys() == TableKeys()
    (fault,) = faults("catalogue.uri_column=''")
    assert fault.startswith("catalogue.uri_column: ''")


def test_a_root_does_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, ["catalogue.root=songs"]).catalogue.root == f"{tmp_path}/songs"
    assert load_config(None, ["catalogue.root=s3://b"]).catalogue.root == "s3://b"


@pytest.mark.parametrize("value", ["', '", "'\"'", '"\\n"', "7", "''"])
def test_a_separator_that_cannot_be_one_is_refused(value: str) -> None:
    (fault,) = faults(f"catalogue.separator={value}")
    assert "should be one character, such as ; or |, or tab" in fault


def test_a_segment_has_an_end_or_a_duration() -> None:
    (fault,) = faults("catalogue.end_column=e", "catalogue.duration_column=d")
    assert fault.startswith(
        "catalogue.duration_column: 'd': not allowed beside catalogue.end_column"
    )
