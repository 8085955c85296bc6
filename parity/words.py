"""Asks fastai for the tokens of texts made for this purpose: writes tests/fixtures/parity/words.json.

.venv-parity/bin/python parity/words.py
"""

from __future__ import annotations

import importlib.metadata
import json
import random
from collections import Counter
from pathlib import Path

import pandas as pd
from fastai.text.core import TokenizeWithRules, WordTokenizer, tokenize_df
from fastai.text.data import make_vocab

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "parity" / "words.json"
VOCABULARIES = ((60_000, 3), (60_000, 1), (120, 2), (64, 1), (12, 1))

WRITTEN = [
    "",
    " ",
    "\n",
    "x",
    "A",
    "I",
    "I am. You are.",
    "The river carries WATER to the Mill.",
    "THE WHEEL TURNS, AND TURNS, AND TURNS.",
    "McDonald's iPhone and eBay; NASA's X-15, F-16s and 747s.",
    "A well-known, first-rate (but over-long) film - or is it? -- no --- it's not.",
    "good–bad, day—night, word—, –5, 3–4, 10-12, 2*3, 2^8, 5+5, -7, +3, a+b, a=b, x<y, x>y, a:b, 8:30, a~b",
    "It costs $5, £6.50, €7, 8€, 9$, US$10, 100%, 3.5km, 20kg, 15mph, 40°C, 40 °F. and 100m.",
    "At 5pm, 10a.m. or 12 p.m. o'clock; 1990s, '80s, 80's, 1,000,000 and 3.14, 1.2.3.4, v1.2",
    "e.g. this, i.e. that, etc. Mr. Smith vs. Dr. No of the U.S.A. and the U.K., Inc. Co. Ltd. a.m. J.R.R. Tolkien",
    "I can't, won't, shan't, couldn't've, I'd've, y'all, ma'am, gonna, gotta, cannot, dont, isnt, wont, youre, whos",
    "I can’t, won’t, it’s, they’re, we’ve, he’d, she’ll, ’em, ’cause, let’s, o’clock, the boys’ room",
    "'tis 'twas 'em 'cause 'bout rock 'n' roll, goin' home, nothin', ol' man, Lovin'",
    "CAN'T WON'T IT'S I'M DON'T; Can't Won't It's I'm Don't",
    "\"Quoted,\" she said. \"It's 'fine',\" (really)... “Curly” ‘single’ „low“ «guillemets» `tick` ''double''",
    ":) :-) ;-) :( :D :P :/ :'( <3 </3 ^_^ o_O O.o xD =) (: >:( :-)) -_- (^_^) 8-) :3 ¯\\(ツ)/¯",
    "nice:) nice:-) nice ;) (nice :)) :):) :)) great!:D (a.) b. c.) grade-b. 1-a. x.y",
    "wow!!! what??? no!?!? sooooo goooood.... ... .. . .... ..... ---- ===== ***** ____ ~~~~",
    "10000000 1111 aaaa AAAA aAaA 111 22 hmmmm Zzzzz www.example.com",
    "very very good; very very very good; very very very very very. no no no! No no no. NO NO NO",
    "ha ha ha ha\nha ha haha, the the\nthe end, a a a b b b c c c, word word word's word word wordy",
    "bye bye bye",
    "Good.<br /><br />Bad.<br />End <br /> more<br/>x<BR />y",
    "AT&amp;T, Tom &amp; Jerry, &lt;b&gt;, &quot;hi&quot;, &#39;x&#39;, &#146;y, caf&eacute;, a&nbsp;b, &copy &notit; &#x41; &#36;5",
    'A\\nB \\\\ C\\tD \\"quoted\\" <unk> 3 @.@ 5 well @-@ known',
    "#hashtag #1 C# F#m 50/50 and/or w/o he/she http://www.site.com/path?x=1#top ftp://a.b C:\\dir",
    "site.com some-site.com a.b.co.uk movie.the good.Bad end.So well-made.the mail@site.com, joe.blow+x@mail-server.org!",
    "see www.some-site.com:8080 or site.com?q=a-b, (site.org) site.net. word…next.the good–bad.com",
    "Tabs\there\t\tand  spaces   many\r\nlines\n\n\nend \n x\n \ny \x0b z\u00a0nbsp\u2003em\u2028sep\u3000cjk",
    "\n leading and trailing \n",
    "naïve café Ångström ŒUVRE Élan ÉLAN straße STRASSE ǅ ﬁne İstanbul ıI ΑΣ ΟΔΟΣ. Σ",
    "Привет, МИР! Москва-река. 5 км. Ёж",
    "你好，世界！中文-英文 日本語。 한국어 ไทย שלום עולם مرحبا، العالم؟ नमस्ते।",
    "😀 good😀 😀😀😀 👍🏽 🏴‍☠️ ☺ ★★★☆ ♥love♥ →next ©2020 ™ ® °",
    "zero\u200bwidth soft\u00adhyphen comb\u0301ining e\u0301e\u0301e\u0301 \ufeffbom \x00nul \x7f",
    "a,b a, b ,a 1,2 a,1 é,è 你,好 a.\"b a.'b x.”y 中.文 a..b a...b a…b 1..2",
    '(((nested [brackets] {here})))  ((a)) [[b]] )( ][ <tag> </tag> <a href="x">link</a>',
    "100% sure, 50%-60%, 5%. 5%.x +1. -1. ²³ x². m². 10m². 10². °c. 20°C. x_y __init__ _a_ a_",
    "xxbos xxunk xxmaj xxrep 3 x xxup",
    "Xxbos XXUP",
    "The 1st, 2nd, 3rd & 4th of 7'2\" at 6'4 5ft 6in 7lb 3oz 2gb 1tb 10K 5M",
    "R2-D2 C-3PO 3D T-shirt A-list B-movie C+ A+ A- O.K. OK Ok oK o.k. P.S. Ph.D. B.A.T.",
    "*bold* **bold** _it_ `code` ~x~ |pipe| a|b a&b A&B @user @ a @b.c ;x; ,, ;; :: ?! !? .,",
    "mother-in-law's, o'er, O'Brien's, 'Twas, l'amour, d'être, rock'n'roll, Hawai'i, ne'er-do-well, twenty-'two",
    "s's 's ’s S'S x's. x's) x's, 's.' (it's) [it's] \"it's\" it's! IT'S! won't? (won't) won't.",
    "¿Qué? ¡Sí! § 5 † 1 ‡ 2 • item · dot ‣ ¶ par № 5 ½ cup ¼ ∞ ± 3 × 4 ÷ 5 ≠ ≤ µm",
    "$$$ £££ 5$$$ %%% $% 5%$ $5.00. £5, ¥500; ₽10 10₽ 10₽. US$5 us$5 C$5 A$",
    "Youd. hed? whos! wed, gonna. cant; 'd. i.e., a.m.. vs.: (em) 'em. n't. nothin'. o'clock. 5pm, 10am. :). ;-),",
    "e-mail re-do co-op x-ray a--b a---b a----b a—b a——b a———b -a a- --a a-- 1-b b-1 1-2 a-'b' a-\"b\" é-è",
]
FIRST = ["A", "the", "This", "MY", "her", "O", "No", "Every", "10", "(An", '"The', "'That", "--so", "#2", "I"]
MIDDLE = [
    "mill",
    "Water-wheel",
    "dam,",
    "SLUICE;",
    "don't",
    "He'll",
    "they've",
    "it's",
    "o'clock",
    "u.s.",
    "e.g.",
    "5pm",
]
MIDDLE += [
    "gates/doors",
    "river's",
    "weir...",
    "flow!!!",
    "Sluices'",
    "re-built",
    "water:",
    "half&half",
    "lock—basin",
    "10%",
]
LAST = [
    "turns.",
    "stops!",
    "RUNS?",
    "is here…",
    "(again)",
    'said."',
    "won't.",
    ":)",
    "ok :-(",
    "-- end",
    "3.5km.",
    "u.k.",
    "a.",
    "now\n",
]


