"""The classes of characters by which words are split; lowercase texts only, so that capitals stand in no range."""

from __future__ import annotations

#: Letters with a capital of their own: Latin, Greek, Cyrillic, as ranges for a regular expression.
_CASED = (
    "a-zß-öø-\u01ba\u01bd-\u01bf\u01c6-\u02af\u03ac-\u03af\u03b1-\u03c9\u03cc-\u03ce\u0430-\u0451\u0453-\u045a"
    "\u045c\u045dґҗңүһәө\u1d00-\u1d25\u1d6b-\u1d77\u1d79-\u1d9a\u1e01-\u1eff\u2c61-\u2c7b\ua723-\ua76f\ua771-\ua787"
    "\ua78c\ua78e\ua791-\ua7b9\ua7fa\uab30-\uab5a\uab60-\uab64\uff41-\uff5a"
)
#: Scripts without capitals: Hebrew, Arabic, those of India, Hangul, Han, and so on.
UNCASED = (
    "\u0591-\u05f4\u0620-\u064a\u066e-\u06d5\u06e5-\u06ff\u0750-\u077f\u08a0-\u08bd\u0900-\u09ff\u0b80-\u0cff"
    "\u0d80-\u0dff\u1100-\u137f\u2e80-\u30ff\u31c0-\u31ef\u3200-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\ufb1d-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdc7\ufdf0-\ufdfb\ufe30-\ufe4f\ufe70-\ufefc\U0001ee00-\U0001eebb"
    "\U0001f200-\U0001f2ff\U00020000-\U0002fa1f"
)
LETTERS = _CASED + UNCASED
#: Pictures and signs (Unicode's class So as of version 11; younger emoji are none): first and last code, hexadecimal.
_ICONS = """
a6 a9 ae b0 482 58d-58e 60e-60f 6de 6e9 6fd-6fe 7f6 9fa b70 bf3-bf8 bfa c7f d4f d79 f01-f03 f13 f15-f17 f1a-f1f f34 f36
f38 fbe-fc5 fc7-fcf fd5-fd8 109e-109f 1390-1399 1940 19de-19ff 1b61-1b6a 1b74-1b7c 2100-2101 2103-2106 2108-2109 2114
2116-2117 211e-2123 2125 2127 2129 212e 213a-213b 214a 214c-214d 214f 218a-218b 2195-2199 219c-219f 21a1-21a2 21a4-21a5
21a7-21ad 21af-21cd 21d0-21d1 21d3 21d5-21f3 2300-2307 230c-231f 2322-2328 232b-237b 237d-239a 23b4-23db 23e2-244a
249c-24e9 2500-25b6 25b8-25c0 25c2-25f7 2600-266e 2670-2767 2794-27bf 2800-28ff 2b00-2b2f 2b45-2b46 2b4d-2b95 2b98-2bc8
2bca-2bfe 2ce5-2cea 2e80-2ffb 3004 3012-3013 3020 3036-3037 303e-303f 3190-3191 3196-319f 31c0-31e3 3200-321e 322a-3247
3250 3260-327f 328a-32b0 32c0-32fe 3300-33ff 4dc0-4dff a490-a4c6 a828-a82b a836-a837 a839 aa77-aa79 fdfd ffe4 ffe8
ffed-ffee fffc-fffd 10137-1013f 10179-10189 1018c-1019b 101a0-101fc 10877-10878 10ac8 1173f 16b3c-16b3f 16b45 1bc9c
1d000-1d164 1d16a-1d16c 1d183-1d184 1d18c-1d1a9 1d1ae-1d1e8 1d200-1d241 1d245 1d300-1d356 1d800-1d9ff 1da37-1da3a
1da6d-1da74 1da76-1da83 1da85-1da86 1ecac 1f000-1f0f5 1f110-1f16b 1f170-1f1ac 1f1e6-1f3fa 1f400-1f6d4 1f6e0-1f6f9
1f700-1f7d8 1f800-1f8ad 1f900-1f90b 1f910-1f93e 1f940-1f970 1f973-1f976 1f97a 1f97c-1f9a2 1f9b0-1f9b9 1f9c0-1f9c2
1f9d0-1f9ff 1fa60-1fa6d
"""
ICONS = "".join("-".join(chr(int(code, 16)) for code in codes.split("-")) for codes in _ICONS.split())

QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧"
PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
CURRENCIES = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
DASHES = "—–"
# The glued entry stands for a comma that the reference lacks.
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz kmh mph mb kb gb tb % "
    "км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг кб мб гб тбكم "
    "كم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ غرام جرام جم كغ ملغ كوب اكواب"
)
#: What is cut off behind a number: 10km is 10 and km.
UNITS = frozenset(_UNITS.split())
