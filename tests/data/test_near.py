"""Near duplicates: what is found is exactly what plain sets of five-character runs say, and little is missed."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from headrace.data import near, shingles
from headrace.data.examples import Examples
from headrace.data.near import Sketch, leaked_rows, near_matches, near_pairs, near_repeats, near_rows
from headrace.data.split import folded
from headrace.errors import DataError

WORDS = [
    "".join(letters)
    for letters in itertools.islice(itertools.product("bdfgklmnprstvz", "aeiou", "lmnrst", "aeiou"), 4000)
]


def rows(texts: list, source: str = "train.csv") -> Examples:
    columns: dict = {"text": pa.array([t[0] if isinstance(t, tuple) else t for t in texts], pa.string())}
    if texts and isinstance(texts[0], tuple):
        columns["pair"] = pa.array([t[1] for t in texts], pa.string())
    columns["row"] = pa.array(range(2, 2 + len(texts)), pa.int64())
    return Examples(pa.table(columns), np.arange(len(texts)), source, "f")


def texts_with_edits(n_texts: int, n_edits: int, seed: int = 0, n_words: tuple[int, int] = (10, 80)) -> list[str]:
    """Random texts, and copies of some with one word in twelve to one in a hundred replaced."""
    draw = random.Random(seed)
    found = [" ".join(draw.choices(WORDS, k=draw.randint(*n_words))) for _ in range(n_texts)]
    for text in draw.sample(found, n_edits):
        words = text.split()
        for _ in range(max(1, round(draw.uniform(0.01, 0.08) * len(words)))):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        found.append(" ".join(words))
    draw.shuffle(found)
    return found


def set_of(text: str) -> frozenset[str]:
    """The definition, in plain words."""
    text = folded(text)
    return frozenset(text[i : i + 5] for i in range(len(text) - 4)) if len(text) >= 24 else frozenset([text])


def true_pairs(a: list[str], b: list[str] | None = None, threshold: float = 0.8) -> dict[tuple[int, int], float]:
    first, second = (
        [set_of(text) for text in a],
        [set_of(text) for text in a if b is None] + [set_of(t) for t in b or []],
    )
    pairs = itertools.product(range(len(first)), range(len(second)))
    kept = ((i, j) for i, j in pairs if (b is not None or i < j) and not first[i].isdisjoint(second[j]))
    found = {(i, j): len(first[i] & second[j]) / len(first[i] | second[j]) for i, j in kept}
    return {pair: value for pair, value in found.items() if value >= threshold}


def as_dict(found: near.NearPairs) -> dict[tuple[int, int], float]:
    return dict(zip(map(tuple, found.rows.tolist()), found.jaccard.tolist(), strict=True))


def test_pairs_are_those_of_plain_sets_and_few_are_missed():
    texts = texts_with_edits(150, 120)
    truth, found = true_pairs(texts), near_pairs(rows(texts))
    assert len(truth) >= 60
    assert set(as_dict(found)) <= set(truth)
    assert len(found) >= 0.95 * len(truth)
    assert found.is_complete
    for pair, value in as_dict(found).items():
        assert value == pytest.approx(truth[pair], abs=1e-12)
    assert found.rows.tolist() == sorted(found.rows.tolist())


def test_pairs_between_two_sources_are_those_of_plain_sets():
    texts = texts_with_edits(120, 100, seed=1)
    a, b = texts[:110], texts[110:]
    truth, found = true_pairs(a, b), as_dict(near_pairs(rows(a), rows(b, "b.csv")))
    assert len(truth) >= 20
    assert set(found) <= set(truth)
    assert len(found) >= 0.95 * len(truth)
    assert near_rows(rows(a), rows(b)).tolist() == sorted({j for _, j in found})


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_another_threshold_keeps_its_recall(threshold):
    texts = texts_with_edits(80, 80, seed=2)
    truth, found = true_pairs(texts, threshold=threshold), near_pairs(rows(texts), threshold=threshold)
    assert set(as_dict(found)) <= set(truth)
    assert len(found) >= 0.95 * len(truth) > 20


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(DataError, match="must be above 0 and at most 1"):
        near_pairs(rows(["a", "b"]), threshold=threshold)


def test_equal_texts_are_not_near_and_stand_for_one():
    text = "the film is long and slow but the last half hour makes up for it"
    found = near_pairs(rows([text, text.upper(), text + "!", "x", text.replace(" ", "  ") + "! "]))
    assert found.rows.tolist() == [[0, 2]]
    assert found.jaccard[0] > 0.9
    assert near_pairs(rows([text]), rows([text.upper(), text + "!"])).rows.tolist() == [[0, 1]]
    assert near_rows(rows([text, text + "!"]), rows([text.upper(), text + "?"])).tolist() == [1]


def test_short_texts_are_like_equal_ones_only():
    assert len(near_pairs(rows(["order number 1", "order number 2", "order number 1.", "", " ", "?"]))) == 0
    just_long, one_off = "order number 12345678 ab", "order number 12345678 ac"
    assert len(just_long) == shingles.MIN_CHARACTERS
    assert near_pairs(rows([just_long, one_off])).rows.tolist() == [[0, 1]]
    assert len(near_pairs(rows([just_long[:-1], one_off[:-1] + "d"]))) == 0


def test_case_space_and_unicode_form_are_folded_before_comparing():
    one = "Das Café an der Straße hat heute wieder bis spät in die Nacht geöffnet."
    other = "DAS CAFE\u0301 an der  STRASSE hat heute wieder bis spät in die Nacht geöffnet!"
    found = near_pairs(
        rows(
            [
                one,
                other,
                "本日は晴天なので公園まで散歩に行ってからゆっくり昼食をとることにしました",
                "本日は晴天なので公園まで散歩に行ってからゆっくり昼食をとることにします",
            ]
        )
    )
    assert found.rows.tolist() == [[0, 1], [2, 3]]


def test_both_texts_of_a_pair_must_be_near():
    premise = "A man in a blue shirt is standing on a ladder and cleans the windows of a large house in the city."
    pairs = [
        (premise, "A man is cleaning windows of the house."),
        (premise, "Nobody has cleaned anything for a year."),
        (premise.replace("city", "town"), "A man is cleaning windows of the house"),
        ("A man is cleaning windows of the house.", premise),
    ]
    assert near_pairs(rows(pairs)).rows.tolist() == [[0, 2]]
    assert near_rows(rows(pairs[:1]), rows(pairs[1:], "test.csv")).tolist() == [1]
    # one text is the same and most of the pair, the other has nothing in common: proposed, and refused
    short, other = "A man cleans the windows.", "Nobody is at home, I fear"
    assert len(near_pairs(rows([(premise * 2, short), (premise * 2, other)]), threshold=0.5)) == 0
    assert len(near_pairs(rows([(short, premise * 2), (other, premise * 2)]), threshold=0.5)) == 0


def test_leaked_rows_are_exact_or_near_and_repeated_ones_count():
    text, other = "the first of two reviews that are long enough", "another review, about nothing that was told so far"
    train = rows([text, other])
    test = rows(
        [text.upper(), text + "!", "new and unlike the rest of them", text + "!", other[:-1] + "?", "x"], "test.csv"
    )
    exact, near_ones = leaked_rows(train, test)
    assert (exact.tolist(), near_ones.tolist()) == ([0], [1, 3, 4])
    assert exact.dtype == near_ones.dtype == np.int64
    assert near_rows(train, test).tolist() == [1, 3, 4]


def test_no_rows_have_no_pairs():
    some, none = rows(["a text of more than five and twenty letters"]), rows([])
    for pair in ((none, None), (some, none), (none, some), (some, None)):
        assert near_pairs(*pair).rows.shape == (0, 2)
    assert [part.tolist() for part in leaked_rows(none, some)] == [[], []]
    assert near_rows(some, none).tolist() == []


def test_positions_are_those_of_the_view():
    texts = ["the same long sentence about a journey to the sea", "nothing like it at all, whatever one may say"]
    whole = rows([texts[1], texts[0], texts[1] + "!", texts[0] + "!"])
    assert near_pairs(whole.take([3, 0, 1])).rows.tolist() == [[0, 2]]


def test_the_answer_does_not_depend_on_how_many_texts_are_held_at_a_time(monkeypatch):
    texts = texts_with_edits(80, 60, seed=3)
    once = as_dict(near_pairs(rows(texts)))
    monkeypatch.setattr(shingles, "_GROUP_CHARACTERS", 700)
    monkeypatch.setattr(shingles, "_ROWS_READ", 7)
    monkeypatch.setattr(near, "_BLOCK_SHINGLES", 900)
    monkeypatch.setattr(near, "_BLOCK_PAIRS", 3)
    assert as_dict(near_pairs(rows(texts))) == once
    for _, columns in shingles.in_groups(rows(texts), np.arange(len(texts))):
        assert len(columns[0]) == 1 or sum(map(len, columns[0])) <= 700 + max(map(len, columns[0]))


def test_each_row_is_told_once_beside_an_earlier_one():
    draw = random.Random(5)
    form = "your parcel number {} was handed to our driver this morning and will be with you before the evening"
    texts = [form.format(number) for number in draw.sample(range(1000, 9999), 120)]
    with Sketch(rows(texts)) as sketch:
        found = near_repeats(sketch)
    assert found.rows[:, 0].tolist() == list(range(1, 120))
    assert (found.rows[:, 1] < found.rows[:, 0]).all()
    every = near_pairs(rows(texts))
    assert not every.is_complete  # more than 64 texts of one form
    assert len(every) > 120


def test_parts_of_a_sketch_are_compared_as_sketches_of_their_own():
    texts = texts_with_edits(100, 80, seed=4)
    whole = rows([*texts, *texts[:20]])
    is_in = np.random.default_rng(0).random(len(texts)) < 0.3
    is_in = np.concatenate((is_in, is_in[:20]))  # equal texts on one side
    inside, outside = np.flatnonzero(is_in), np.flatnonzero(~is_in)
    with Sketch(whole) as sketch, Sketch(whole.take(inside)) as a, Sketch(whole.take(outside)) as b:
        found, expected = near_matches(sketch.part(~is_in), sketch.part(is_in)), near_matches(b, a)
    assert len(expected) > 5
    assert found.rows[:, 0].tolist() == inside[expected.rows[:, 0]].tolist()
    assert found.rows[:, 1].tolist() == outside[expected.rows[:, 1]].tolist()
    assert found.jaccard.tolist() == expected.jaccard.tolist()


def test_a_search_that_is_too_long_stops_and_says_so():
    texts = [
        f"the {word} stands on the table in the kitchen of my grandmother since last summer" for word in WORDS[:200]
    ]
    with Sketch(rows(texts)) as sketch, Sketch(rows([text + "!" for text in texts])) as other:
        some, all_of_them = near_repeats(sketch, max_shingles=30_000), near_repeats(sketch)
        assert not some.is_complete
        assert 0 < len(some) < len(all_of_them) == 199
        assert all_of_them.is_complete
        assert not near_matches(sketch, other, max_shingles=30_000).is_complete


def test_shingles_of_several_texts_are_those_of_each():
    texts = ["the quick brown fox jumps over it", "", "short", "ein anderer Text mit Umlauten: äöü 😀 😀"]
    together = shingles.shingles(texts)
    assert np.diff(together.offsets).tolist() == [len(texts[0]) - 4, 1, 1, len(texts[3]) - 4]
    for number, text in enumerate(texts):
        own = together.numbers[together.offsets[number] : together.offsets[number + 1]]
        assert own.tolist() == shingles.shingles([text]).numbers.tolist()
    assert (
        len(np.unique(together.numbers))
        == len({text[i : i + 5] for text in (texts[0], texts[3]) for i in range(len(text) - 4)}) + 2
    )


@pytest.mark.slow
def test_the_real_duplicates_are_found(real_data, tmp_path):
    from headrace.data.read import Columns, read

    columns = Columns(text=("text",), label=("label",))
    train, test = (read(real_data / "imdb" / f"{n}.jsonl.gz", columns, cache=tmp_path) for n in ("train", "test"))
    exact, near_ones = leaked_rows(train, test)
    assert len({folded(test.texts(row, row + 1)[0]) for row in exact.tolist()}) == 123
    assert near_ones.tolist() == [22815, 24066]
