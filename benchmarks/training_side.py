"""One side of `training.py`: trains on the texts of a window when it is asked, and says how long that took.

Every side gets the same rows, tokens and initial weights. Both clocks run from the first batch that is asked for to the
last updated weights: loading, tokenizing, validation and saving lie outside.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from headrace.matmul import DEFAULT, fastest_route, routed
from headrace.recipe import load_recipe
from headrace.recipe.schema import RecipeValues
from headrace.train.fit import data_plan
from headrace.train.memory import MemoryGiver, peak_resident_bytes
from headrace.train.prepare import Part, Prepared, prepare
from headrace.train.session import untrained
from headrace.train.stages import Stage
from headrace.train.touched import touched_rows
from headrace.train.trainer import build_trainer, quiet_lightning

Seconds = tuple[float, float]


class Clock:
    """Seconds and processor seconds between two marks."""

    def __init__(self) -> None:
        self.begun = self.taken = (0.0, 0.0)

    def start(self) -> None:
        """Begin to count."""
        self.begun = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Keep what has passed since the start."""
        self.taken = (time.perf_counter() - self.begun[0], time.process_time() - self.begun[1])


class LightningClock(lightning.Callback):
    """Starts and stops a clock with Lightning's training."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.losses = clock, []

    def on_train_start(self, *_: Any) -> None:
        """Begin to count."""
        self.clock.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, *_: Any) -> None:
        """Stop."""
        self.clock.stop()


class HuggingFaceClock(TrainerCallback):
    """Starts and stops a clock with the Trainer's training."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin to count."""
        self.clock.start()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.clock.stop()


class Rows(Dataset[dict[str, Any]]):
    """The rows of a part as the peers take them."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = self.part.ids(row).astype(np.int64).tolist()
        first = self.part.first_length(row)
        types = [0] * first + [1] * (len(ids) - first)
        return {"input_ids": ids, "token_type_ids": types, "labels": self.part.targets[row]}


class Side:
    """What the parent asks: `window(values)` trains on one window and returns its mean loss; `clock` has its time."""

    def __init__(self, values: RecipeValues, prepared: Prepared, precision: str) -> None:
        self.clock, self.precision = Clock(), precision
        self.padding = prepared.padding
        if precision == "bf16" and torch.cuda.is_available():
            raise SystemExit("the sides are for a CPU")

    def window(self, values: RecipeValues, prepared: Prepared) -> float:
        """Train on a window."""
        raise NotImplementedError


class Headrace(Side):
    """Headrace as `fit` trains, with the family's own head: the peers' model."""

    def __init__(self, values: RecipeValues, prepared: Prepared, precision: str) -> None:
        super().__init__(values, prepared, precision)
        self.module = untrained(values, prepared).module

    def window(self, values: RecipeValues, prepared: Prepared) -> float:
        """Train on a window."""
        data, kept = untrained(values, prepared).data(), LightningClock(self.clock)
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(
                Path(folder),
                {"accelerator": "cpu", "limit_val_batches": 0},
                epochs=1,
                precision=self.precision,
                callbacks=[kept, MemoryGiver()],
                loggers=[],
                profiler=None,
                plugins=[],
            )
            self.module.model.backbone.train_on_cpu()
            data.packs = self.module.model.backbone.packs
            self.module.enter(Stage.of(values.fit.phases[0]))
            data.trainer = trainer
            route = fastest_route() if self.precision == "fp32" else DEFAULT
            with touched_rows(self.module.model), routed(route):
                trainer.fit(self.module, datamodule=data)
        return float(np.mean(kept.losses))


class Peer(Side):
    """A model of transformers with the family's own head."""

    def __init__(self, values: RecipeValues, prepared: Prepared, precision: str, **settings: Any) -> None:
        super().__init__(values, prepared, precision)
        from headrace.backbones.transformer import resolve

        place = str(resolve(values.backbone.name))
        kind = "multi_label_classification" if values.task == "multi_label" else "single_label_classification"
        torch.manual_seed(values.seed)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            place, num_labels=len(prepared.labels), problem_type=kind, **settings
        )
        self.tokenizer = AutoTokenizer.from_pretrained(place)

    def collator(self, max_length: int | None = None) -> Any:
        """Pad to the longest of the batch, or to a length."""
        padding = "longest" if max_length is None else "max_length"
        return DataCollatorWithPadding(self.tokenizer, padding=padding, max_length=max_length)


class HuggingFaceTrainer(Peer):
    """transformers' Trainer: `padded` to max_length, as the examples do by default, `dynamic` or `grouped` by length."""

    def __init__(self, values: RecipeValues, prepared: Prepared, precision: str, *, way: str) -> None:
        super().__init__(values, prepared, precision)
        self.way = way

    def window(self, values: RecipeValues, prepared: Prepared) -> float:
        """Train on a window."""
        fit = values.fit
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=fit.batch_size,
                learning_rate=fit.learning_rate,
                weight_decay=fit.weight_decay,
                warmup_steps=float(fit.warmup),
                lr_scheduler_type="linear",
                train_sampling_strategy="group_by_length" if self.way == "grouped" else "random",
                bf16=self.precision == "bf16",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                use_cpu=True,
                seed=values.seed,
                disable_tqdm=True,
            )
            trainer = Trainer(
                model=self.model,
                args=arguments,
                train_dataset=Rows(prepared.train),
                data_collator=self.collator(values.data.max_length if self.way == "padded" else None),
                callbacks=[HuggingFaceClock(self.clock)],
            )
            return float(trainer.train().training_loss)


