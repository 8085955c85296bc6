"""Draws the next word, and the next, until there are enough of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.backbones._next_word import NextWordModel
from headrace.errors import RecipeError
from headrace.text.tokenizer import Tokenizer

#: Where one of these would come, the text has ended.
ENDS = ("xxbos", "xxeos")
#: Never written: no word stands for them.
NEVER = ("xxunk", "xxpad", "xxfld", "xxfake")
#: Marks say how the next word is written; they are no words of their own.
MARKS = (*ENDS, *NEVER, "xxrep", "xxwrep", "xxup", "xxmaj")
# A model that has learnt little may write nothing but marks; then it has had tokens enough.
_TOKENS_PER_WORD = 8
_WHOLE = 1 << 40


@dataclass(frozen=True)
class Sampling:
    """How words are drawn.

    Attributes:
        words: Words and signs to add, from 1.
        n: How many texts, from 1.
        temperature: From 0; 0 takes the likeliest word.
        top_k: From 1, or None.
        top_p: In (0, 1], or None.
        seed: None for another text each time.

    Raises:
        RecipeError: A value is out of its range.
    """

    words: int = 40
    n: int = 1
    temperature: float = 0.75
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        rules = (
            ("words", self.words >= 1, "1 or more"),
            ("n", self.n >= 1, "1 or more"),
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 1e3, "0, or 0.001 to 1000"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "a whole number from 0, below 2^63"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
        )
        for name, holds, wanted in rules:
            if not holds:
                raise RecipeError(
                    f"{name} is {getattr(self, name)}", where=f"--{name.replace('_', '-')}", next=f"write {wanted}"
                )


def generate(model: NextWordModel, tokenizer: Tokenizer, text: str, sampling: Sampling) -> list[str]:
    """Return texts that begin with `text` and go on as a reader writes: without marks, case and spaces restored.

    Args:
        model: In evaluation mode.
        tokenizer: The model's words.
        text: The beginning; may be empty.
        sampling: How words are drawn.
    """
    prompt = tokenizer.encode_flat([text], max_length=_WHOLE, truncate="head", pair=False).ids.tolist()
    names = tokenizer.tokens(range(tokenizer.vocabulary_size))
    is_mark = [name in MARKS for name in names]
    never = torch.tensor([number for number, name in enumerate(names) if name in NEVER or not name], dtype=torch.int64)
    ends = {number for number, name in enumerate(names) if name in ENDS}
    generator = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
    written: list[list[int]] = [[] for _ in range(sampling.n)]
    n_words, is_open = [0] * sampling.n, [True] * sampling.n
    with torch.no_grad():
        ids = torch.tensor([prompt] * sampling.n, dtype=torch.int64)
        state = model.initial_state(sampling.n)
        for _ in range(_TOKENS_PER_WORD * sampling.words):
            logits, state = model.next_logits(ids, state)
            logits = logits[:, : len(names)].float()
            logits[:, never] = -torch.inf
            ids = draw(logits, sampling, generator)
            for number, token in enumerate(ids[:, 0].tolist()):
                if not is_open[number] or token in ends:
                    is_open[number] = False
                    continue
                written[number].append(token)
                n_words[number] += not is_mark[token]
                is_open[number] = n_words[number] < sampling.words
            if not any(is_open):
                break
    return [_joined(tokenizer, text, prompt, _without_open_marks(tokens, is_mark)) for tokens in written]


def _joined(tokenizer: Tokenizer, text: str, prompt: list[int], written: list[int]) -> str:
    """Return the beginning as it was given, words that the model does not know included, and what was written."""
    read, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *written])
    return text.rstrip() + whole[len(read) :] if text.strip() and whole.startswith(read) else whole


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Return a drawn token for each text, [texts, 1] int64.

    Args:
        logits: [texts, vocabulary] float32; -inf for what must not be drawn.
        sampling: Temperature, top k and top p; top p looks at the probabilities under the temperature.
        generator: None for torch's own.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p is not None:
        ordered, places = probabilities.sort(dim=-1, descending=True)
        # a word stays if those before it have not reached the share yet: the likeliest always does
        ordered[ordered.cumsum(dim=-1) - ordered >= sampling.top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, places, ordered)
    return torch.multinomial(probabilities, 1, generator=generator)


def _without_open_marks(tokens: list[int], is_mark: list[bool]) -> list[int]:
    """Return the tokens without marks at the end, which no word follows."""
    while tokens and is_mark[tokens[-1]]:
        tokens = tokens[:-1]
    return tokens
