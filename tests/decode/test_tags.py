"""Tags with known names are kept, in upper or lower case, with at most 1,000 characters."""

from __future__ import annotations

from melmill.transforms.decode.tags import keep_tags


def test_known_tags_are_kept_under_a_common_name() -> None:
    tags = {"ALBUM_ARTIST": "Band", "Track": "3", "title": "Song", "encoder": "x", "date": ""}
    assert keep_tags(tags) == (("albumartist", "Band"), ("title", "Song"), ("tracknumber", "3"))


def test_a_long_tag_is_cut() -> None:
    assert keep_tags({"comment": "a" * 1000 + "b"}) == (("comment", "a" * 1000),)