def composed(n: int) -> list[str]:
    """Return short sentences put together from the lists above, and words with random signs around and inside."""
    draw = random.Random(13)
    signs = [*"\"'’()[]{}.,;:!?-–—…*&%$+=<>@_~|^°’é", "'s", "n't", "...", ":)", "<br />", "  ", "\n", " "]
    found = []
    for number in range(n):
        words = [draw.choice(FIRST), *draw.choices(MIDDLE, k=draw.randint(1, 4)), draw.choice(LAST)]
        if number % 2:
            place = draw.randrange(len(words))
            letters = list(words[place])
            for _ in range(draw.randint(1, 3)):
                letters.insert(draw.randint(0, len(letters)), draw.choice(signs))
            words[place] = "".join(letters)
        found.append(" ".join(words))
    return found


def main() -> None:
    """Write the fixture."""
    texts = WRITTEN + composed(360)
    tokens = [list(found) for found in TokenizeWithRules(tok=WordTokenizer())(texts)]
    # White space around a text of a pair is a token in fastai and nothing in Headrace.
    pairs = [(first.strip(), second.strip()) for first, second in zip(texts[6:40:2], texts[41:7:-2], strict=True)]
    table, _ = tokenize_df(pd.DataFrame(pairs, columns=["a", "b"]), ["a", "b"], n_workers=0, mark_fields=True)
    counts = Counter(word for found in tokens for word in found)
    vocabularies = [
        {"max_size": size, "min_count": least, "words": make_vocab(counts, min_freq=least, max_vocab=size)}
        for size, least in VOCABULARIES
    ]
    content = {
        "made_with": {name: importlib.metadata.version(name) for name in ("fastai", "spacy")},
        "texts": texts,
        "tokens": [" ".join(found) for found in tokens],
        "pairs": pairs,
        "pair_tokens": [" ".join(found) for found in table["text"]],
        "vocabularies": [{**one, "words": " ".join(one["words"])} for one in vocabularies],
    }
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
