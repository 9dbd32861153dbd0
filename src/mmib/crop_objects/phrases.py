"""Phrases to search for in an image: noun phrases of its post, extracted without a model or download."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A longer phrase is usually several; its last words name the object.
MOST_WORDS = 4
MOST_PHRASES = 8
# Longer "words" are URLs, laughter and the like.
LONGEST_WORD = 25

# Each of these ends a phrase: determiners, pronouns, prepositions, conjunctions, auxiliaries, the most common verbs and
# adverbs, and abbreviations in posts.
BREAKS = frozenset(
    """
    a an the this that these those some any no every each either neither both all many much more most few several
    another such other own same
    i me my mine myself you your yours yourself u ur he him his himself she her hers herself it its itself we us our
    ours ourselves they them their theirs themselves who whom whose which what someone anyone everyone something
    anything everything nothing
    of in on at by for with from to into onto over under up down out off about after before between during through
    against without within near behind across along around since until till than as per via vs
    and or but nor so yet if because while when where why how though although whether
    am is are was were be been being do does did doing done have has had having will would shall should can could may
    might must cannot
    get gets got getting go goes going went gone gonna make makes made making take takes took taking taken see sees
    saw seen seeing say says said saying know knows knew think thinks thought come comes came coming look looks looked
    looking want wants wanted give gives gave giving given find finds found tell tells told ask asks asked feel feels
    felt keep keeps kept let lets put puts need needs needed love loves loved like likes liked hate hates help helps
    win wins won lose loses lost meet meets met join joins joined visit visits visited talk talks talking watch
    watching wait waiting leave leaves left try tries trying tried use uses used using show shows showing start starts
    started stop stops play plays played playing run runs ran running become becomes became seem seems live lives
    bring brings brought hold holds held set sets happen happens happened thank thanks check
    not never also just only very really too even still again already always often ever now then here there today
    tonight tomorrow yesterday soon later ago maybe perhaps almost well back away please yes no ok okay oh wow lol omg
    rt amp pic im dont cant isnt didnt doesnt thats ive youre
    don isn aren wasn weren didn doesn hasn haven hadn wouldn couldn shouldn ain
    """.split()  # noqa: SIM905 - a list of 300 literals is no better to read
)

_WORD = re.compile(r"[^\W_]+(?:['’&-][^\W_]+)*")  # noqa: RUF001 - posts hold typographic apostrophes
_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def noun_phrases(words: Sequence[str]) -> tuple[str, ...]:
    """Return sequences of content words of a post, in lower case, without duplicates, at most `MOST_PHRASES`.

    A sequence ends at function words, common verbs, punctuation, user names and URLs; a hashtag is a separate phrase.
    """
    runs: list[list[str]] = [[]]
    for word in words:
        parts = _parts(word)
        alone = word.startswith("#") or not parts
        if alone or not word.startswith(parts[0]):
            runs.append([])
        for part in parts:
            if _ends_phrase(part):
                runs.append([])
            else:
                runs[-1].append(part)
        # Punctuation may be attached to a word, as in "Paris," or "Obama:".
        if alone or not word.endswith(parts[-1]):
            runs.append([])
    phrases = (" ".join(run[-MOST_WORDS:]).lower() for run in runs if run)
    return tuple(dict.fromkeys(phrases))[:MOST_PHRASES]


def _parts(word: str) -> list[str]:
    """Split a token into words; user names and URLs have none."""
    if word.startswith(("@", "http", "www.")) or "://" in word or ".co/" in word:
        return []
    parts = _CAPITALS.sub(" ", word).split() if word.startswith("#") else [word]
    found = [match.group() for part in parts for match in _WORD.finditer(part)]
    return [part for part in found if len(part) <= LONGEST_WORD and not part.isdecimal()]


def _ends_phrase(word: str) -> bool:
    return len(word) == 1 or word.lower().replace("’", "'").split("'")[0] in BREAKS  # noqa: RUF001