class PlainLightning(Peer):
    """A LightningModule as tutorials write it: dynamic padding, AdamW, a linear schedule."""

    def window(self, values: RecipeValues, prepared: Prepared) -> float:
        """Train on a window."""
        kept = LightningClock(self.clock)
        quiet_lightning()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            precision="bf16-mixed" if self.precision == "bf16" else "32-true",
            gradient_clip_val=1.0,
            callbacks=[kept],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(
            Rows(prepared.train), batch_size=values.fit.batch_size, shuffle=True, collate_fn=self.collator()
        )
        trainer.fit(_TutorialModule(self.model, values, len(loader)), loader)
        return float(np.mean(kept.losses))


class _TutorialModule(lightning.LightningModule):
    def __init__(self, model: Any, values: RecipeValues, n_steps: int) -> None:
        super().__init__()
        self.model, self.values, self.n_steps = model, values, n_steps

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.model(**batch).loss

    def configure_optimizers(self) -> Any:
        fit = self.values.fit
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
        n_warmup = int(self.n_steps * float(fit.warmup))
        schedule = get_linear_schedule_with_warmup(optimizer, n_warmup, self.n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Expert(Peer):
    """What an expert writes by hand: batches of like length, autocast, no dropout on attention weights, fused AdamW."""

    def __init__(self, values: RecipeValues, prepared: Prepared, precision: str) -> None:
        super().__init__(values, prepared, precision, **_no_attention_dropout(values))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=values.fit.learning_rate, weight_decay=values.fit.weight_decay, fused=True
        )

    def window(self, values: RecipeValues, prepared: Prepared) -> float:
        """Train on a window."""
        part, size = prepared.train, values.fit.batch_size
        rows, collate, order = Rows(part), self.collator(), np.argsort(part.lengths, kind="stable")
        batches = [order[start : start + size] for start in range(0, len(part), size)]
        np.random.default_rng(values.seed).shuffle(batches)  # type: ignore[arg-type]  # a list of arrays
        n_warmup = int(len(batches) * float(values.fit.warmup))
        schedule = get_linear_schedule_with_warmup(self.optimizer, n_warmup, len(batches))
        losses = []
        self.model.train()
        self.clock.start()
        for chosen in batches:
            batch = collate([rows[int(row)] for row in chosen])
            with torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext():
                loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            schedule.step()
            self.optimizer.zero_grad()
            losses.append(float(loss.detach()))
        self.clock.stop()
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = values.fit.learning_rate
        return float(np.mean(losses))


def _no_attention_dropout(values: RecipeValues) -> dict[str, float]:
    from transformers import AutoConfig

    from headrace.backbones.transformer import resolve

    config = AutoConfig.from_pretrained(str(resolve(values.backbone.name)))
    names = ("attention_probs_dropout_prob", "attention_dropout")
    return {name: 0.0 for name in names if hasattr(config, name)}


def training_flops(values: RecipeValues, lengths: Any) -> float:
    """Return the floating-point operations of the matrix products that training on texts of these lengths needs.

    Real tokens only, and of the last layer the first token alone but for its keys and values; an addition and a
    multiplication are two, and the gradients are twice the way forward.
    """
    from transformers import AutoConfig

    from headrace.backbones.transformer import resolve

    config = AutoConfig.from_pretrained(str(resolve(values.backbone.name)))
    width, n_layers = config.hidden_size, config.num_hidden_layers
    between = getattr(config, "intermediate_size", None) or config.hidden_dim
    n_tokens, n_pairs, n_texts = (
        float(np.sum(lengths)),
        float(np.sum(np.square(lengths.astype(np.float64)))),
        len(lengths),
    )
    of_token = 2 * (4 * width * width + 2 * width * between)
    whole = n_tokens * of_token + 4 * n_pairs * width
    last = (
        n_tokens * 2 * 2 * width * width
        + n_texts * 2 * (2 * width * width + 2 * width * between)
        + 4 * n_tokens * width
    )
    return 3 * ((n_layers - 1) * whole + last)


SIDES: dict[str, Callable[[RecipeValues, Prepared, str], Side]] = {
    "headrace": Headrace,
    "trainer_padded": lambda *given: HuggingFaceTrainer(*given, way="padded"),
    "trainer": lambda *given: HuggingFaceTrainer(*given, way="dynamic"),
    "trainer_grouped": lambda *given: HuggingFaceTrainer(*given, way="grouped"),
    "lightning": PlainLightning,
    "expert": Expert,
}


def main() -> None:
    """Answer the parent: first that it is ready, then each window."""
    side_name, precision, base, *overrides = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def rows_of(train: str) -> tuple[RecipeValues, Prepared]:
        values = load_recipe(base, overrides=[*overrides, f"data.train={train}"]).values
        return values, prepare(data_plan(values))

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    first = json.loads(os.environ["HEADRACE_FIRST_WINDOW"])
    side = SIDES[side_name](*rows_of(first), precision)
    answer({"torch": torch.__version__})
    for line in sys.stdin:
        values, prepared = rows_of(json.loads(line)["train"])
        # A trainer and its optimizer's state lie in cycles, on every side: left there, the peak would be of two windows.
        gc.collect()
        loss = side.window(values, prepared)
        wall_s, cpu_s = side.clock.taken
        n_tokens = int(np.sum(prepared.train.lengths))
        answer(
            {
                "wall_s": wall_s,
                "cpu_s": cpu_s,
                "texts": len(prepared.train),
                "tokens": n_tokens,
                "flops": training_flops(values, prepared.train.lengths),
                "loss": loss,
                "peak_bytes": peak_resident_bytes(),
            }
        )


if __name__ == "__main__":
    main()
