"""Attributions add up to what they explain, stand on the original text, and leave the classifier as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from headrace.backbones._base import Backbone, ParameterGroups
from headrace.data.examples import LabelSet
from headrace.errors import DataError, MissingExtra, ModelError, RecipeError
from headrace.explain import Explanation, Integration, Piece, as_html, as_markup, as_styled, explain
from headrace.explain.explanation import SMALLEST, TOLERANCE, merged
from headrace.model import Classifier, HeadSettings, load_classifier
from headrace.predict import score
from headrace.text.subwords import Subwords
from tiny import FAMILIES, SENTENCES, tiny_folder

LABELS = ("bad", "good", "mixed")
TEXT = "What a lovely surprise;  we laughed unbelievably, don't you?\n"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models are three times slower on several threads of a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_folder(root, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def subwords(folders: dict[str, Path]) -> Subwords:
    return Subwords.load(folders["bert"])


def tiny(
    folder: Path, labels: tuple[str, ...] = LABELS, *, head: str = "linear", multi_label: bool = False
) -> Classifier:
    """A classifier with a head large enough for logits of about one."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = HeadSettings(name=head, pool="mean") if head == "linear" else HeadSettings(name=head)
        found = load_classifier(
            backbone=str(folder), head=settings, labels=LabelSet(labels), multi_label=multi_label
        ).eval()
        with torch.no_grad():
            for parameter in found.groups()[-1][1]:
                if parameter.dim() > 1:
                    parameter.normal_(std=0.5)
    return found


@pytest.fixture(scope="module")
def classifier(folders: dict[str, Path]) -> Classifier:
    return tiny(folders["bert"])


def logits_of(classifier: Classifier, subwords: Subwords, text: Any) -> list[float]:
    encoded = subwords.encode([text], max_length=64)
    found = score(classifier, encoded, pad_id=subwords.pad_id, uses_token_types=subwords.uses_token_types)
    return [float(value) for value in found[0]]


def masked_logits(classifier: Classifier, subwords: Subwords, text: str) -> list[float]:
    """Logits of the text with each ordinary token's id replaced by the mask's: for families that only look ids up."""
    encoded = subwords.encode([text], max_length=64)
    assert subwords.mask_id is not None
    encoded[0].ids[1:-1] = subwords.mask_id
    found = score(classifier, encoded, pad_id=subwords.pad_id, uses_token_types=subwords.uses_token_types)
    return [float(value) for value in found[0]]


# -- they add up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attributions_sum_to_the_difference_of_the_logits(family: str, head: str, folders: dict[str, Path]) -> None:
    classifier, subwords = tiny(folders[family], head=head), Subwords.load(folders[family])
    for text, found in zip(
        [TEXT, SENTENCES[1]], explain(classifier, subwords, [TEXT, SENTENCES[1]], max_length=64), strict=True
    ):
        at_text, at_baseline = (f(classifier, subwords, text) for f in (logits_of, masked_logits))
        chosen = at_text.index(max(at_text))
        other = at_text.index(sorted(at_text)[-2])
        expected = (at_text[chosen] - at_text[other]) - (at_baseline[chosen] - at_baseline[other])
        assert (found.label, found.against) == (LABELS[chosen], LABELS[other])
        assert found.difference == pytest.approx(expected, abs=1e-4)
        assert found.value == pytest.approx(at_text[chosen] - at_text[other], abs=1e-4)
        assert abs(expected) > SMALLEST
        assert abs(found.total - expected) <= TOLERANCE * abs(expected) + 1e-4
        assert found.total == pytest.approx(sum(piece.attribution for piece in found.pieces))
        assert found.error_share == pytest.approx(abs(found.total - found.difference) / abs(found.difference))
        assert found.is_exact
        assert "".join(shown for shown, _ in found.tokens()) == text


