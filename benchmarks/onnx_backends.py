"""ONNX Runtime, fp32 and dynamic int8, beside Headrace's own prediction: texts a second, single texts, labels.

    pip install onnx onnxruntime onnxscript
    HEADRACE_DATA=DATA python benchmarks/onnx_backends.py imdb|toxic [--rounds 5] [--texts 512] [--bundle BUNDLE]

A MiniLM with the family's own head, fine-tuned for a minute on the shipped reviews (or `--bundle`, whose head the export
to transformers must know), predicts real texts. All sides get the same tokens from Headrace's tokenizer, sorted by
length; ONNX Runtime gets the batches padded to their longest text, in the size that suits it best of three, which is
tried on the first texts. A round is one pass over the same texts by each side in turn, then single texts:

    headrace       `headrace.predict.score`, fp32
    headrace_bf16  the same in bf16, where the processor has it, of the twin that `Bundle.predict` takes
    onnx_fp32      the model that `export --to transformers` writes, exported by torch
    onnx_int8      the same after `quantize_dynamic`, weights by channel

One line goes to benchmarks/results/onnx_backends.jsonl. It tells on how many texts the labels are those of fp32, which
is what a speed by int8 has to be weighed against.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from predicting import COLUMNS, LENGTHS, small_bundle, timed
from record import append, facts
from training import read_rows

N_SINGLE = 40
# The threads of both libraries look for more work for a while, and take the cores of the side that is next.
REST_S = 0.2
MAX_TOKENS = (1024, 4096, 16_384)
MAX_TEXTS = 256


def exported(folder: Path, path: Path) -> None:
    """Write the ONNX model of a transformers folder: token ids and mask in, logits out, any number of both."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(str(folder), attn_implementation="sdpa").eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    mask = torch.ones(3, 17, dtype=torch.long)
    mask[1, 9:] = 0
    sizes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=512)}
    torch.onnx.export(
        Logits(),
        (torch.randint(1000, 2000, (3, 17)), mask),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
        dynamo=True,
        external_data=False,
    )


class Runtime:
    """An ONNX model that scores tokens as `headrace.predict.score` does.

    Args:
        path: The model.
        threads: It may use.
        pad_id: The tokenizer's padding id.
    """

    def __init__(self, path: Path, threads: int, pad_id: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.pad_id = pad_id
        self.max_tokens = MAX_TOKENS[1]

    def score(self, texts: Any) -> np.ndarray:
        """Return logits, [texts, labels], in input order."""
        from headrace.text.batch import batches_by_length, collate

        found: np.ndarray | None = None
        for rows in batches_by_length(texts.lengths, max_tokens=self.max_tokens, max_texts=MAX_TEXTS):
            batch = collate(texts, rows, None, pad_id=self.pad_id, uses_token_types=False)
            given = {"input_ids": batch.input_ids.numpy(), "attention_mask": batch.attention_mask.numpy()}
            logits = self.session.run(None, given)[0]
            if found is None:
                found = np.empty((len(texts.lengths), logits.shape[1]), dtype=np.float32)
            found[rows] = logits
        assert found is not None
        return found

    def choose(self, texts: Any) -> None:
        """Take the size of a batch that is the fastest on these texts."""
        seconds = {}
        for size in MAX_TOKENS:
            self.max_tokens = size
            self.score(texts)
            seconds[size] = timed(lambda: self.score(texts))[0]
        self.max_tokens = min(seconds, key=lambda size: seconds[size])


def main() -> None:
    """Measure and add a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(LENGTHS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()
    try:
        import onnx
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed: pip install onnx onnxruntime onnxscript") from error
    import torch

    from headrace.bundle import Bundle
    from headrace.export import to_transformers
    from headrace.pages import keep_pages
    from headrace.predict import Narrowed, score

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ.setdefault("HEADRACE_CACHE", str(scratch / "cache"))
        length = LENGTHS[options.data]
        rows = read_rows(options.data, scratch)[1]
        given = [row[COLUMNS[options.data]] for row in random.Random(options.seed).sample(rows, options.texts)]
        bundle = Bundle.load(options.bundle or small_bundle(scratch / "run", length))
        to_transformers(bundle, scratch / "exported")
        exported(scratch / "exported", scratch / "fp32.onnx")
        model = onnx.load(str(scratch / "fp32.onnx"))
        del model.graph.value_info[:]  # the exporter's shapes contradict those that the quantizer infers anew
        quantize_dynamic(model, scratch / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)

        def tokens(texts: list[str]) -> Any:
            return bundle.subwords.encode(texts, max_length=length, truncate="head")

        from headrace.text.store import TokenStore

        keep_pages()  # as `headrace predict` does, for all sides
        pad_id, threads = bundle.subwords.pad_id, torch.get_num_threads()
        how, twin = {"pad_id": pad_id, "uses_token_types": False}, Narrowed()
        has_bf16 = "bf16" in facts()["cpu"]
        runtimes = {kind: Runtime(scratch / f"{kind}.onnx", threads, pad_id) for kind in ("fp32", "int8")}
        store, first = TokenStore.of(tokens(given)), TokenStore.of(tokens(given[:64]))
        for runtime in runtimes.values():
            runtime.choose(first)
        sides: dict[str, Callable[[Any], np.ndarray]] = {
            "headrace": lambda texts: score(bundle.classifier, texts, **how),
            **(
                {"headrace_bf16": lambda texts: score(twin.of(bundle.classifier), texts, **how, precision="bf16")}
                if has_bf16
                else {}
            ),
            "onnx_fp32": runtimes["fp32"].score,
            "onnx_int8": runtimes["int8"].score,
        }
        rates: dict[str, list[float]] = {side: [] for side in sides}
        singles: dict[str, list[float]] = {side: [] for side in sides}
        logits: dict[str, np.ndarray] = {}
        for side in sides:
            sides[side](first)  # warm
        for number in range(options.rounds):
            for side, predict in sides.items():
                seconds, logits[side] = timed(lambda predict=predict: predict(store))
                rates[side].append(len(given) / seconds)
            ones = [TokenStore.of(tokens([text])) for text in given[number * N_SINGLE :][:N_SINGLE]]
            for side, predict in sides.items():
                time.sleep(REST_S)
                predict(ones[0])
                singles[side] += [timed(lambda predict=predict, one=one: predict(one))[0] for one in ones]
            print({side: round(values[-1], 2) for side, values in rates.items()}, flush=True)
        answers = {side: found.argmax(axis=1) for side, found in logits.items()}
        record = {
            "data": options.data,
            "length": length,
            "texts": len(given),
            "threads": threads,
            "onnxruntime": onnxruntime.__version__,
            "texts_per_s": rates,
            "times_as_fast": {
                side: statistics.median(b / a for a, b in zip(rates["headrace"], values, strict=True))
                for side, values in rates.items()
            },
            "single_p50_ms": {side: 1000 * statistics.median(values) for side, values in singles.items()},
            "batch_tokens": {f"onnx_{kind}": runtime.max_tokens for kind, runtime in runtimes.items()},
            "megabytes": {f"onnx_{kind}": (scratch / f"{kind}.onnx").stat().st_size / 1e6 for kind in runtimes},
            "same_labels": {side: float(np.mean(found == answers["headrace"])) for side, found in answers.items()},
            "largest_difference": {
                side: float(np.abs(found - logits["headrace"]).max()) for side, found in logits.items()
            },
        }
        append("onnx_backends", {**record, **facts()})
        print({name: record[name] for name in ("times_as_fast", "single_p50_ms", "same_labels", "largest_difference")})


if __name__ == "__main__":
    main()
