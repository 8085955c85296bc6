"""The token store: computed once, memory-mapped, never used when stale or half written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from headrace.data.examples import Examples
from headrace.errors import RecipeError, RunError
from headrace.files import TEMPORARY_PREFIX
from headrace.text import store as store_module
from headrace.text.store import TokenStore, open_store, store_key, tokenize
from headrace.text.subwords import Subwords

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["the", "film", "was", "good", "bad", "very"]]


def subwords(n_words: int = len(WORDS)) -> Subwords:
    words = {word: index for index, word in enumerate([*WORDS, *(f"w{n}" for n in range(n_words - len(WORDS)))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    settings = {"pad_id": 0, "unk_id": 1, "mask_id": None, "uses_token_types": True, "model_max_length": None}
    return Subwords(tokenizer, settings)


def examples(texts: list[str], pairs: list[str] | None = None, fingerprint: str = "f") -> Examples:
    columns = {"text": pa.array(texts, pa.string()), "row": pa.array(range(2, len(texts) + 2), pa.int64())}
    if pairs is not None:
        columns["pair"] = pa.array(pairs, pa.string())
    return Examples(pa.table(columns), np.arange(len(texts)), "texts.csv", fingerprint)


TEXTS = ["the film was good", "", "bad", "very very very bad zebra film", "the film"]


def made(cache: Path, texts: list[str] = TEXTS, **more: object) -> TokenStore:
    return tokenize(examples(texts), subwords(), cache=cache, **{"max_length": 5, "truncate": "head", **more})  # type: ignore[arg-type]


def folder_of(cache: Path) -> Path:
    (folder,) = (cache / "tokens").iterdir()
    return folder


def test_each_row_holds_what_encode_gives(tmp_path: Path) -> None:
    found = made(tmp_path)
    expected = subwords().encode(TEXTS, max_length=5, truncate="head")
    assert [found.ids(row).tolist() for row in range(len(found))] == [one.ids.tolist() for one in expected]
    assert found.lengths.tolist() == [5, 2, 3, 5, 4]
    assert found.lengths.dtype == np.int32
    assert found.full_lengths.tolist() == [6, 2, 3, 8, 4]
    assert found.n_unknown.tolist() == [0, 0, 0, 0, 0]
    assert (found.n_rows, found.n_tokens, found.n_cut, found.cut_share) == (5, 19, 2, 0.4)
    assert made(tmp_path, max_length=8).n_unknown.tolist() == [0, 0, 0, 1, 0]


def test_pairs_keep_the_border_between_their_texts(tmp_path: Path) -> None:
    data = examples(["the film", ""], ["very bad", "good"])
    found = tokenize(data, subwords(), max_length=9, truncate="tail", cache=tmp_path)
    assert [found.ids(row).tolist() for row in (0, 1)] == [[2, 4, 5, 3, 9, 8, 3], [2, 3, 7, 3]]
    assert [found.first_length(row) for row in (0, 1)] == [4, 2]


def test_rows_of_the_store_are_the_rows_of_the_view(tmp_path: Path) -> None:
    data = examples(TEXTS).take([4, 2, 0])
    found = tokenize(data, subwords(), max_length=9, truncate="head", cache=tmp_path)
    whole = made(tmp_path, max_length=9)
    assert [found.ids(row).tolist() for row in range(3)] == [whole.ids(row).tolist() for row in (4, 2, 0)]


def test_many_batches_over_many_chunks_give_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"the film {'very ' * (n % 5)} good" for n in range(200)]
    monkeypatch.setattr(store_module, "BATCH_TEXTS", 7)
    chunks = [examples(texts[start : start + 13]).table for start in range(0, 200, 13)]
    rows = np.random.default_rng(0).permutation(200)[:150]
    data = Examples(pa.concat_tables(chunks), rows, "texts.csv", "f")
    seen: list[tuple[int, int]] = []
    found = tokenize(
        data, subwords(), max_length=7, truncate="head_tail", cache=tmp_path, progress=lambda *done: seen.append(done)
    )
    expected = subwords().encode([texts[row] for row in rows], max_length=7, truncate="head_tail")
    assert [found.ids(row).tolist() for row in range(150)] == [one.ids.tolist() for one in expected]
    assert seen[0] == (7, 150)
    assert seen[-1] == (150, 150)


def test_ids_take_two_bytes_where_the_vocabulary_allows_it(tmp_path: Path) -> None:
    for n_words, dtype in ((1 << 16, "uint16"), ((1 << 16) + 1, "int32")):
        one = subwords(n_words)
        last = n_words - len(WORDS) - 1
        found = tokenize(examples([f"w{last}"]), one, max_length=5, truncate="head", cache=tmp_path)
        assert found.flat_ids.dtype == dtype
        assert found.ids(0).tolist() == [2, n_words - 1, 3]


def test_a_second_run_reads_what_the_first_one_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path)
    monkeypatch.setattr(store_module, "_write", None)  # a second writing would fail
    calls: list[int] = []
    second = made(tmp_path, progress=lambda done, _: calls.append(done))
    assert second.flat_ids.tolist() == first.flat_ids.tolist()
    assert calls == []


def test_anything_that_changes_the_tokens_changes_the_key() -> None:
    one, data = subwords(), examples(TEXTS)
    keys = [
        store_key(data, one, max_length=5, truncate="head"),
        store_key(data, one, max_length=6, truncate="head"),
        store_key(data, one, max_length=5, truncate="tail"),
        store_key(data, subwords(20), max_length=5, truncate="head"),
        store_key(data.take([1, 0, 2, 3, 4]), one, max_length=5, truncate="head"),
        store_key(examples(TEXTS, fingerprint="g"), one, max_length=5, truncate="head"),
    ]
    assert len(set(keys)) == 6
    assert store_key(examples(TEXTS), subwords(), max_length=5, truncate="head") == keys[0]


def cut_short(folder: Path) -> None:
    path = folder / "ids.bin"
    path.write_bytes(path.read_bytes()[:-2])


def remove(name: str):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / name).unlink()


def change_head(**values: object):  # type: ignore[no-untyped-def]
    def change(folder: Path) -> None:
        path = folder / "store.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def zero_offsets(folder: Path) -> None:
    path = folder / "offsets.bin"
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "the sizes of its files"),
        (remove("ids.bin"), "lacks ids.bin"),
        (remove("n_unknown.bin"), "lacks n_unknown.bin"),
        (remove("store.json"), "lacks store.json"),
        (lambda folder: (folder / "store.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "store.json").write_text("[]"), "is damaged"),
        (change_head(format=0), "is damaged"),
        (change_head(n_rows=4), "does not hold"),
        (change_head(n_tokens=18), "does not hold"),
        (change_head(dtype="float99"), "is damaged"),
        (zero_offsets, "its offsets do not fit"),
    ],
)
def test_a_damaged_store_is_computed_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage, reason: str
) -> None:  # type: ignore[no-untyped-def]
    expected = made(tmp_path).flat_ids.tolist()
    damage(folder_of(tmp_path))
    assert open_store(folder_of(tmp_path)) is None
    assert reason in caplog.text
    assert "computed anew" in caplog.text
    assert made(tmp_path).flat_ids.tolist() == expected
    assert open_store(folder_of(tmp_path)) is not None


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_rows_and_no_text_are_stores_too(tmp_path: Path, texts: list[str]) -> None:
    for _ in range(2):
        found = made(tmp_path, texts)
        assert found.lengths.tolist() == [2] * len(texts)
        assert found.cut_share == 0.0


def test_a_store_in_memory_is_like_one_on_disk(tmp_path: Path) -> None:
    on_disk = made(tmp_path)
    in_memory = TokenStore.of(subwords().encode(TEXTS, max_length=5, truncate="head"))
    for name in ("flat_ids", "offsets", "first_lengths", "full_lengths", "n_unknown", "lengths"):
        assert getattr(in_memory, name).tolist() == getattr(on_disk, name).tolist()
    assert TokenStore.of([]).n_rows == 0


def test_a_max_length_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="max_length 2 leaves no room for text"):
        made(tmp_path, max_length=2)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_cache_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file where a folder should be")
    with pytest.raises(RunError) as caught:
        made(tmp_path)
    assert caught.value.what.startswith("cannot write ")
    assert str(tmp_path / "tokens") in str(caught.value.where)


def test_a_fault_in_the_middle_leaves_no_store(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, progress=stop)
    assert list((tmp_path / "tokens").iterdir()) == []


def test_two_processes_may_write_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store_module._write

    def write_while_another_finishes(*arguments, **named) -> None:  # type: ignore[no-untyped-def]
        write(*arguments, **named)
        monkeypatch.setattr(store_module, "_write", write)
        made(tmp_path)
        raise OSError("the folder was there already")

    monkeypatch.setattr(store_module, "_write", write_while_another_finishes)
    assert made(tmp_path).n_rows == 5
    assert open_store(folder_of(tmp_path)) is not None


CHILD = """
import sys, time
sys.path.insert(0, {here!r})
import importlib.util
spec = importlib.util.spec_from_file_location("made", {file!r})
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
made.store_module.BATCH_TEXTS = 10
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.02)
from pathlib import Path
made.made(Path(sys.argv[1]), made.many(), progress=slowly if len(sys.argv) > 2 else None)
"""


def many() -> list[str]:
    return [f"the film was {'very ' * (n % 4)} good" for n in range(1000)]


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_a_run_killed_in_the_middle_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    code = CHILD.format(here=str(Path(__file__).parent), file=__file__)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "slow"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 300:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "tokens").iterdir()
    assert left.name.startswith(TEMPORARY_PREFIX)
    assert (left / "offsets.bin").exists()

    again = made(tmp_path, many())

    undisturbed = made(tmp_path / "other", many())
    assert again.flat_ids.tolist() == undisturbed.flat_ids.tolist()
    assert again.n_rows == 1000
    assert [path.name.startswith(TEMPORARY_PREFIX) for path in (tmp_path / "tokens").iterdir()] == [False]


def test_opening_25_000_rows_takes_milliseconds(tmp_path: Path) -> None:
    made(tmp_path, ["the film was good"] * 25_000)
    folder = folder_of(tmp_path)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        found = open_store(folder)
        times.append(time.perf_counter() - begin)
    assert found is not None
    assert found.n_rows == 25_000
    assert min(times) < 0.02


MEMORY = """
import resource, sys
import importlib.util
spec = importlib.util.spec_from_file_location("made", {file!r})
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
from pathlib import Path
import numpy as np, pyarrow as pa
n = int(sys.argv[2])
# one chunk, taken again and again: only the number of rows grows
table = pa.table({{"text": pa.array(["the film was very very good"] * 1000)}})
data = made.Examples(table, np.arange(n) % 1000, "texts", str(n))
made.tokenize(data, made.subwords(), max_length=16, truncate="head", cache=Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "getrusage"), reason="this system does not tell the peak memory")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    code = MEMORY.format(file=__file__)
    peaks = []
    for n_rows in (20_000, 200_000):
        command = [sys.executable, "-c", code, str(tmp_path), str(n_rows)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.2 * peaks[0]