def test_more_steps_are_taken_until_the_sum_is_near(classifier: Classifier, subwords: Subwords) -> None:
    def one(**settings: Any) -> Explanation:
        return explain(classifier, subwords, [TEXT], max_length=64, integration=Integration(**settings))[0]

    rough = one(first_steps=1, max_steps=1)
    assert rough.error_share > TOLERANCE
    assert not rough.is_exact
    assert rough.n_steps == 1
    fine = one(first_steps=1)
    assert fine.error_share <= TOLERANCE
    assert fine.n_steps > 1
    assert fine.n_steps.bit_count() == 1
    finer = one(first_steps=1, tolerance=1e-4)
    assert finer.error_share <= 1e-4
    assert finer.n_steps > fine.n_steps


def test_passes_of_any_size_give_the_same(classifier: Classifier, subwords: Subwords) -> None:
    large, small = (
        explain(classifier, subwords, [TEXT], max_length=64, integration=Integration(max_tokens=size))[0]
        for size in (4096, 1)
    )
    assert large.n_steps == small.n_steps
    for left, right in zip(large.pieces, small.pieces, strict=True):
        assert left.attribution == pytest.approx(right.attribution, abs=1e-5)


def test_a_model_that_is_a_sum_over_its_tokens_is_explained_exactly(folders: dict[str, Path]) -> None:
    """The planted words: each token's embedding is its weight for the first label; nothing mixes tokens."""
    subwords = Subwords.load(folders["bert"])
    classifier = tiny(folders["bert"], ("bad", "good"))
    table = torch.zeros(subwords.vocabulary_size, 1)
    weights = {"lovely": 2.0, "worse": -3.0, "[MASK]": 0.5}
    for word, weight in weights.items():
        token = subwords.mask_id if word == "[MASK]" else int(subwords.encode([word], max_length=8)[0].ids[1])
        table[token] = weight
    classifier.backbone = Additive(table)
    classifier.head = torch.nn.Linear(1, 2, bias=False)  # type: ignore[assignment]
    with torch.no_grad():
        classifier.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    found = explain(classifier, subwords, ["a lovely film, never worse"], max_length=16, target="good")[0]
    shown = {piece.text: piece.attribution for piece in found.pieces}
    # seven tokens are pooled; the margin is twice the weight; the mask's own weight is the baseline
    expected = {"a": -0.5, "lovely": 1.5, "film": -0.5, ",": -0.5, "never": -0.5, "worse": -3.5}
    assert shown == pytest.approx({word: 2 * weight / 8 for word, weight in expected.items()}, abs=1e-6)
    assert found.n_steps == 16
    assert [[word.text for word in side] for side in found.strongest(1)] == [["lovely"], ["worse"]]


class Additive(Backbone):
    """A backbone whose hidden states are its embeddings."""

    family = "additive"
    width = 1

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(table)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table

    def groups(self) -> ParameterGroups:
        return [("embeddings", list(self.table.parameters()))]

    def config(self) -> dict[str, Any]:
        return {"backbone": "additive"}

    def forward(self, batch: Any) -> torch.Tensor:
        hidden: torch.Tensor = self.table(batch.input_ids)
        return hidden


def test_without_a_mask_token_the_baseline_is_padding_and_positions_stay(folders: dict[str, Path]) -> None:
    """RoBERTa reads positions off the ids: a baseline of padding ids would lose them, and with them completeness."""
    classifier, subwords = tiny(folders["roberta"]), Subwords.load(folders["roberta"])
    masked = explain(classifier, subwords, [TEXT], max_length=64)[0]
    subwords.mask_id = None
    padded = explain(classifier, subwords, [TEXT], max_length=64)[0]
    subwords.mask_id = 10**6  # beyond the table
    beyond = explain(classifier, subwords, [TEXT], max_length=64)[0]
    assert padded == beyond
    assert padded.is_exact
    assert padded.value == masked.value
    assert padded.difference != pytest.approx(masked.difference, rel=0.01)


# -- what is explained --------------------------------------------------------------------------------------------


def test_two_labels_are_explained_by_their_margin_from_either_side(
    folders: dict[str, Path], subwords: Subwords
) -> None:
    classifier = tiny(folders["bert"], ("bad", "good"))
    good, bad = (explain(classifier, subwords, [TEXT], max_length=64, target=label)[0] for label in ("good", "bad"))
    assert (good.label, good.against, bad.label, bad.against) == ("good", "bad", "bad", "good")
    assert good.difference == pytest.approx(-bad.difference, abs=1e-6)
    for left, right in zip(good.pieces, bad.pieces, strict=True):
        assert left.attribution == pytest.approx(-right.attribution, abs=1e-6)


