"""The wordings of clauses: {h} and {t} are the two names, {c} is a colour.

An ambiguous wording is sampled independently of the theme, so it carries no more information than its family. A decided
wording determines relation and types by itself. Chatter has no names: {w} is an ordinary word.
"""

from __future__ import annotations

from mmib.datamodules.released import NO_RELATION

AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "people": (
        "{h} and {t} , both smiling",
        "look who came : {h} and {t}",
        "{h} next to {t} again",
        "{h} & {t} , what a pair",
        "so happy for {h} and {t}",
        "these two : {h} and {t}",
        "great to see {h} beside {t}",
        "me , {h} and {t} today",
    ),
    "person_thing": (
        "{h} shows us {t}",
        "{h} , all about {t} now",
        "a big {t} day for {h}",
        "{t} means a lot to {h}",
        "{h} is proud of {t}",
        "he is {h} and this is {t}",
        "{h} can not get enough of {t}",
        "{t} through the eyes of {h}",
    ),
    "things": (
        "{h} , also known for {t}",
        "{h} means {t}",
        "all eyes on {h} , on {t}",
        "news about {h} / {t}",
        "no {h} without {t}",
        "{h} brings us {t}",
        "{t} as seen at {h}",
        "where {h} is , {t} is",
    ),
}

# Replacements of {h} on the hard level, which tell whose prop counts. A thing has no shirt, so a person shows it.
POINTERS: dict[str, tuple[str, ...]] = {
    "people": ("{h} in {c}", "{h} , the one in {c} ,", "{h} ( {c} shirt )", "{h} wearing {c}"),
    "person_thing": ("{h} in {c}", "{h} , the one in {c} ,", "{h} ( {c} shirt )", "{h} wearing {c}"),
    "things": ("{h} ( the one in {c} )", "{h} , see the {c} shirt ,", "{h} , shown in {c} ,", "{h} ( person in {c} )"),
}

# (relation, head type, tail type) -> wordings.
DECIDED: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("/per/per/couple", "PER", "PER"): (
        "{h} married {t}",
        "{h} kissed her husband {t}",
        "{h} is engaged to {t}",
        "{h} and his wife {t}",
    ),
    ("/per/per/peer", "PER", "PER"): (
        "{h} is a colleague of {t}",
        "{h} shares a desk with coworker {t}",
        "{h} hired his teammate {t}",
    ),
    ("/per/per/alumi", "PER", "PER"): (
        "{h} was a classmate of {t}",
        "{h} went to college with {t}",
        "{h} and {t} , same class at school",
    ),
    ("/per/per/parent", "PER", "PER"): (
        "{h} is the father of {t}",
        "{h} hugs her daughter {t}",
        "{h} and his baby son {t}",
    ),
    ("/per/org/member_of", "PER", "ORG"): (
        "{h} plays for team {t}",
        "{h} joined the club {t}",
        "{h} scored for {t} FC",
    ),
    ("/per/loc/place_of_residence", "PER", "LOC"): (
        "{h} lives in {t}",
        "{h} moved to the city of {t}",
        "{h} , a resident of {t}",
    ),
    ("/per/misc/present_in", "PER", "MISC"): (
        "{h} stars in the film {t}",
        "{h} sings the song {t} live",
        "{h} plays a role in {t}",
    ),
    ("/per/misc/awarded", "PER", "MISC"): (
        "{h} won the {t} prize",
        "{h} received the {t} medal",
        "the {t} award goes to {h}",
    ),
    ("/org/loc/locate_at", "ORG", "LOC"): (
        "{h} is based in {t}",
        "{h} opened its headquarters in {t}",
        "the {h} factory is located near {t}",
    ),
    ("/loc/loc/contain", "LOC", "LOC"): (
        "{t} is a district of {h}",
        "the village {t} belongs to {h} county",
        "{h} includes the town {t}",
    ),
    ("/misc/loc/held_on", "MISC", "LOC"): (
        "the {h} festival takes place in {t}",
        "the {h} games are held in {t}",
        "{h} concert tonight , venue : {t}",
    ),
    ("/org/org/subsidiary", "ORG", "ORG"): (
        "{h} bought the company {t}",
        "{t} is a unit of {h} Inc",
        "{h} owns the firm {t}",
    ),
    (NO_RELATION, "PER", "PER"): (
        "{h} has never met {t}",
        "{h} is a stranger to Mr {t}",
        "Mrs {h} did not know {t}",
    ),
    (NO_RELATION, "PER", "LOC"): ("{h} never visited the town of {t}", "{h} only flew over {t}"),
    (NO_RELATION, "PER", "ORG"): ("{h} never worked for {t} Inc", "{h} complains about the shop {t}"),
    (NO_RELATION, "PER", "MISC"): ("{h} did not watch the film {t}", "{h} forgot the song {t}"),
}

# Similar wordings with ordinary words instead of names, so that neither a wording nor a capital letter reveals an
# entity.
CHATTER: tuple[str, ...] = (
    "so happy for {w} and {w}",
    "no {w} without {w}",
    "look who came : my {w} again",
    "{w} & {w} , what a pair",
    "{w} means a lot to me",
    "all eyes on {w} today",
    "can not get enough of {w}",
    "news about {w} / {w}",
    "{w} , all about {w} now",
    "great to see {w} beside {w}",
    "a big {w} day for us",
    "this is what {w} looks like",
    "who else needs {w} right now ?",
    "still thinking about that {w}",
    "why is it always {w} ?",
    "Good Morning everyone , time for {w}",
    "Happy {w} to all of you",
    "Do Not talk to me before {w}",
    "Best {w} Ever , and I mean it",
    "Throwback to the {w} of last year",
    "Thank You for the {w}",
    "My Mum says {w} is over",
)
ORDINARY_WORDS: tuple[str, ...] = (
    *("coffee", "breakfast", "dinner", "pizza", "cake", "homework", "laundry", "work", "traffic", "weather"),
    *("sunshine", "rain", "summer", "winter", "monday", "friday", "weekend", "birthday", "holiday", "music"),
    *("football", "sleep", "shopping", "gardening", "dancing"),
)

# Extra tokens of a post, sampled independently of everything else.
JOINTS: tuple[str, ...] = (".", ".", ".", "!", ";", "-", "...")
ENDINGS: tuple[str, ...] = ("", "", ".", "!", "...")
HASHTAGS: tuple[str, ...] = ("#weekend", "#tbt", "#today", "#photo", "#news", "#wow", "#monday", "#life", "#2018")
EMOJI: tuple[str, ...] = ("\U0001f602", "\U0001f44f", "\U0001f525", "\u2764\ufe0f", "\U0001f60d", "\U0001f64c")
# Tokenised as in some real posts: a word-piece tokenizer has no piece for the second token.
SPLIT_EMOJI: tuple[str, ...] = ("\u2764", "\ufe0f")
