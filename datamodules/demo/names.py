"""Invented names, in disjoint pools for the splits.

One pool serves all entity types, so a name carries no information on its type, and no training name occurs elsewhere.
"""

from __future__ import annotations

import functools
import itertools
import random

_ONSETS = "bdfgjklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS = ("a", "o", "i", "en", "an", "ar", "el", "is", "ok")

# Common English words of the same shape, which are excluded: a name should have no meaning.
_WORDS = """
babel bagel bali bari basel basis began bela beta bevel bogan boja dada dali data deli demi demo denis dido dina dino
diva divan dodo dogan dora dota dozen duma dumo fada feta fido fiji gala gavel gaza gina given goma japan java jota
judo juno kaki kali kara kilo kola koma label laden lama lapel lava level lido liken lima limo linen lira lisa logan
logo lola lunar mabel mali mama mari maven mega memo meta mini model mojo mola molar mona motel nasa navel nina nobel
nota nova novel pagan panel papa paris penis peta pisa pita polar polo puma radar raja ramen rami ravel raven rebel
reno repel revel risen rita riven roma roman rosa rota saga sami sara sari satan sedan sega semi seven silo siren soda
sofa soja solar soli solo soma sonar sugar sumo susan taken tara taro tela tiki tina titan toga token tuba tuna tupi
vega vegan vela vera vino visa vita zara zero zeta
"""

# Ranges of the pools as shares of all names; training has the most posts.
_POOLS = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}


@functools.cache
def name_pool(split: str) -> tuple[str, ...]:
    """The name tokens of a split, capitalised."""
    shapes = itertools.product(_ONSETS, _VOWELS, _ONSETS, _ENDINGS)
    names = sorted({"".join(shape) for shape in shapes} - set(_WORDS.split()))
    random.Random("demo names").shuffle(names)
    first, last = (round(share * len(names)) for share in _POOLS[split])
    return tuple(name.capitalize() for name in names[first:last])


def draw_names(rng: random.Random, split: str, count: int) -> list[tuple[str, ...]]:
    """Sample names of one or two tokens, without repeated tokens."""
    lengths = [2 if rng.random() < 0.2 else 1 for _ in range(count)]
    tokens = iter(rng.sample(name_pool(split), sum(lengths)))
    return [tuple(itertools.islice(tokens, length)) for length in lengths]
