"""Find and check the files of a recipe's variants before any worker starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

from melmill.pipelines.config import Config
from melmill.pipelines.models import pin_each, pin_models
from melmill.transforms.catalogue.parts import (
    Catalogue,
    catalogue_parts,
    list_part,
    open_catalogue,
    require_recordings,
)
from melmill.transforms.core.errors import ConfigError, RecordingError
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.codecs import try_codec
from melmill.transforms.features.model_files import options_for
from melmill.transforms.features.sounds import digest_of_sounds, examine_sound, require_decodable
from melmill.transforms.features.variants_spec import (
    WITH_SOUNDS,
    Codec,
    Noise,
    Rir,
    SoundFile,
    Sounds,
    VariantSpec,
)
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.objects import StoredObject

#: Largest number of files of a word: each worker's job lists them.
MAX_FILES = 10_000
#: Longest response of a room: each chunk is read with as much audio on both sides.
MAX_RESPONSE_SECONDS = 10


def pin_files(recipe: Config, catalogue: str) -> Config:
    """Return the recipe with the digests of its models, and with the files of its variants."""
    return pin_sounds(pin_models(recipe, catalogue), catalogue)


def pin_sounds(recipe: Config, catalogue: str) -> Config:
    """Return the recipe with the files of its variants, as they are now, and their digests.

    Files that are new or changed are decoded once, so a file that cannot be read is found before a
    worker starts.

    Parameters
    ----------
    recipe
        The recipe.
    catalogue
        URI of the catalogue, whose storage options are used for files in a store like its own.

    Raises
    ------
    ConfigError
        Files are missing or cannot be used; the message has a line for each variant.
    UnavailableError
        The store of a file does not answer at the moment.
    """
    variants = list(recipe.variants)

    def pin(number: int) -> None:
        variants[number] = _pinned(variants[number], recipe, catalogue)

    pin_each("variants", "variants", range(len(variants)), pin)
    return recipe.model_copy(update={"variants": tuple(variants)}) if variants else recipe


def _pinned(variant: VariantSpec, recipe: Config, catalogue: str) -> VariantSpec:
    _try_codecs([word for word in variant.words if isinstance(word, Codec)], recipe)
    return variant.with_words(
        _with_files(word, recipe, catalogue) if isinstance(word, WITH_SOUNDS) else word
        for word in variant.words
    )


def _try_codecs(codecs: Sequence[Codec], recipe: Config) -> None:
    """Raise ``ConfigError`` if a codec is missing, or refuses its bit rate."""
    if not codecs:
        return
    limits, rates = recipe.limits.spec(), [s.sample_rate_hz for s in recipe.feature_spec().by_rate]
    process = DecoderProcess(limits.memory_bytes)
    try:
        for codec, rate_hz in product(codecs, rates):
            process.call(limits.timeout_s, try_codec, codec.setting, rate_hz)
    except RecordingError as error:
        raise ConfigError(f"codec: {codec.setting}: {error.message}") from error
    finally:
        process.close()


def _with_files(word: Noise | Rir, recipe: Config, catalogue: str) -> Noise | Rir:
    sounds = _find(word.sounds, recipe, catalogue)
    for file in sounds.files if isinstance(word, Rir) else ():
        if (seconds := file.audio.frames / file.audio.sample_rate_hz) > MAX_RESPONSE_SECONDS:
            allowed = f"a response of a room has at most {MAX_RESPONSE_SECONDS} s"
            raise ConfigError(f"{file.uri} has {seconds:.1f} s; {allowed}")
    return replace(word, sounds=sounds)


def _find(sounds: Sounds, recipe: Config, catalogue: str) -> Sounds:
    options: StorageOptions = tuple(recipe.catalogue.storage_options.items())
    options = options_for(sounds.uri, catalogue, options)
    opened = open_catalogue(
        sounds.uri, extensions=recipe.catalogue.extensions, storage_options=options
    )
    if opened.kind != "listing":
        allowed = "give a folder, a glob or an audio file"
        raise ConfigError(f"{sounds.uri} is a {opened.kind}; {allowed}")
    require_recordings(opened)
    limits = recipe.limits.spec()
    process, limit_s = DecoderProcess(limits.memory_bytes), limits.timeout_s
    try:
        files = sorted(
            _examine(opened, options, process, limit_s),
            key=lambda file: (file.sha256, file.uri),
        )
        digest = digest_of_sounds(files)
        for file in files if digest != sounds.sha256 else ():
            with _naming(file.uri):
                process.call(limit_s, require_decodable, file, options)
    finally:
        process.close()
    return Sounds(sounds.uri, digest, tuple(files))


def _examine(
    opened: Catalogue, options: StorageOptions, process: DecoderProcess, limit_s: float
) -> Iterator[SoundFile]:
    recordings = (r for part in catalogue_parts(opened) for r in list_part(opened, part))
    for number, recording in enumerate(recordings):
        if number == MAX_FILES:
            raise ConfigError(f"{opened.uri} holds more than {MAX_FILES:,} files; choose fewer")
        source = StoredObject(recording.uri, storage_options=options)
        with _naming(recording.uri):
            file = process.call(limit_s, examine_sound, source)
        yield file


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Turn the error of a file into an error of the recipe."""
    try:
        yield
    except RecordingError as error:
        raise ConfigError(f"{uri} cannot be used: {error.message}") from error