def test_multi_label_explains_the_logit_itself(folders: dict[str, Path], subwords: Subwords) -> None:
    classifier = tiny(folders["bert"], multi_label=True)
    at_text, at_baseline = (f(classifier, subwords, TEXT) for f in (logits_of, masked_logits))
    found = explain(classifier, subwords, [TEXT, TEXT], max_length=64, target=["mixed", None])
    assert [one.label for one in found] == ["mixed", LABELS[at_text.index(max(at_text))]]
    assert [one.against for one in found] == [None, None]
    assert found[0].difference == pytest.approx(at_text[2] - at_baseline[2], abs=1e-5)
    assert all(one.is_exact for one in found)


def test_a_label_that_is_not_the_answer_is_compared_with_the_answer(classifier: Classifier, subwords: Subwords) -> None:
    at_text = logits_of(classifier, subwords, TEXT)
    lowest, highest = LABELS[at_text.index(min(at_text))], LABELS[at_text.index(max(at_text))]
    found = explain(classifier, subwords, [TEXT], max_length=64, target=lowest)[0]
    assert (found.label, found.against) == (lowest, highest)


def test_a_text_without_words_has_nothing_to_explain(classifier: Classifier, subwords: Subwords) -> None:
    found = explain(classifier, subwords, ["", " \n", "\u200b"], max_length=16)
    for one, text in zip(found, ["", " \n", "\u200b"], strict=True):
        assert (one.pieces, one.total, one.difference, one.error_share, one.n_steps) == ((), 0.0, 0.0, 0.0, 0)
        assert one.is_exact
        assert one.tokens() == ([[text, 0.0]] if text else [])
        assert "no words" in as_markup(one)
        assert "no words" in as_html(one)
        assert one.value > 0.0
    assert explain(classifier, subwords, [], max_length=16) == []


def test_a_text_of_special_tokens_differs_from_its_baseline_by_them_alone(
    classifier: Classifier, subwords: Subwords
) -> None:
    masks, separators = explain(classifier, subwords, ["[MASK] [MASK]", "[SEP][PAD]"], max_length=16)
    assert (masks.total, masks.difference) == (0.0, 0.0)
    assert [piece.text for piece in masks.pieces] == ["[MASK]", "[MASK]"]
    assert [piece.text for piece in separators.pieces] == ["[SEP]", "[PAD]"]
    assert separators.is_exact
    assert separators.difference != 0.0


def test_wrong_targets_and_settings_are_refused(classifier: Classifier, subwords: Subwords) -> None:
    with pytest.raises(RecipeError) as unknown:
        explain(classifier, subwords, [TEXT], max_length=16, target="goood")
    assert unknown.value.what == "there is no label 'goood'"
    assert unknown.value.next == "did you mean 'good'? available: bad, good, mixed"
    with pytest.raises(DataError, match="there are 2 targets for 1 texts"):
        explain(classifier, subwords, [TEXT], max_length=16, target=["bad", "good"])
    with pytest.raises(RecipeError, match="leaves no room"):
        explain(classifier, subwords, [TEXT], max_length=2)
    with pytest.raises(RecipeError, match="do not go together"):
        Integration(first_steps=8, max_steps=4)
    with pytest.raises(DataError, match="must be a string"):
        explain(classifier, subwords, [TEXT, None], max_length=16)  # type: ignore[list-item]


def test_a_backbone_without_embeddings_says_so(folders: dict[str, Path], subwords: Subwords) -> None:
    classifier = tiny(folders["bert"])
    classifier.backbone = torch.nn.Linear(1, 1)
    classifier.backbone.family = "other"  # type: ignore[assignment]
    with pytest.raises(ModelError, match="'other' has no table of token embeddings"):
        explain(classifier, subwords, [TEXT], max_length=16)


def test_without_captum_the_error_says_what_to_install(
    classifier: Classifier, subwords: Subwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtra) as missing:
        explain(classifier, subwords, [TEXT], max_length=16)
    assert missing.value.next == "pip install 'headrace[explain]'"


