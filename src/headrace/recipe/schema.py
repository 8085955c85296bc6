"""The recipe's keys, their types, defaults and limits. The descriptions are the help texts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)


class Closed(BaseModel):
    """A mapping that takes its own keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def _as_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Count = Annotated[int, BeforeValidator(_as_number), Field(ge=1)]
Rate = Annotated[float, BeforeValidator(_as_number)]


def checked_share(value: str) -> str:
    """Return a place or a share of the training rows.

    Raises:
        ValueError: The share is none.
    """
    if value.endswith("%"):
        number = value[:-1].strip()
        if not re.fullmatch(r"\d+(\.\d+)?", number) or not 0 < float(number) < 100:
            raise ValueError("a share lies between 0% and 100%, such as 10%")
    return value


class Downsample(Closed):
    """Fewer training rows of one kind."""

    rows: str = Field(description="`no_label`, or a label's name")
    to: Count | Literal["labelled"] = Field(description="rows kept, or `labelled`: as many as have a label")


class DataSettings(Closed):
    """Where the texts are, and what of them is read."""

    train: str | list[str] | None = Field(
        None, description="file, folder per label, or hub:owner/name; for a language model also several of them"
    )
    valid: str = Field("10%", description="a share of train such as 10%, or a file")
    test: str | None = Field(None, description="file; evaluated once, after training")
    url: str | None = Field(None, description="archive that holds the files")
    sha256: str | None = Field(None, description="of the archive; without it nothing is read, and the error tells it")
    text: str | list[str] = Field("text", description="the text's column, or two for pairs")
    label: str | list[str] = Field("label", description="the label's column, or several 0/1 columns")
    labels: list[str] | None = Field(None, description="names and order of the labels")
    label_separator: str | None = Field(None, min_length=1, description="between the names in one multi-label column")
    max_length: Count = Field(256, description="tokens kept of a text, special tokens included")
    truncate: Literal["head", "tail", "head_tail"] = Field("head", description="which end of a long text is kept")
    limit: Count | None = Field(None, description="use this many rows of train, validation included")
    downsample: Downsample | None = Field(None, description="fewer training rows of one kind")
    on_bad_row: Literal["error", "skip"] = Field("error", description="stop, or leave out and list in bad_rows.jsonl")
    slices: list[str] = Field(default_factory=list, description="further columns: the report shows metrics by value")
    allow: list[str] = Field(default_factory=list, description="findings (by code) that are known and fine")
    encoding: str | None = Field(None, description="of text files, when it is not UTF-8")

    @field_validator("valid")
    @classmethod
    def _share(cls, value: str) -> str:
        return checked_share(value)

    @field_validator("text")
    @classmethod
    def _one_or_two(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and len(value) != 2:
            raise ValueError("text is one column, or a list of two for sentence pairs")
        return value

    @field_validator("label")
    @classmethod
    def _some(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and not value:
            raise ValueError("a list of label columns needs at least one name")
        return value

    @property
    def valid_share(self) -> float | None:
        """The share of train in (0, 1), or None when `valid` is a file."""
        return float(self.valid[:-1]) / 100 if self.valid.endswith("%") else None


class BackboneSettings(Closed):
    """The pretrained encoder."""

    name: str = Field("minilm", description="hub id, folder, minilm, or awd_lstm")
    weights: str = Field(
        "pretrained",
        min_length=1,
        description="none: random weights of that architecture; awd_lstm: none, or a .pth file or its folder",
    )
    revision: str | None = Field(None, description="commit of the hub repository")
    dropout: float | None = Field(None, ge=0, lt=1, description="instead of the model's own rates")
    vocabulary: str | None = Field(None, description="awd_lstm: words of the weights: a .json, .txt or .pkl file")
    drop_mult: Rate | None = Field(None, ge=0, description="awd_lstm: factor of all its dropouts")
    direction: Literal["forward", "backward", "both"] | None = Field(None, description="awd_lstm: how texts are read")
    backward: str | None = Field(
        None, description="direction: both over language models: the backward one's bundle; `name` is the forward one's"
    )
    embedding_size: Count | None = Field(None, description="awd_lstm: numbers of an embedding, 400")
    hidden_size: Count | None = Field(None, description="awd_lstm: numbers of a hidden state, 1152")
    n_layers: Count | None = Field(None, description="awd_lstm: layers, 3")


class HeadSettings(Closed):
    """What stands on the encoder."""

    name: Literal["linear", "ulmfit", "native", "svm", "logistic"] = Field("linear", description="kind of head")
    pool: Literal["cls", "pooler", "mean", "max", "concat"] = Field(
        "cls", description="from token vectors to one; concat: last, max and mean; ulmfit: concat alone"
    )
    hidden: int = Field(0, ge=0, le=65536, description="width of a hidden layer; 0 for none; ulmfit: 50")
    dropout: float = Field(0.1, ge=0, lt=1, description="before the last layer; ulmfit: before the hidden one, 0.4")

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        """Let `ulmfit` begin with its own defaults."""
        if not isinstance(values, dict) or values.get("name") != "ulmfit":
            return values
        return {"pool": "concat", "hidden": 50, "dropout": 0.4, **values}

    @model_validator(mode="after")
    def _ulmfit(self) -> HeadSettings:
        if self.name == "ulmfit" and (self.pool != "concat" or not self.hidden):
            raise ValueError("the head ulmfit has pool: concat and a hidden layer; leave both out for fastai's")
        return self


class EarlyStopping(Closed):
    """Stop when the monitored figure has not improved for some epochs."""

    patience: Count = Field(description="epochs without improvement")
    min_delta: float = Field(0.0, ge=0, description="the least that counts as improvement")
    monitor: str | None = Field(None, description="figure of validation; fit.monitor if not given")


class TrainSettings(Closed):
    """How the weights are moved: what holds for a whole training, and may differ from stage to stage."""

    epochs: Count = Field(3, description="passes over the training rows; with stages the sum of theirs")
    micro_batch: Count | Literal["auto"] = Field("auto", description="texts in memory at a time; same result")
    learning_rate: Rate = Field(2e-5, gt=0, description="peak, of the top group")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor of the rate for each group further down")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="no decay on norms and biases")
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["linear", "slanted_triangular", "one_cycle", "cosine", "constant"] = Field("linear")
    warmup: Annotated[float | int | str, BeforeValidator(_as_number)] = Field(
        0.1, description="share (0.1), steps (500) or '0.33 epochs'"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = Field(None, description="single label")
    pos_weight: Literal["balanced"] | dict[str, float] | None = Field(None, description="multi-label")
    sampler: Literal["random", "length_buckets", "balanced"] = Field("random", description="which rows make a batch")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient")
    accumulate: Count = Field(1, description="least number of micro-batches of a step")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the machine has it")
    early_stopping: EarlyStopping | None = Field(None, description="patience in epochs, or a mapping")
    checkpoint_every_s: float = Field(60.0, gt=0, description="seconds between checkpoints inside an epoch")

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _patience(cls, value: Any) -> Any:
        return {"patience": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("layer_decay", mode="before")
    @classmethod
    def _reciprocal(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 1:
            raise ValueError(f"a decay lies in (0, 1]; for a factor of {value:g} between groups write {1 / value:.4g}")
        return value

    @field_validator("warmup")
    @classmethod
    def _warmup(cls, value: float | int | str) -> float | int | str:
        if isinstance(value, str):
            if not re.fullmatch(r"\d*\.?\d+\s*epochs?", value.strip()):
                raise ValueError("warmup is a share (0.1), a number of steps (500) or '0.33 epochs'")
        elif isinstance(value, bool) or value < 0 or (value > 1 and value != int(value)):
            raise ValueError("warmup is a share (0.1), a number of steps (500) or '0.33 epochs'")
        return value


class StageSettings(TrainSettings):
    """One stage of several; what it does not say is as in `fit`, but for `epochs`: 1."""

    train: str = Field("all", description="what learns: head, `1 group` (and the head), `2 groups` …, or all")
    epochs: Count = Field(1, description="passes over the training rows")

    @field_validator("train", mode="before")
    @classmethod
    def _learning(cls, value: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"all|head|[1-9]\d* groups?", value):
            raise ValueError("what learns is `head`, `1 group`, `2 groups` …, or `all`")
        return value


class FitSettings(TrainSettings):
    """How the classifier is trained."""

    batch_size: Count = Field(32, description="texts per optimizer step, all devices together")
    monitor: str = Field("auto", description="picks the best checkpoint, over all stages: a figure of validation")
    stages: list[StageSettings] | None = Field(
        None, min_length=1, description="one after the other, each with what learns in it"
    )

    @model_validator(mode="before")
    @classmethod
    def _inherited(cls, values: Any) -> Any:
        """Let each stage say everything: what it does not say is as in `fit`."""
        stages = values.get("stages") if isinstance(values, dict) else None
        if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
            return values
        shared = {key: values[key] for key in TrainSettings.model_fields if key in values and key != "epochs"}
        whole = [{**shared, **stage} for stage in stages]
        epochs = [stage.get("epochs", 1) for stage in whole]
        counted = {"epochs": sum(epochs)} if all(type(n) is int for n in epochs) else {}
        return {**values, "stages": whole, **counted}

    @property
    def phases(self) -> list[TrainSettings]:
        """The stages, or without any the one training of everything."""
        return list(self.stages) if self.stages else [self]


class LanguageModelSettings(FitSettings):
    """The language model that a classifier's encoder is trained as before; keys as in `data` and in `fit`.

    In a recipe with `task: language_model` these keys stand in `data` and `fit`, and only `sequence_length`,
    `max_length` and `drop_mult` are read here.
    """

    train: str | list[str] | None = Field(
        None, description="file or files; the classifier's training texts if not given"
    )
    valid: str | None = Field(None, description="a share of train such as 10%, or a file")
    text: str | list[str] | None = Field(None, description="the text's column, if it is not that of data.text")
    limit: Count | None = Field(None, description="use this many texts, validation included")
    max_length: Count | None = Field(
        None, description="tokens kept of a text; next words: all, masked: data.max_length"
    )
    sequence_length: Count = Field(72, description="tokens of a stream in a step; next words")
    drop_mult: Rate | None = Field(None, ge=0, description="instead of backbone.drop_mult, which is the classifier's")

    @field_validator("valid")
    @classmethod
    def _share(cls, value: str | None) -> str | None:
        return None if value is None else checked_share(value)


class Costs(Closed):
    """What a wrong yes and a wrong no cost."""

    false_positive: Rate = Field(gt=0, description="above 0: what a label costs that is given and wrong")
    false_negative: Rate = Field(gt=0, description="above 0: what a label costs that is missed")


def _kind_of_costs(value: Any) -> str:
    """Tell by the values whether these are the costs of all labels, or a mapping from labels to their own."""
    inner = value.values() if isinstance(value, dict) else ()
    return BY_LABEL if any(isinstance(one, dict | Costs) for one in inner) else "Costs"


#: What pydantic calls the branch in the place of a fault; see `load._known_part`.
BY_LABEL = "dict[str, Costs]"
AnyCosts = Annotated[
    Annotated[Costs, Tag("Costs")] | Annotated[dict[str, Costs], Tag(BY_LABEL)], Discriminator(_kind_of_costs)
]


class ThresholdRule(Closed):
    """What the thresholds shall do: exactly one of the three."""

    f_beta: Rate | None = Field(None, gt=0, description="above 1 recall weighs more, below 1 precision")
    precision: Rate | None = Field(None, gt=0, lt=1, description="at least this on new data, with the most recall")
    cost: AnyCosts | None = Field(None, description="what a wrong yes and a wrong no cost, of all labels or by label")

    @model_validator(mode="after")
    def _one(self) -> ThresholdRule:
        if sum(value is not None for value in (self.f_beta, self.precision, self.cost)) != 1:
            raise ValueError("give exactly one of f_beta, precision and cost")
        return self


class Abstain(Closed):
    """Answer "not sure" below a score, so that few of the other answers are wrong."""

    error_rate: Rate = Field(gt=0, lt=1, description="largest share of wrong answers among those that are given")
    confidence: Rate = Field(0.9, gt=0, lt=1, description="probability that the share is kept on new data")


class DecideSettings(Closed):
    """From scores to answers, chosen on validation."""

    calibrate: Literal["auto", "temperature", "platt", "isotonic", "none"] = Field(
        "auto", description="kept only if the log loss improves"
    )
    threshold: Literal["auto", "default", "f1"] | ThresholdRule = Field(
        "auto", description="multi-label: one a label, kept only if macro F1 improves"
    )
    abstain: Abstain | None = Field(None, description="a share of wrong answers, or a mapping")

    @field_validator("abstain", mode="before")
    @classmethod
    def _error_rate(cls, value: Any) -> Any:
        return {"error_rate": value} if isinstance(value, float) else value


class RecipeValues(Closed):
    """All keys of a recipe."""

    task: str = Field("single_label", description="single_label or multi_label")
    data: DataSettings = DataSettings.model_validate({})
    backbone: BackboneSettings = BackboneSettings.model_validate({})
    head: HeadSettings = HeadSettings.model_validate({})
    fit: FitSettings = FitSettings.model_validate({})
    language_model: LanguageModelSettings | None = Field(
        None, description="trained before the classifier, which takes its encoder"
    )
    decide: DecideSettings = DecideSettings.model_validate({})
    baseline: bool = Field(True, description="TF-IDF + logistic regression beside the run")
    logger: str | list[str] = Field(
        "tensorboard", description="tensorboard, csv, none, or another of Lightning's by name"
    )
    profiler: Literal["simple", "advanced", "pytorch"] | None = Field(None)
    trainer: dict[str, Any] = Field(default_factory=dict, description="any argument of lightning.Trainer")
    seed: Annotated[int, BeforeValidator(_as_number)] = Field(13, ge=0, lt=2**63)

    @field_validator("decide", mode="before")
    @classmethod
    def _nothing_decided(cls, value: Any) -> Any:
        return {"calibrate": "none", "threshold": "default"} if value == "none" else value

    @field_validator("backbone", "head", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value
