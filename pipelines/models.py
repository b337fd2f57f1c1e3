"""Check the models of a recipe before any worker starts, and note which files they are."""

from __future__ import annotations

from dataclasses import replace

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
    entries, faults = list(recipe.features or ()), []
    for number, entry in models.items():
        own = options_for(entry.model, catalogue, options)
        try:
            sha256 = entry.sha256 or digest_of(entry, read_model(entry, own))
            entries[number] = replace(entry, sha256=sha256)
            pinned = recipe.model_copy(update={"features": tuple(entries)})
            if trial:
                _try_model(pinned, number, catalogue, options)
        except UnavailableError:
            raise
        except UserError as error:
            faults.append(f"  features.{number}: {error}")
    if faults:
        raise ConfigError("\n".join(["the models of the recipe:", *faults]))
    return recipe.model_copy(update={"features": tuple(entries)})


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