# -- what is left behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_classifier_is_as_it_was(without: Any, folders: dict[str, Path], subwords: Subwords) -> None:
    classifier = tiny(folders["bert"])
    expected = explain(classifier, subwords, [TEXT], max_length=64)
    classifier.train()
    classifier.backbone.eval()  # a frozen backbone under a training head
    frozen = next(classifier.backbone.parameters())
    frozen.requires_grad = False
    weights = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    held = classifier.head.output.weight  # type: ignore[union-attr]
    held.grad = torch.ones_like(held)
    random = torch.random.get_rng_state()
    with without():
        found = explain(classifier, subwords, [TEXT], max_length=64)
    assert found == expected
    assert torch.equal(random, torch.random.get_rng_state())
    assert [part.training for part in (classifier, classifier.head, classifier.backbone)] == [True, True, False]  # type: ignore[union-attr]
    for parameter in classifier.parameters():
        assert parameter.requires_grad is (parameter is not frozen)
        assert (parameter.grad is None) is (parameter is not held)
    assert torch.equal(held.grad, torch.ones_like(held))
    assert all(torch.equal(weights[name], tensor) for name, tensor in classifier.state_dict().items())
    assert not any(module._forward_hooks for module in classifier.modules())


def test_the_classifier_is_as_it_was_after_an_error(folders: dict[str, Path], subwords: Subwords) -> None:
    classifier = tiny(folders["bert"]).train()
    with pytest.raises(RuntimeError):
        explain(classifier, subwords, ["film " * 200], max_length=200)  # more than the 128 positions there are
    assert all(module.training and not module._forward_hooks for module in classifier.modules())
    assert all(parameter.requires_grad for parameter in classifier.parameters())


# -- where they stand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "  Ünïcode naïve café, 漢字です \U0001f600\u2764\ufe0f!  ",
        "हिन्दी में",
        "\ud800 half",
        "tab\tand\r\nlines",
        "½ ﬁne",
        "a" * 30,
    ],
)
def test_pieces_stand_in_order_on_the_original_text(family: str, text: str, folders: dict[str, Path]) -> None:
    classifier, subwords = tiny(folders[family]), Subwords.load(folders[family])
    found = explain(classifier, subwords, [text], max_length=128, integration=Integration(max_steps=16))[0]
    original = text.replace("\ud800", "\ufffd")
    assert found.texts == (original,)
    stop = 0
    for piece in found.pieces:
        assert stop <= piece.start < piece.end
        assert piece.text == original[piece.start : piece.end]
        assert not piece.text[0].isspace() or piece.text.isspace()
        assert not piece.is_cut
        stop = piece.end
    for words in (True, False):
        assert "".join(shown for shown, _ in found.tokens(words=words)) == original


def test_words_add_up_their_pieces(classifier: Classifier, subwords: Subwords) -> None:
    found = explain(classifier, subwords, [TEXT], max_length=64)[0]
    assert len(found.pieces) > len(found.words())  # 'unbelievably' is spelt letter by letter
    assert [word.text for word in found.words()] == (
        ["What", "a", "lovely", "surprise", ";", "we", "laughed", "unbelievably", ",", "don't", "you", "?"]
    )
    by_hand = sum(p.attribution for p in found.pieces if 34 < p.start < 48)
    word = next(word for word in found.words() if word.text == "unbelievably")
    assert word.attribution == pytest.approx(by_hand)
    assert sum(word.attribution for word in found.words()) == pytest.approx(found.total)
    assert sum(value for _, value in found.tokens()) == pytest.approx(found.total)


