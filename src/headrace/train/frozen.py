"""What frozen groups of a transformer give for each text: computed once before a stage, kept on disk, read ever after.

Groups that do not learn compute as in evaluation, so that their outputs for a text stay the same through a stage. Of a
stage that trains the head alone, what the head gets is kept, a vector a text; of one that trains the top layers, the
hidden states that the lowest of them gets. One pass may serve several stages. Whether outputs are kept follows from the
recipe and is written down beside the checkpoints: a run that goes on does what it did before, in the same bits.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from headrace.bundle.about import versions
from headrace.errors import RunError
from headrace.files import atomic_folder, remove_leftovers, write_json
from headrace.model import Classifier
from headrace.predict import MAX_TOKENS, MAX_TOKENS_CPU
from headrace.report.words import size
from headrace.text.batch import batches_by_length
from headrace.train.data import VALID_BATCH_TEXTS, make_batch
from headrace.train.frozen_store import (
    FORMAT,
    Form,
    KeptRows,
    RowWriter,
    finish_entry,
    make_room,
    open_entry,
    room_bytes,
)
from headrace.train.prepare import Part, Prepared
from headrace.train.stages import Stage, n_learning

RECORD = "frozen.json"
LINE_EVERY_S = 5.0


@dataclass(frozen=True)
class Need:
    """What a stage would read instead of computing it.

    Attributes:
        depth: How many layers lie below the token states; None for what the head gets.
        precision: In which it is computed: `fp32` or `bf16`.
    """

    depth: int | None
    precision: str


@dataclass(frozen=True)
class Computing:
    """Where and how a pass is computed.

    Attributes:
        device: Where the model is.
        forward_context: Gives the context of a forward pass, such as autocast.
        check: Called after each batch; raises when somebody asked the process to stop.
    """

    device: torch.device
    forward_context: Callable[[], AbstractContextManager[None]]
    check: Callable[[], None]


def needs(stages: Sequence[Stage], precisions: Sequence[str], *, n_groups: int, n_split: int) -> list[Need | None]:
    """Return what each stage would read: None where the groups that learn leave nothing worth it.

    Args:
        stages: Of the training.
        precisions: Of each stage.
        n_groups: Of the whole model, the head included.
        n_split: How many layers the backbone can leave out at most; 0 where it cannot start midway.
    """
    found: list[Need | None] = []
    for stage, precision in zip(stages, precisions, strict=True):
        n = n_learning(stage.train, n_groups)
        depth = n_groups - n - 1  # the lowest group are the embeddings
        if n == 1:
            found.append(Need(None, precision))
        else:
            found.append(Need(depth, precision) if 1 <= depth <= n_split else None)
    return found


def served(wanted: Sequence[Need | None], learning: Sequence[int], first: int) -> list[int]:
    """Return the stages that a pass before stage `first` serves: what they keep fixed no stage moves until then.

    Args:
        wanted: Of each stage, see `needs`.
        learning: How many groups learn in each stage.
        first: The stage before which the pass is made; it comes first in the answer.
    """
    need = wanted[first]
    if need is None:
        return []
    found = [first]
    for later in range(first + 1, len(wanted)):
        its = wanted[later]
        same = its is not None and its.precision == need.precision
        if same and max(learning[first:later]) <= learning[later]:
            found.append(later)
    return found


def pays(stages: Sequence[Stage], wanted: Sequence[Need | None], learning: Sequence[int], stage: int) -> bool:
    """Return whether a stage reads more than it would compute: in a second epoch, or from a pass that serves others."""
    if wanted[stage] is None:
        return False
    shares = any(
        stage in serves and len(serves) > 1
        for serves in (served(wanted, learning, first) for first in range(stage + 1))
    )
    return shares or stages[stage].epochs > 1


class Frozen:
    """The kept outputs of one training.

    Args:
        model: The classifier; in each stage its fixed groups have the weights that they keep.
        prepared: Its rows.
        stages: Of the training.
        precisions: Of each stage: `fp32` or `bf16`.
        cache: The entries lie in `cache/frozen/`.
        record: The run's file that says which stages read what is kept.
        say: Takes each line that a person should see.
    """

    def __init__(
        self,
        model: Classifier,
        prepared: Prepared,
        *,
        stages: Sequence[Stage],
        precisions: Sequence[str],
        cache: Path,
        record: Path,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.prepared, self.stages = model, prepared, stages
        self.folder, self.record, self.say = cache / "frozen", record, say
        n_groups = len(model.groups())
        self.learning = [n_learning(stage.train, n_groups) for stage in stages]
        self.wanted: list[Need | None] = [None] * len(stages)
        # Without a head of its own (`native`) the family's reads the hidden states in its own way.
        if model.backbone.frozen_in_eval and model.head is not None:
            is_midway = any(1 < n < n_groups for n in self.learning)
            n_split = model.backbone.split_layers() if is_midway else 0
            self.wanted = needs(stages, precisions, n_groups=n_groups, n_split=n_split)
        self.seconds = 0.0

    def pays(self, stage: int) -> bool:
        """Return whether a stage reads what is kept; a pure function of the recipe."""
        return pays(self.stages, self.wanted, self.learning, stage)

    def before(self, stage: int, how: Computing) -> dict[str, KeptRows]:
        """Return by split what a stage reads, computed now where it is not kept; empty where nothing is.

        Args:
            stage: Its position; the model has the weights with which it begins or goes on.
            how: Of the pass.
        """
        decided = self._decided()
        if not self.pays(stage) or decided.get(stage) is False:
            return {}
        started = time.perf_counter()
        forms = {one: self._form(one, how) for one in served(self.wanted, self.learning, stage)}
        kept = open_entry(self.folder, forms[stage], self._lengths)
        if kept is None:
            forms = self._that_fit(forms, stage)
            if forms and self._computed(list(dict.fromkeys(forms.values())), how):
                kept = open_entry(self.folder, forms[stage], self._lengths)
                decided |= dict.fromkeys(forms, True)
        else:
            self.say(f"frozen outputs of {self._n_texts:,} texts: read from the cache")
        if kept is None and decided.get(stage):
            self.say(
                "the outputs that were kept for this stage are gone, and it goes on without them: its weights will "
                "differ by rounding from those of a run that has them"
            )
        write_json(self.record, {str(one): flag for one, flag in (decided | {stage: kept is not None}).items()})
        self.seconds = time.perf_counter() - started
        return kept or {}

    def _decided(self) -> dict[int, bool]:
        if not self.record.is_file():
            return {}
        return {int(stage): flag for stage, flag in json.loads(self.record.read_text("utf-8")).items()}

    # -- what is kept -----------------------------------------------------------------------------------------------

    @property
    def _parts(self) -> list[Part]:
        return [self.prepared.train, self.prepared.valid]

    @property
    def _lengths(self) -> dict[str, np.ndarray]:
        return {part.name: part.lengths for part in self._parts}

    @property
    def _n_texts(self) -> int:
        return sum(len(part) for part in self._parts)

    def _n_bytes(self, form: Form) -> int:
        return sum(form.n_bytes(part.lengths) for part in self._parts)

    def _form(self, stage: int, how: Computing) -> Form:
        need = self.wanted[stage]
        if need is None:
            raise ValueError(f"stage {stage} reads nothing")
        backbone, pool = self.model.backbone, self.model.settings.pool
        config = {name: value for name, value in backbone.config().items() if name != "source"}
        digest = hashlib.sha256(self._rows_key)
        known = versions()
        code = (FORMAT, known["torch"], known["transformers"], torch.get_float32_matmul_precision())
        for fact in (*code, how.device.type, need, pool if need.depth is None else "", config):
            digest.update(json.dumps(fact, sort_keys=True, default=repr).encode() + b"\n")
        for _, parameters in backbone.groups()[: None if need.depth is None else need.depth + 1]:
            for parameter in parameters:
                values = parameter.detach().cpu().contiguous()
                digest.update(repr(tuple(values.shape)).encode())
                digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        width = backbone.width if need.depth is not None else self.model.features_width
        # One vector a text is small: only token states are halved where the arithmetic has no more digits anyway.
        is_bf16 = need.depth is not None and need.precision == "bf16"
        return Form(digest.hexdigest(), need.depth, width, is_bf16)

    @cached_property
    def _rows_key(self) -> bytes:
        digest = hashlib.sha256(json.dumps(self.prepared.padding, sort_keys=True).encode())
        for part in self._parts:
            digest.update(np.asarray(part.lengths, dtype=np.int64).data)
            for row in range(len(part)):
                digest.update(np.ascontiguousarray(part.ids(row)).data)
                digest.update(part.first_length(row).to_bytes(8, "little"))
        return digest.digest()

    def _that_fit(self, forms: Mapping[int, Form], stage: int) -> dict[int, Form]:
        """Return what a pass computes: the stage's own form, and of the later ones' those that fit beside it."""
        room = room_bytes(self.folder)
        chosen: dict[int, Form] = {}
        for one, form in forms.items():
            is_new = form not in chosen.values()
            n_bytes = self._n_bytes(form) if is_new else 0
            if n_bytes <= room:
                chosen[one] = form
                room -= n_bytes
            elif one == stage:
                self.say(
                    f"frozen outputs are not kept: {self._n_texts:,} texts would take {size(n_bytes)} on disk, "
                    f"and {size(room)} are the most there"
                )
                return {}
        return chosen

    # -- the pass ---------------------------------------------------------------------------------------------------

    def _computed(self, forms: Sequence[Form], how: Computing) -> bool:
        """Compute and keep these forms; return whether they could be written."""
        n_bytes = sum(self._n_bytes(form) for form in forms)
        flags = [(module, module.training) for module in self.model.modules()]
        self.model.to(how.device).eval()
        try:
            remove_leftovers(self.folder)
            make_room(self.folder, n_bytes, spared={form.key for form in forms})
            with ExitStack() as stack:
                folders = [stack.enter_context(atomic_folder(self.folder / form.key)) for form in forms]
                n_done = 0
                for part in self._parts:
                    n_done = self._write(part, list(zip(forms, folders, strict=True)), how, n_done)
                for folder in folders:
                    finish_entry(folder)
        except RunError as error:
            self.say(f"frozen outputs are not kept: {error.what}")
            return False
        finally:
            for module, flag in flags:
                module.training = flag
        self.say(f"frozen outputs of {self._n_texts:,} texts: {size(n_bytes)} on disk")
        return True

    def _write(self, part: Part, targets: Sequence[tuple[Form, Path]], how: Computing, n_done: int) -> int:
        """Write the outputs of one split; return how many texts are done."""
        backbone = self.model.backbone
        depths = sorted({form.depth for form, _ in targets if form.depth is not None})
        max_tokens = MAX_TOKENS_CPU if how.device.type == "cpu" else MAX_TOKENS
        said_at = time.monotonic()
        with ExitStack() as stack:
            writers = [RowWriter(folder / f"{part.name}.bin", form, part.lengths) for form, folder in targets]
            for writer in writers:
                stack.callback(writer.close)
            for rows in batches_by_length(part.lengths, max_tokens=max_tokens, max_texts=VALID_BATCH_TEXTS):
                batch = make_batch(part, rows, self.prepared.padding).to(how.device)
                with torch.no_grad(), how.forward_context():
                    states, hidden = backbone.lower_states(batch, depths)
                    features = self.model.features(batch, hidden)
                for writer in writers:
                    depth = writer.form.depth
                    writer.write(rows, features if depth is None else states[depth])
                n_done += len(rows)
                if time.monotonic() - said_at >= LINE_EVERY_S:
                    said_at = time.monotonic()
                    self.say(f"frozen outputs: {n_done:,} of {self._n_texts:,} texts")
                how.check()
        return n_done
