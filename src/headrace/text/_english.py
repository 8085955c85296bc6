"""What English writes as one word and is several, or with marks and is one: contractions, short forms, emoticons."""

from __future__ import annotations

from itertools import chain
from string import ascii_lowercase

# Endings of a word, each with an apostrophe or without; two of them follow one another in "you'd've".
_SUBJECTS = {
    "i": "d d+ve ll ll+ve m m+a ve",
    "you": "d d+ve ll ll+ve re ve",
    "he": "d d+ve ll ll+ve s",
    "she": "d d+ve ll ll+ve s",
    "it": "d d+ve ll ll+ve s",
    "we": "d d+ve ll ll+ve re ve",
    "they": "d d+ve ll ll+ve re ve",
    "that": "d d+ve ll ll+ve s",
    "this": "d d+ve ll ll+ve s",
    "there": "d d+ve ll ll+ve re s ve",
    "these": "d d+ve ll ll+ve re ve",
    "those": "d d+ve ll ll+ve re ve",
    **dict.fromkeys(("what", "when", "where", "who", "why", "how"), "d d+ve ll ll+ve re s ve"),
    **dict.fromkeys(("could", "might", "must", "not", "should", "would"), "ve"),
}
_NEGATED = "ai are ca could did do does dare had has have is may might must need ought sha should was were wo would"
_NEVER_WITH_HAVE = ("ai", "are", "dare", "has", "have", "is", "was", "were")
#: Without the apostrophe these are other words.
_OTHER_WORDS = ("ill", "shed", "hell", "shell", "its", "well", "were", "whore")

_APOSTROPHES = ("'", "’")
# Whole with a final apostrophe, with a curly one, and without.
_CLIPPED = "doin goin havin lovin nothin nuthin ol somethin"
_BEHIND_APOSTROPHE = "bout cause cos coz cuz d em ll nuff re s"
_SHORT_FORMS = "a.m. p.m. co. e.g. i.e. v.s. vs. ä. ö. ü. em ll nuff ‘s '' ’’ ' ’ —"
_EMOTICONS = r"""
(*_*) (-8 (-: (-; (-_-) (._.) (: (; (= (>_<) (^_^) (o: (¬_¬) (ಠ_ಠ) (╯°□°）╯︵┻━┻ )-: ): -_- -__- ._. 0.0 0.o 0_0 0_o 8) 8-)
:'( :') :'-( :'-) :( :(( :((( :() :) :)) :))) :* :-( :-(( :-((( :-) :-)) :-))) :-* :-0 :-3 :-> :-] :-o :-p :-x :-| :-}
:0 :1 :3 :> :] :o :o) :p :x :| :} :’( :’) :’-( :’-) ;) ;-) ;_; <.< <3 <33 <333 <space> =( =) =3 =[ =] =| >.< >.> >:( >:o
><(((*> @_@ [-: [: [= ]= ^_^ ^__^ ^___^ o.0 o.o o_0 o_o v.v v_v ಠ_ಠ ಠ︵ಠ
"""


def exceptions() -> dict[str, tuple[str, ...]]:
    """Return each exception, in lower case, with its tokens; joined they are the exception.

    Texts are in lower case by then, and `/`, `#` and `\\` stand alone: exceptions with capitals or these do not occur.

    Source:
        The behaviour of spaCy 3.8's blank English tokenizer.
    """
    found: dict[str, tuple[str, ...]] = {}
    for tokens in chain(_subjects(), _negations(), _singles()):
        if "".join(tokens) not in _OTHER_WORDS:
            found["".join(tokens)] = tokens
    for word in chain(_wholes(), _EMOTICONS.split()):
        found[word] = (word,)
    return found


def _subjects() -> list[tuple[str, ...]]:
    return [
        (word, *(mark + ending for ending in endings.split("+")))
        for word, all_endings in _SUBJECTS.items()
        for endings in all_endings.split()
        for mark in ("", *_APOSTROPHES)
        # "i'ma" is i + 'm + a: its last part has no apostrophe of its own
        if endings != "m+a"
    ]


def _negations() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for word in _NEGATED.split():
        for mark in ("", *_APOSTROPHES):
            found.append((word, f"n{mark}t"))
            if word not in _NEVER_WITH_HAVE:
                found.append((word, f"n{mark}t", f"{mark}ve"))
    return found


def _singles() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [("can", "not"), ("gon", "na"), ("got", "ta"), ("y", "all"), ("i", "m", "a")]
    for mark in _APOSTROPHES:
        found += [("i", f"{mark}m", "a"), ("let", f"{mark}s"), (f"y{mark}", "all"), (f"c{mark}m", "on")]
        found.append(("how", f"{mark}d", f"{mark}y"))
    found += [(str(hour), half) for hour in range(1, 13) for half in ("am", "pm", "a.m.", "p.m.")]
    found += [("°", scale, ".") for scale in "cfk"]
    return found


def _wholes() -> list[str]:
    found = [*_SHORT_FORMS.split(), *(f"{letter}." for letter in ascii_lowercase)]
    for word in _CLIPPED.split():
        found += [word, *(word + mark for mark in _APOSTROPHES)]
    for mark in _APOSTROPHES:
        found += [f"o{mark}clock", f"ma{mark}am", *(mark + word for word in _BEHIND_APOSTROPHE.split())]
    return found
