"""The other side of `words.py`: runs in fastai's environment and times its tokens, a round for each line it is sent.

    python benchmarks/fastai_words.py TEXTS.json TOKENS.json

It answers each line on standard input with one JSON line: seconds and processor seconds of a pass with a new tokenizer
and of a second pass with the same one. The tokens go to TOKENS.json when the input ends.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path

from fastai.text.core import TokenizeWithRules, WordTokenizer


def main() -> int:
    texts = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    print(json.dumps({name: importlib.metadata.version(name) for name in ("fastai", "spacy")}), flush=True)
    tokens: list[list[str]] = []
    for _ in sys.stdin:
        tokenizer = TokenizeWithRules(tok=WordTokenizer())
        answer = []
        for _ in ("new", "again"):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            tokens = [list(found) for found in tokenizer(texts)]
            answer.append((time.perf_counter() - begin, time.process_time() - begin_cpu))
        print(json.dumps(answer), flush=True)
    Path(sys.argv[2]).write_text(json.dumps(tokens), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
