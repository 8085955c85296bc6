"""What a classifier's training would stumble over late is found early: its model is made and its stages are looked at.

Before a language model is trained for hours, the classifier that shall stand on it is made over its untrained encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.backbones._base import Backbone
from headrace.backbones._language import encoder_for_classifier
from headrace.classifier import Classifier
from headrace.data.examples import LabelSet
from headrace.decide.thresholds import COST, Rule
from headrace.errors import RecipeError
from headrace.head import CLASSICAL, HeadSettings
from headrace.model import load_classifier
from headrace.plugins import kind_of_task
from headrace.recipe.schema import RecipeValues, TrainSettings
from headrace.train.language.nested import directions, language_values
from headrace.train.language.prepare import LanguageData, prepare_language
from headrace.train.language.training import unsaved
from headrace.train.stages import refuse_stages


def rehearse(
    values: RecipeValues, labels: LabelSet, *, progress: Callable[[str, int, int], None] | None = None
) -> LanguageData:
    """Make the language models of a classifier's recipe, and the classifier over them; nothing is trained.

    Args:
        values: Of a recipe with a `language_model` block.
        labels: Of the classifier's rows.
        progress: Told what is done, how far, and how much there is.

    Returns:
        The texts and words of the language model.

    Raises:
        HeadraceError: What `fit` would refuse: weights that cannot be read or do not fit, more groups in a stage than
            there are, texts longer than the encoder takes, weights of labels that do not exist.
    """

    encoders = []
    for direction in directions(values):
        own = language_values(values, direction=direction)
        texts = prepare_language(own, progress=progress)
        model = unsaved(own, texts).module.model
        refuse_stages(own.fit.phases, len(model.groups()), where="language_model.stages")
        settings = values.backbone
        encoders.append(encoder_for_classifier(model, dropout=settings.dropout, drop_mult=settings.drop_mult))
    classifier = load_classifier(
        backbone=encoders,
        head=HeadSettings(**values.head.model_dump()),
        labels=labels,
        multi_label=kind_of_task(values.task) == "multi_label",
    )
    refuse_late_faults(values, classifier)
    return texts


def refuse_late_faults(values: RecipeValues, classifier: Classifier) -> None:
    """Refuse what only the model shows.

    Raises:
        RecipeError: A stage trains more groups than there are, texts are longer than the backbone takes, or a label
            that does not exist has a weight or costs.
    """
    refuse_long_texts(values, classifier.backbone)
    refuse_costs(values, classifier.labels)
    for phase in values.fit.phases:
        refuse_unknown_labels(phase, classifier.labels)
    if values.head.name not in CLASSICAL:
        refuse_stages(values.fit.phases, len(classifier.groups()))


def refuse_long_texts(values: RecipeValues, backbone: Backbone) -> None:
    """Refuse texts that are kept longer than the backbone takes.

    Raises:
        RecipeError: They are.
    """
    longest = backbone.max_tokens
    if longest is not None and values.data.max_length > longest:
        raise RecipeError(
            f"data.max_length is {values.data.max_length}, and {values.backbone.name} takes {longest} tokens at most",
            where="data.max_length",
            next=f"set data.max_length to {longest} or less",
        )


def refuse_costs(values: RecipeValues, labels: LabelSet) -> None:
    """Refuse costs of labels that do not exist, before anything is trained.

    Raises:
        RecipeError: There are some.
    """
    costs = getattr(values.decide.threshold, "cost", None)
    if isinstance(costs, Mapping):
        Rule.of({COST: {name: given.model_dump() for name, given in costs.items()}}, labels.names)


def refuse_unknown_labels(phase: TrainSettings, labels: LabelSet) -> None:
    """Refuse weights of labels that do not exist.

    Raises:
        RecipeError: There are some.
    """
    from headrace.train.fit import weights_by_label

    for name in ("class_weights", "pos_weight"):
        given = getattr(phase, name)
        if isinstance(given, Mapping):
            weights_by_label(given, labels.names, f"fit.{name}")
