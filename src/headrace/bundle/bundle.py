"""A trained classifier with its tokenizer and label names, in memory and as a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np

from headrace import plugins
from headrace.bundle import manifest
from headrace.bundle.about import KIND, About, TextSettings, Threshold, damaged, read_about, text_settings, versions
from headrace.bundle.weights import read_model, save_weights, weights_bytes
from headrace.data.rows import RowBatch
from headrace.decide.decision import Decision
from headrace.errors import DataError
from headrace.files import atomic_folder, write_json, write_text
from headrace.head import NO_POOL
from headrace.metrics import SINGLE_LABEL
from headrace.model import Classifier, build_classifier
from headrace.predict import (
    Compute,
    Narrowed,
    Prediction,
    answers,
    embed,
    flags_of,
    probabilities,
    score,
    token_vectors,
)
from headrace.text.store import TokenStore
from headrace.text.subwords import Texts
from headrace.text.tokenizer import Tokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from headrace.explain import Explanation

Text = str | tuple[str, str]


class Content(TypedDict, total=False):
    """What `save_bundle` takes besides the classifier and its tokenizer.

    Attributes:
        task: The task's name; required.
        text: TextSettings, or a mapping of its fields; required.
        recipe_yaml: The resolved recipe; required.
        threshold, decision, data, versions, metrics: See `About`.
    """

    task: str
    text: TextSettings | Mapping[str, Any]
    recipe_yaml: str
    threshold: Threshold | None
    decision: Mapping[str, Any] | None
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    metrics: Mapping[str, Any] | None


class Bundle:
    """A trained classifier with its tokenizer and label names.

    Attributes:
        classifier: In evaluation mode.
        subwords: The tokenizer.
        about: Task, text settings, versions and so on.
        decision: From logits to scores and answers: calibration, thresholds, abstention.
        folder: Where it was loaded from; None for one in memory.
        identity: A hash of all files that it was loaded from; None for one in memory.
    """

    def __init__(
        self, classifier: Classifier, subwords: Tokenizer, about: About, *, folder: Path | None = None, recipe: str = ""
    ) -> None:
        self.classifier = classifier.eval()
        self.subwords = subwords
        self.about = about
        self.folder = folder
        self.identity: str | None = None
        self.recipe_yaml = recipe
        self._narrowed = Narrowed()
        kind = plugins.kind_of_task(about.task)
        self.decision = (
            Decision.plain(self.labels, task=kind)
            if about.decision is None
            else Decision.from_dict(about.decision, labels=self.labels, task=kind)
        )

    @classmethod
    def load(cls, folder: str | Path) -> Bundle:
        """Return the bundle of a folder; the manifest is checked before any other file is opened.

        Nothing is executed or unpickled, no weight is random, and the network is not asked.

        Raises:
            BundleError: It is no bundle, or damaged, changed, unsafe, or of a newer format.
        """
        folder = Path(folder).expanduser()
        checked = manifest.check_files(folder)
        about, tokenizer = read_about(checked)
        labels = checked.json(manifest.LABELS).get("labels")
        classifier = read_model(checked, build_classifier)
        if labels != list(classifier.labels.names):
            raise damaged(folder / manifest.LABELS, f"its labels are not those of {manifest.CONFIG}")
        try:
            subwords = tokenizer_from_json(checked.text(manifest.TOKENIZER), tokenizer)
        except (TypeError, ValueError) as error:
            raise damaged(folder / manifest.BUNDLE, f"its tokenizer settings: {error}") from error
        try:
            found = cls(classifier, subwords, about, folder=folder, recipe=checked.text(manifest.RECIPE))
        except ValueError as error:
            raise damaged(folder / manifest.BUNDLE, f"its decision: {error}") from error
        found.identity = checked.identity
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names in the order of the scores."""
        return self.classifier.labels.names

    @property
    def task(self) -> str:
        """The task's name."""
        return self.about.task

    @property
    def threshold(self) -> Threshold | None:
        """The thresholds that `predict` uses by default; None for the task's own rule."""
        own = self.about.threshold if self.decision.threshold is None else self.decision.threshold
        # a number in an older bundle of two single labels is that of the second
        is_of_second = isinstance(own, int | float) and self.decision.task == SINGLE_LABEL and len(self.labels) == 2
        return {self.labels[1]: own} if is_of_second else own  # type: ignore[dict-item]  # it is a number

    @property
    def is_pair(self) -> bool:
        """Whether each input is a pair of texts."""
        return self.about.text.is_pair

    def __repr__(self) -> str:
        where = f"{str(self.folder)!r}, " if self.folder else ""
        return f"Bundle({where}task={self.task!r}, labels={list(self.labels)!r})"

    @overload
    def predict(  # type: ignore[overload-overlap]  # a string is a sequence of strings, but one text
        self, texts: str, threshold: Threshold | None = None, **compute: Unpack[Compute]
    ) -> Prediction:
        """Return the Prediction of one text."""

    @overload
    def predict(self, texts: Texts, threshold: Threshold | None = None, **compute: Unpack[Compute]) -> list[Prediction]:
        """Return a Prediction for each text."""

    def predict(
        self, texts: str | Texts, threshold: Threshold | None = None, **compute: Unpack[Compute]
    ) -> Prediction | list[Prediction]:
        """Return a Prediction for each text (or pair), in input order; for a single text just its Prediction.

        Args:
            texts: An empty list gives an empty one. An empty text has a prediction too, with the flag `empty`.
            threshold: From which score on a label is given. Of multi-label a number for all, or numbers by label name
                (0.5 for those that are left out); of two single labels a number by the name of one. None for the
                bundle's own, then the task's rule. With a given one there is always an answer: what abstention promises
                holds for the bundle's own alone.
            **compute: See `headrace.predict.Compute`: `device`, `precision`, `progress`.

        Raises:
            DataError: An input is not a text (or a pair, for a bundle of pairs).
            RecipeError: The threshold does not suit.
        """
        if isinstance(texts, str):
            return self.predict([texts], threshold, **compute)[0]
        return self.answers(*self.scores_and_flags(texts, **compute), threshold)

    def scores_and_flags(self, texts: Texts, **compute: Unpack[Compute]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """Return what `answers` makes predictions of: the probability of each label, and the flags of each text.

        Args:
            texts: As in `predict`.
            **compute: See `headrace.predict.Compute`.

        Returns:
            [texts, labels] float32, and as many flags as `Prediction` has them, in input order.

        Raises:
            DataError: An input is not a text (or a pair, for a bundle of pairs).
        """
        checked = self._checked(texts)
        store = self._encoded(checked)
        return self._scores(store, compute), self._flags(checked, store)

    def answers(
        self, scores: np.ndarray, flags: Sequence[tuple[str, ...]], threshold: Threshold | None = None
    ) -> list[Prediction]:
        """Return the Prediction of each row of scores.

        Args:
            scores: [texts, labels], as `scores` gives them.
            flags: Of each text.
            threshold: As in `predict`.

        Raises:
            RecipeError: The threshold does not suit.
        """
        chosen = self.threshold if threshold is None else threshold
        unsure = self.decision.is_unsure(scores) if threshold is None else None
        return answers(scores, self.labels, task=self.task, threshold=chosen, flags=flags, unsure=unsure)

    def scores(self, texts: Texts, **compute: Unpack[Compute]) -> np.ndarray:
        """Return the probability of each label, [texts, labels] float32, in input order.

        Raises:
            DataError: An input is not a text (or a pair, for a bundle of pairs).
        """
        return self._scores(self._encoded(self._checked(texts)), compute)

    def embed(self, texts: Texts, pool: str = "mean", **compute: Unpack[Compute]) -> np.ndarray | list[np.ndarray]:
        """Return vectors of the last hidden layer: [texts, width] float32, or with `pool="none"` one array a text.

        Args:
            texts: As in `predict`.
            pool: `mean`, `cls`, `max`, `pooler` where the backbone has one, or `none` for [tokens, width] each.
            **compute: See `headrace.predict.Compute`.

        Raises:
            DataError: An input is not a text (or a pair, for a bundle of pairs).
            RecipeError: There is no such pooling.
        """
        if isinstance(texts, str):
            texts = [texts]
        store = self._encoded(self._checked(texts))
        if pool == NO_POOL:
            return token_vectors(self._model(compute), store, **self._tokens(), **compute)
        return embed(self._model(compute), store, pool=pool, **self._tokens(), **compute)

    def tokens(self, texts: Texts) -> list[list[str]]:
        """Return the tokens of each text as the vocabulary writes them: those whose vectors `embed` gives unpooled.

        Raises:
            DataError: An input is not a text (or a pair, for a bundle of pairs).
        """
        store = self._encoded(self._checked(texts))
        return [self.subwords.tokens(store.ids(row)) for row in range(len(store))]

    def explain(self, text: Text, label: str | None = None) -> Explanation:
        """Return how much each word of a text (or pair) moved its answer.

        Args:
            text: One text, or (first, second) for a bundle of pairs.
            label: The label to explain; None for the predicted one, or where there is none for the highest logit.

        Raises:
            DataError: The input is not a text (or a pair, for a bundle of pairs).
            RecipeError: There is no such label.
            MissingExtra: captum is not installed.
        """
        from headrace.explain import explain

        texts = self._cleaned(self._checked([text]))
        settings = self.about.text
        return explain(
            self.classifier,
            self.subwords,
            texts,
            max_length=settings.max_length,
            truncate=settings.truncate,
            target=self.predict(texts)[0].label if label is None else label,
        )[0]

    def save(self, folder: str | Path, *, recipe_yaml: str | None = None) -> None:
        """Write the bundle as a folder, whole or not at all.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        with atomic_folder(Path(folder), size_bytes=weights_bytes(self.classifier)) as temporary:
            save_weights(self.classifier, temporary / manifest.WEIGHTS)
            write_json(temporary / manifest.CONFIG, self.classifier.config())
            write_text(temporary / manifest.TOKENIZER, self.subwords.to_json())
            write_json(temporary / manifest.LABELS, {"labels": list(self.labels)})
            write_text(temporary / manifest.RECIPE, self.recipe_yaml if recipe_yaml is None else recipe_yaml)
            description = {
                "kind": KIND,
                "head": asdict(self.classifier.settings),
                "tokenizer": self.subwords.settings(),
                **asdict(self.about),
            }
            write_json(temporary / manifest.BUNDLE, {"format": manifest.FORMAT_VERSION, **description})
            manifest.write_manifest(temporary)

    def _checked(self, texts: Any) -> list[Text]:
        if isinstance(texts, str) or not hasattr(texts, "__len__") or isinstance(texts, Mapping):
            raise DataError(
                f"the texts are one {type(texts).__name__}, not a list of texts",
                where="texts",
                next="give a list, a tuple, a pandas Series or a numpy array",
            )
        if self.is_pair and isinstance(texts, tuple) and len(texts) == 2 and isinstance(texts[0], str):
            raise DataError(
                "the texts are one pair, not a list of pairs", where="texts", next="wrap it: [(first, second)]"
            )
        items = texts.tolist() if hasattr(texts, "tolist") else texts
        return [self._checked_one(item, position) for position, item in enumerate(items)]

    def _checked_one(self, item: object, position: int) -> Text:
        if not self.is_pair and isinstance(item, str):
            return item
        if self.is_pair and isinstance(item, tuple | list) and len(item) == 2:
            first, second = item
            if isinstance(first, str) and isinstance(second, str):
                return first, second
        wanted, taken = "a text", "this bundle takes single texts as strings"
        if self.is_pair:
            wanted = f"a pair ({', '.join(self.about.text.columns)})"
            taken = "this bundle takes pairs of texts: (first, second), or --pair in a command"
        raise DataError(f"{item!r:.80} is not {wanted}", where=f"texts[{position}]", next=taken)

    def _cleaned(self, texts: list[Text]) -> Any:
        """Return the texts without control characters: they go the same way as in training."""
        if self.is_pair:
            batch = RowBatch(texts=[text[0] for text in texts], pairs=[text[1] for text in texts]).clean()
            return list(zip(batch.texts, batch.pairs, strict=True))
        return RowBatch(texts=[text for text in texts if isinstance(text, str)]).clean().texts

    def _encoded(self, texts: list[Text]) -> TokenStore:
        settings = self.about.text
        flat = self.subwords.encode_flat(
            self._cleaned(texts), max_length=settings.max_length, truncate=settings.truncate, pair=self.is_pair
        )
        return TokenStore(flat.ids, flat.offsets, flat.first_lengths, flat.full_lengths, flat.n_unknown)

    def _flags(self, texts: list[Text], store: TokenStore) -> list[tuple[str, ...]]:
        n_special = self.subwords.layout(pair=self.is_pair).n_special
        columns = (store.lengths.tolist(), store.full_lengths.tolist(), store.n_unknown.tolist())
        return [
            flags_of(text, n_kept=kept, n_full=full, n_special=n_special, n_unknown=unknown)
            for text, kept, full, unknown in zip(texts, *columns, strict=True)
        ]

    def _scores(self, store: TokenStore, compute: Compute) -> np.ndarray:
        logits = score(self._model(compute), store, **self._tokens(), **compute)
        return probabilities(logits, self.task, self.decision)

    def _model(self, compute: Compute) -> Classifier:
        """Return the classifier, in bf16 a twin that has its matrices in 16 bits already."""
        if compute.get("precision") != "bf16":
            return self.classifier
        if "device" in compute:
            self.classifier.to(compute["device"])
        return self._narrowed.of(self.classifier)

    def _tokens(self) -> dict[str, Any]:
        return {"pad_id": self.subwords.pad_id, "uses_token_types": self.subwords.uses_token_types}


def save_bundle(
    folder: str | Path, *, classifier: Classifier, subwords: Tokenizer, **content: Unpack[Content]
) -> Bundle:
    """Write a bundle, whole or not at all, and return the same one in memory.

    Args:
        folder: Replaced if it is there.
        classifier: With its label names.
        subwords: The tokenizer.
        **content: See `Content`.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    text = content["text"]
    about = About(
        task=content["task"],
        text=text if isinstance(text, TextSettings) else text_settings(text),
        threshold=content.get("threshold"),
        decision=content.get("decision"),
        data=dict(content.get("data") or {}),
        versions=dict(content.get("versions") or versions()),
        metrics=content.get("metrics"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    bundle = Bundle(classifier, subwords, about, folder=Path(folder), recipe=content["recipe_yaml"])
    bundle.save(folder)
    return bundle
