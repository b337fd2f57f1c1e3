"""Check the models of a recipe before any worker starts, and note which files they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from melmill.pipelines.config import Config
from melmill.transforms.core.errors import ConfigError, RecordingError, UnavailableError, UserError
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.extractors import load_models
from melmill.transforms.features.model_files import digest_of, options_for, read_model
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.store.filesystems import StorageOptions


def pin_models(recipe: Config, catalogue: str, *, trial: bool = True) -> Config:
    """Return the recipe with the SHA-256 of each model that has none yet.

    Each model is loaded once in a process like a worker's, and computes some noise: a model that
    does not fit its settings is found before a worker starts.

    Parameters
    ----------
    recipe
        The recipe.
    catalogue
        URI of the catalogue, whose storage options are used for models in a store like its own.
    trial
        Whether to load the models.

    Raises
    ------
    ConfigError
        Models cannot be used; the message has a line for each.
    UnavailableError
        The store of a model does not answer at the moment.
    """
    models = {n: e for n, e in enumerate(recipe.features or ()) if isinstance(e, ModelSpec)}
    if not models:
        return recipe
    options: StorageOptions = tuple(recipe.catalogue.storage_options.items())
    entries: list[Any] = list(recipe.features or ())

    def pin(number: int) -> None:
        entry = models[number]
        own = options_for(entry.model, catalogue, options)
        sha256 = entry.sha256 or digest_of(entry, read_model(entry, own))
        entries[number] = replace(entry, sha256=sha256)
        if trial:
            pinned = recipe.model_copy(update={"features": tuple(entries)})
            _try_model(pinned, number, catalogue, options)

    pin_each("models", "features", models, pin)
    return recipe.model_copy(update={"features": tuple(entries)})


def pin_each(what: str, section: str, numbers: Iterable[int], pin: Callable[[int], object]) -> None:
    """Call a function for some entries of a section of the recipe.

    Raises
    ------
    ConfigError
        Entries cannot be used; the message has a line for each.
    UnavailableError
        The store of a file does not answer at the moment.
    """
    faults = []
    for number in numbers:
        try:
            pin(number)
        except UnavailableError:
            raise
        except UserError as error:
            faults.append(f"  {section}.{number}: {error}")
    if faults:
        raise ConfigError("\n".join([f"the {what} of the recipe:", *faults]))


def _try_model(recipe: Config, number: int, catalogue: str, options: StorageOptions) -> None:
    limits, features = recipe.limits.spec(), recipe.feature_spec()
    process = DecoderProcess(limits.memory_bytes)
    try:
        only = replace(features, features=features.features[number : number + 1])
        process.call(limits.timeout_s, load_models, only, catalogue, options)
    except RecordingError as error:
        raise ConfigError(
            f"{error.message} (with limits.memory_megabytes: {recipe.limits.memory_megabytes}, "
            f"limits.timeout_seconds: {recipe.limits.timeout_seconds:g})"
        ) from error
    finally:
        process.close()
