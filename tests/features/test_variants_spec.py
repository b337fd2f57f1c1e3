"""The settings of variants, and what is drawn for a chunk."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.config import Config, load_config
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.variants_spec import Draws


def recipe(variants: str, *settings: str) -> Config:
    return load_config(None, [f"variants={variants}", *settings])


def reloaded(config: Config) -> Config:
    """Return a recipe as a dataset stores it, with its keys in another order."""
    return load_config(None, (), json.loads(json.dumps(config.as_dict(), sort_keys=True)))


def test_a_stored_recipe_keeps_the_order_of_words() -> None:
    config = recipe("[{speed: 0.9, gain_db: [-6, 0], seed: 4}, [{gain_db: 1}, {gain_db: 2}]]")
    assert reloaded(config).variants == config.variants
    assert [len(variant.words) for variant in config.variants] == [2, 2]
    assert config.variants[0].seed == 4


def test_a_recipe_without_variants_is_stored_and_hashed_as_before() -> None:
    assert "variants" not in load_config(None).as_dict()
    assert "variants" not in FeatureSpec().canonical()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("[{sped: 0.9}]", "sped is no word of a variant; allowed: speed, gain_db"),
        ("[{speed: 0.9, wet: 1}]", "wet is no word"),
        ("[{speed: 2.5}]", "speed: 2.5: should be a number from 1/2 to 2"),
        ("[{speed: 0.12345}]", "should be a number from 1/2 to 2"),
        ("[{speed: 0.91234}]", "at most three decimals"),
        ("[{speed: fast}]", "speed: 'fast': should be a number"),
        ("[{gain_db: 3, speed: 0.9}]", "speed should be the first word"),
        ("[{gain_db: [0, -3]}]", "the first number should not exceed the second"),
        ("[{gain_db: [1, 2, 3]}]", "or a list of two"),
        ("[{gain_db: 100}]", "from -60 to 60"),
        ("[{seed: 1}]", "has no word"),
        ("[{noise: /n}]", "noise needs snr_db"),
        ("[{snr_db: 3}]", "snr_db is no word"),
        ("[{noise: /n, snr_db: [20, 5]}]", "snr_db: [20, 5]: the first number should not exceed"),
        ("[{noise: 3, snr_db: 5}]", "should be a folder, a glob or a file"),
        ("[{noise: /n, snr_db: 5, sha256: x}]", "64 hexadecimal digits"),
        ("[{speed: 1.1, seed: x}]", "seed: 'x': should be a whole number"),
        ("[louder]", "should be words with their values"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(variants: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        recipe(variants)
    assert "variants.0: " in str(raised.value)
    assert message in str(raised.value)


def test_chunks_that_see_their_neighbours_allow_only_speed() -> None:
    neighbours = (
        "chunk.edges=neighbours",
        "chunk.seconds=1",
        "mel.hop_length=441",
        "mel.log.top_db=null",
    )
    assert recipe("[{speed: 0.9}]", *neighbours).variants
    with pytest.raises(ConfigError, match=r"variants\.1.*only speed where chunk\.edges"):
        recipe("[{speed: 0.9}, {gain_db: 1}]", *neighbours)


def test_a_feature_cannot_be_named_variant_beside_variants() -> None:
    feature = "features=[{name: variant, kind: waveform}]"
    assert load_config(None, [feature])
    with pytest.raises(ConfigError, match="another name"):
        recipe("[{speed: 0.9}]", feature)


def test_only_equal_variants_with_equal_numbers_are_unchanged() -> None:
    before = recipe("[{speed: 0.9}, {gain_db: 1}, {gain_db: 2}]").feature_spec()
    cases: dict[str, Any] = {
        "[{speed: 0.9}, {gain_db: 1}, {gain_db: 2}, {speed: 1.1}]": (0, 1, 2, 3),
        "[{speed: 0.9}, {gain_db: 2}]": (0, 1),
        "[{speed: 0.9, seed: 1}, {gain_db: 1}]": (0, 2),
        "[]": (0,),
    }
    for variants, unchanged in cases.items():
        now = recipe(variants).feature_spec()
        assert now.unchanged_variants(before.canonical()) == unchanged
        assert now.unchanged_since(before.canonical()) == ("mel",)
        assert not now.computes_same(before.canonical())


def test_draws_are_uniform_and_depend_on_everything_that_names_a_chunk() -> None:
    draws = Draws(0, 1, "a")
    numbers = [draws.number(0, chunk, "gain") for chunk in range(2000)]
    # The mean of 2,000 uniform numbers is within 5 standard deviations of 0.5.
    assert abs(np.mean(numbers) - 0.5) < 5 / np.sqrt(12 * 2000)
    assert len(set(numbers)) == 2000
    others = [Draws(1, 1, "a"), Draws(0, 2, "a"), Draws(0, 1, "b")]
    different = [other.number(0, 0, "gain") for other in others]
    different += [draws.number(1, 0, "gain"), draws.number(0, 0, "snr"), numbers[0]]
    assert len(set(different)) == 6
    state = hashlib.blake2b(digest_size=16)
    for part in (b"variant", b"a", b"0", b"1", b"0", b"0", b"gain"):
        state.update(len(part).to_bytes(8, "big") + part)
    assert numbers[0] == int.from_bytes(state.digest()[:8], "big") // 2**11 / 2**53