@pytest.mark.parametrize(
    ("text", "cuts", "words"),
    [
        ("snow-white", (0, 4, 5, 10), ["snow", "-", "white"]),
        ("don't stop", (0, 3, 4, 5, 6, 10), ["don't", "stop"]),
        ("'tis 'x'", (0, 1, 4, 5, 6, 7, 8), ["'", "tis", "'", "x", "'"]),
        ("日本語", (0, 1, 2, 3), ["日", "本", "語"]),
        ("ไทย", (0, 1, 3), ["ไ", "ทย"]),
        ("한국어", (0, 1, 3), ["한국어"]),
        ("cafe\u0301s", (0, 4, 5, 6), ["cafe\u0301s"]),
        ("हिन्दी", (0, 1, 2, 6), ["हिन्दी"]),
        ("snake_case9", (0, 5, 6, 11), ["snake_case9"]),
    ],
)
def test_what_a_word_is(text: str, cuts: tuple[int, ...], words: list[str]) -> None:
    spans = [(a, b) for a, b in pairwise(cuts) if text[a:b].strip()]
    pieces = tuple(Piece(text[a:b].lstrip(), 1.0, b - len(text[a:b].lstrip()), b) for a, b in spans)
    found = Explanation("a", None, (text,), pieces, 0.0, float(len(pieces)), 0.0, 0.0, 16)
    assert [word.text for word in found.words()] == words
    assert sum(word.attribution for word in found.words()) == len(pieces)


def test_tokens_that_share_a_character_are_one_piece() -> None:
    text = "\U0001f600!"
    three = [Piece(text[:1], 1.0, 0, 1), Piece(text[:1], 2.0, 0, 1), Piece("!", 4.0, 1, 2)]
    assert merged(three, text) == [Piece(text[:1], 3.0, 0, 1), Piece("!", 4.0, 1, 2)]
    empty_ones = [Piece("", 1.0, 0, 0), *three, Piece("", 8.0, 0, 0)]
    assert merged(empty_ones, text) == [Piece(text[:1], 4.0, 0, 1), Piece("!", 12.0, 1, 2)]


@pytest.mark.parametrize(
    ("truncate", "shown"),
    [
        ("head", "one two three four five six seven eight …"),
        ("tail", "… nine ten eleven twelve a b c d"),
        ("head_tail", "one two … eleven twelve a b c d"),
    ],
)
def test_what_was_cut_away_is_marked(truncate: str, shown: str, folders: dict[str, Path]) -> None:
    classifier, subwords = tiny(folders["bert"]), Subwords.load(folders["bert"])
    text = "the plot is bad the pace is slow and the end is worse a good film"
    numbered = "one two three four five six seven eight nine ten eleven twelve a b c d"
    renamed = dict(zip(numbered.split(), text.split(), strict=True))
    found = explain(classifier, subwords, [text], max_length=10, truncate=truncate)[0]
    expected = " ".join(renamed.get(word, word) for word in shown.split())
    assert "".join(token for token, _ in found.tokens()) == expected
    cuts = [piece for piece in found.pieces if piece.is_cut]
    assert [piece.attribution for piece in cuts] == [0.0]
    kept = "".join(piece.text for piece in found.pieces if not piece.is_cut)
    assert len(kept) + len(text[cuts[0].start : cuts[0].end].replace(" ", "")) == len(text.replace(" ", ""))
    assert found.is_exact


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_pairs_are_explained_on_both_sides(family: str, folders: dict[str, Path]) -> None:
    classifier, subwords = tiny(folders[family]), Subwords.load(folders[family])
    pairs = [("A man is playing music.", "No one is there."), ("", "film"), ("film " * 30, "A film")]
    found = explain(classifier, subwords, pairs, max_length=16)
    assert all(one.is_exact for one in found)
    assert [piece.which for piece in found[0].pieces] == sorted(piece.which for piece in found[0].pieces)
    for which in (0, 1):
        side = [piece for piece in found[0].pieces if piece.which == which]
        assert all(piece.text == pairs[0][which][piece.start : piece.end] for piece in side)
        words = [word.text for word in found[0].words() if word.which == which]
        assert " ".join(words[:-1]) + words[-1] == pairs[0][which]
    assert "".join(token for token, _ in found[0].tokens()) == " / ".join(pairs[0])
    assert {piece.which for piece in found[1].pieces} == {1}
    assert "".join(token for token, _ in found[2].tokens()).endswith("film … / A film")


# -- how it is shown ----------------------------------------------------------------------------------------------

