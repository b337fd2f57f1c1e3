"""Candidates: pairs of recordings whose fingerprints have words in common at the same offset.

A fingerprint is a sequence of 32-bit words, ten a second; 0 is a masked word, which holds no
information. Half a word, with some bits of a later word, is a key. Each recording posts its keys,
recordings with a posting of the same key vote for their offset, and a pair of recordings is a
candidate at the offsets with the most votes. All functions give the same result for any order of
their input, so keys may be divided among workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.uint32]
Keys: TypeAlias = npt.NDArray[np.uint64]
Indices: TypeAlias = npt.NDArray[np.int64]
Postings: TypeAlias = npt.NDArray[np.void]
Votes: TypeAlias = npt.NDArray[np.void]

#: A posting: a key, the recording that has it, and the first word that has it.
POSTING = np.dtype([("key", np.uint64), ("recording", np.uint64), ("position", np.int32)])
#: Votes for an offset of two recordings: the position of a sound in the second recording minus its
#: position in the first. The number of the first recording is the smaller one.
VOTE = np.dtype(
    [("first", np.uint64), ("second", np.uint64), ("offset", np.int32), ("votes", np.uint32)]
)

_HALF_BITS = 16
#: Distance of the word that gives a key its extra bits. A word compares moments that are 6 words
#: apart, so nearer words have half of their bits in common. With 8 extra bits of the next word,
#: unrelated songs had 3.6 times as many keys in common, and copies had as many.
_LATER_WORDS = 6
#: Binary logarithm of the number of words up to which keys have no extra bits. With 6 extra bits
#: (10,000 songs) all copies of 10 s were candidates; with 8, two of 47 cut copies were not.
_PLAIN_WORDS_LOG2 = 19
#: Recordings with more words (one minute) post a quarter of their keys: a minute has enough of
#: them. Shorter recordings post all keys, so that a clip meets the keys that a song has posted.
_MAX_WORDS_OF_ALL_KEYS = 600
_CHOSEN_LOG2 = 2
#: Multiplier of Fibonacci hashing: 2**64 divided by the golden ratio.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
#: Number of following postings of the same key with which a posting votes. It bounds the cost of a
#: key that every recording has, and still chains the copies of a sound to each other. With 32, the
#: votes of 2,500 songs were three times as many, and the same copies were found.
MAX_VOTES_OF_POSTING = 8
#: Number of postings above which a key is common: its postings vote with the next one only. Half of
#: all postings have such keys, and say little.
COMMON = 32
#: Number of offsets of a pair that are worth a comparison, and their smallest number of votes.
MAX_OFFSETS, MIN_VOTES = 3, 2


def key_bits(words: int) -> int:
    """Return the number of extra bits of a key, 0 to 16.

    The number of keys grows with the catalogue, so that the number of postings of a key does not.

    Parameters
    ----------
    words
        Number of words of all fingerprints.

    Examples
    --------
    >>> key_bits(0), key_bits(1 << 19), key_bits(18_000_000), key_bits(1 << 40)
    (0, 0, 6, 16)
    """
    log2 = math.ceil(math.log2(words)) if words else 0
    return min(_HALF_BITS, max(0, log2 - _PLAIN_WORDS_LOG2))


def postings(recording: int, words: Words, extra_bits: int) -> Postings:
    """Return the postings of a recording, sorted by key; each key has its first position.

    Parameters
    ----------
    recording
        Number of the recording, below 2**64.
    words : uint32 [words]
        Fingerprint of the recording.
    extra_bits
        Number of extra bits of a key; see :func:`key_bits`. It must be the same for all recordings
        of a search.

    Examples
    --------
    >>> rows = postings(7, np.array([0x10002, 0, 0x30002], np.uint32), 0)
    >>> [(hex(key), recording, position) for key, recording, position in rows.tolist()]
    [('0x20000', 7, 0), ('0x100010000', 7, 0), ('0x100030000', 7, 2)]
    """
    keys, positions = _keys(words, extra_bits)
    keys, firsts = np.unique(keys, return_index=True)
    rows = np.empty(len(keys), POSTING)
    rows["key"], rows["recording"], rows["position"] = keys, recording, positions[firsts]
    if len(words) <= _MAX_WORDS_OF_ALL_KEYS:
        return rows
    chosen: Postings = rows[mixed(keys) >> np.uint64(64 - _CHOSEN_LOG2) == 0]
    return chosen


def _keys(words: Words, extra_bits: int) -> tuple[Keys, Indices]:
    """Return the keys of both halves of all words, and their positions.

    The bits of a key from bit 32 on: the number of the half; from bit 16 on: the half; from bit 0
    on: the low bits of the same half of a later word, if there are extra bits.
    """
    later = np.append(words, np.zeros(_LATER_WORDS, np.uint32))[_LATER_WORDS:]
    is_informative = words != 0
    if extra_bits:
        is_informative &= later != 0
    positions = np.flatnonzero(is_informative)
    halves = np.arange(2, dtype=np.uint64)[:, None]
    half, extra = (
        (w[positions].astype(np.uint64) >> (halves * np.uint64(_HALF_BITS))) & np.uint64(mask)
        for w, mask in ((words, 0xFFFF), (later, (1 << extra_bits) - 1))
    )
    keys = (halves << np.uint64(32)) | (half << np.uint64(16)) | extra
    return keys.ravel(), np.tile(positions, 2)


def mixed(numbers: Keys) -> Keys:
    """Return a hash of each number; its high bits depend on all bits of the number."""
    hashes: Keys = numbers * _MULTIPLIER
    hashes = (hashes ^ (hashes >> np.uint64(32))) * _MULTIPLIER
    return hashes


def vote(postings: Postings, is_known: bool = False) -> Votes:
    """Return the votes of postings: of each with the next ones that have the same key.

    Parameters
    ----------
    postings
        All postings of some keys, in any order. Their votes are at most
        :data:`MAX_VOTES_OF_POSTING` times as many.
    is_known
        Whether recordings with even numbers, those of the first dataset, do not vote for each
        other.

    Returns
    -------
    Votes
        Number of keys by pair of recordings and offset, sorted by these.

    Raises
    ------
    ValueError
        If there are too many recordings for one call: more than 16 million of half an hour.

    Examples
    --------
    >>> words = np.arange(1, 10, dtype=np.uint32) * np.uint32(0x10001)
    >>> vote(np.concatenate([postings(9, words, 0), postings(3, words[2:], 0)])).tolist()
    [(3, 9, 2, 14)]
    """
    rows = postings[np.lexsort([postings[name] for name in ("position", "recording", "key")])]
    recordings, numbers = np.unique(rows["recording"], return_inverse=True)
    is_new = recordings & np.uint64(1) == 1
    codes = _VoteCodes(recordings, int(rows["position"].max(initial=0)))
    keys, positions = rows["key"].copy(), rows["position"].astype(np.int64)
    sizes = np.diff(np.flatnonzero(np.append(True, keys[1:] != keys[:-1])), append=len(keys))
    most = np.repeat(np.where(sizes > COMMON, 1, MAX_VOTES_OF_POSTING), sizes)
    earlier = np.arange(len(rows))
    parts = [np.empty(0, np.int64)]
    for shift in range(1, MAX_VOTES_OF_POSTING + 1):
        earlier = earlier[: np.searchsorted(earlier, len(rows) - shift)]
        is_voting = (keys[earlier] == keys[earlier + shift]) & (most[earlier] >= shift)
        earlier = earlier[is_voting]
        if not len(earlier):
            break
        first, second = numbers[earlier], numbers[earlier + shift]
        offsets = positions[earlier + shift] - positions[earlier]
        is_vote = first != second
        if is_known:
            is_vote &= is_new[first] | is_new[second]
        parts.append(codes.encode(first, second, offsets)[is_vote])
    return codes.count(np.concatenate(parts))


class _VoteCodes:
    """Votes as integers, which sort fast and in the order of :data:`VOTE`."""

    def __init__(self, recordings: Keys, max_offset: int) -> None:
        self._recordings, self._max_offset = recordings, max_offset
        self._offsets = 2 * max_offset + 1
        if len(recordings) ** 2 * self._offsets >= 1 << 63:
            message = (
                f"Postings of {len(recordings)} recordings are too many for one call. "
                "Divide the keys into more parts."
            )
            raise ValueError(message)

    def encode(self, first: Indices, second: Indices, offsets: Indices) -> Indices:
        """Return the code of a vote for each pair of recordings' indices."""
        codes: Indices = first * len(self._recordings) + second
        codes = codes * self._offsets + offsets + self._max_offset
        return codes

    def count(self, codes: Indices) -> Votes:
        """Return the sums of votes."""
        codes.sort()
        starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])[: len(codes)])
        pairs, offsets = np.divmod(codes[starts], self._offsets)
        votes = np.empty(len(starts), VOTE)
        votes["first"] = self._recordings[pairs // max(1, len(self._recordings))]
        votes["second"] = self._recordings[pairs % max(1, len(self._recordings))]
        votes["offset"] = offsets - self._max_offset
        votes["votes"] = np.diff(starts, append=len(codes))
        return votes


def merge_votes(arrays: Iterable[Votes]) -> Votes:
    """Return the sums of votes for the same pair and offset, sorted by these.

    Examples
    --------
    >>> votes = np.array([(3, 9, 1, 4)], VOTE)
    >>> merge_votes([votes, votes]).tolist()
    [(3, 9, 1, 8)]
    """
    votes = np.concatenate([np.empty(0, VOTE), *arrays])
    votes = votes[np.lexsort((votes["offset"], votes["second"], votes["first"]))]
    is_new = np.append(True, ~_is_same_pair(votes) | (np.diff(votes["offset"]) != 0))
    starts = np.flatnonzero(is_new[: len(votes)])
    sums: Votes = votes[starts]
    if len(votes):
        sums["votes"] = np.add.reduceat(votes["votes"], starts)
    return sums


def _is_same_pair(votes: Votes) -> npt.NDArray[np.bool_]:
    """Return whether each row but the first has the pair of the row before it."""
    before, after = votes[:-1], votes[1:]
    is_same: npt.NDArray[np.bool_] = (before["first"] == after["first"]) & (
        before["second"] == after["second"]
    )
    return is_same


def pick(votes: Votes) -> Votes:
    """Return the best offsets of each pair, sorted by pair; the best offset comes first.

    The votes for an offset include those for the offsets beside it, because an offset need not be
    a whole number of words. An offset beside a better one is left out.

    Parameters
    ----------
    votes
        All votes of some pairs, as from :func:`merge_votes`.

    Examples
    --------
    >>> votes = np.array([(3, 9, 1, 4), (3, 9, 2, 7), (3, 9, 40, 1), (5, 9, 2, 1)], VOTE)
    >>> pick(votes).tolist()
    [(3, 9, 2, 11)]
    """
    is_beside = _is_same_pair(votes) & (np.diff(votes["offset"]) == 1)
    sums = votes.copy()
    sums["votes"][1:] += np.where(is_beside, votes["votes"][:-1], 0).astype(np.uint32)
    sums["votes"][:-1] += np.where(is_beside, votes["votes"][1:], 0).astype(np.uint32)
    is_better = sums["votes"][1:] > sums["votes"][:-1]
    is_equal = sums["votes"][1:] == sums["votes"][:-1]
    is_better |= is_equal & (votes["votes"][1:] > votes["votes"][:-1])
    is_kept = sums["votes"] >= MIN_VOTES
    is_kept[1:] &= ~is_beside | is_better
    is_kept[:-1] &= ~is_beside | ~is_better
    return _best_of_each_pair(sums[is_kept])


def _best_of_each_pair(votes: Votes) -> Votes:
    order = np.lexsort(
        (votes["offset"], -votes["votes"].astype(np.int64), votes["second"], votes["first"])
    )
    votes = votes[order]
    # Keep the first rows of each pair: they have the most votes.
    is_same = _is_same_pair(votes)
    rank = np.arange(len(votes))
    starts = np.maximum.accumulate(np.where(np.append(True, ~is_same)[: len(votes)], rank, 0))
    best: Votes = votes[rank - starts < MAX_OFFSETS]
    return best