HOSTILE = Explanation(
    label="<b>[red]good",
    against="bad",
    texts=('[bold]</p><script>alert("x")</script> fine\x1b[31m slow',),
    pieces=(
        Piece("[", 0.02, 0, 1),
        Piece("</p><script>", 1.5, 6, 18),
        Piece("fine", 0.75, 38, 42),
        Piece("slow", -3.0, 48, 52),
    ),
    value=1.25,
    total=-0.73,
    difference=-0.75,
    error_share=0.0267,
    n_steps=512,
)


def test_a_terminal_without_colours_reads_the_strongest_words() -> None:
    shown = Text.from_markup(as_markup(HOSTILE), emoji=False)
    lines = shown.plain.splitlines()
    assert lines[0] == "<b>[red]good against bad: +1.25 logits, -0.75 by the words and +2.00 without them"
    assert lines[1] == '[bold]</p><script>alert("x")</script> fine\ufffd[31m slow'
    assert lines[2] == "for <b>[red]good: </p><script> +1.50 · fine +0.75 · [ +0.02"
    assert lines[3] == "against <b>[red]good: slow -3.00"
    assert lines[4] == "logits; they sum to -0.73, 2.7% off, in 512 steps: not within 2 %, read them as rough"


@given(st.lists(st.tuples(st.text(alphabet="[]\\/ab:#", max_size=6), st.floats(-1, 1)), min_size=1, max_size=6))
def test_no_text_is_read_as_markup(stretches: list[tuple[str, float]]) -> None:
    pieces, text = [], ""
    for shown, attribution in stretches:
        pieces.append(Piece(shown, attribution, len(text), len(text) + len(shown)))
        text += shown
    found = Explanation("[b]", ":smile:", (text,), tuple(pieces), 0.0, 0.0, 0.0, 0.0, 16)
    shown = Text.from_markup(as_markup(found), emoji=False)
    assert shown.plain.splitlines()[1] == text
    assert shown.plain == "".join(plain for plain, _ in as_styled(found))


def test_a_terminal_with_colours_shows_direction_and_strength() -> None:
    shown = Text.from_markup(as_markup(HOSTILE), emoji=False)
    styles = {shown.plain[span.start : span.end]: str(span.style) for span in shown.spans}
    assert set(styles) == {"</p><script>", "fine", "slow"}  # what is faint stays plain
    assert styles["slow"] == "black on #f08a24"
    assert styles["</p><script>"] == "black on #a6cdf4"
    console = Console(force_terminal=True, color_system="truecolor", width=200)
    with console.capture() as captured:
        console.print(shown)
    assert "\x1b[30;48;2;240;138;36mslow\x1b[0m" in captured.get()
    assert "\x1b[31m" not in captured.get()


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_escaped_and_loads_nothing() -> None:
    import html5lib

    page = as_html(HOSTILE)
    html5lib.HTMLParser(strict=True).parse(page)
    read = Page()
    read.feed(page)
    tags = [tag for tag, _ in read.tags]
    assert not set(tags) & {"script", "link", "img", "b", "iframe"}
    assert not any({"src", "href"} & set(attributes) for _, attributes in read.tags)
    assert "url(" not in page
    assert '[bold]</p><script>alert("x")</script> fine\ufffd[31m slow' in read.text
    spans = [attributes for tag, attributes in read.tags if tag == "span"]
    assert [span["class"] for span in spans] == ["for", "for", "against"]
    assert [span["style"] for span in spans] == ["--s:0.50", "--s:0.25", "--s:1.00"]
    assert spans[2]["title"] == "-3.000"
    assert "prefers-color-scheme: dark" in page


def test_it_is_json(classifier: Classifier, subwords: Subwords) -> None:
    found = explain(classifier, subwords, [TEXT], max_length=64)[0]
    value = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert set(value) == {
        *("label", "against", "texts", "pieces", "words", "value", "total", "difference", "error_share", "n_steps"),
    }
    assert value["texts"] == [TEXT]
    assert value["words"][2]["text"] == "lovely"
    assert set(value["pieces"][0]) == {"text", "attribution", "start", "end", "which", "is_cut"}
    assert json.loads(json.dumps(found.tokens())) == found.tokens()
