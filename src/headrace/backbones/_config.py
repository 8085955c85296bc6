"""Vets a config.json before transformers sees it: known fields of a known family, no code, no absurd sizes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import sys
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from headrace.errors import ModelError, suggestion

logger = getLogger(__name__)

MAX_CONFIG_BYTES = 5_000_000
MAX_PARAMETERS = 20_000_000_000
_MAX_DEPTH = 5
_MAX_ITEMS = 10_000
_MAX_INTEGER = 10_000_000
_MAX_STRING = 500

# Keys that make transformers import code, fetch kernels or change the kind of the weights: never dropped in silence.
_REFUSED = frozenset(
    {
        "auto_map",
        "quantization_config",
        "compression_config",
        "trust_remote_code",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "per_layer_config",
        "use_kernels",
        "kernel_config",
        "tp_plan",
        "device_map",
        "distributed_config",
    }
)
# Keys that say nothing about the encoder's architecture. Headrace sets what of it is needed (float32, no cache, labels).
_LEFT_OUT = frozenset(
    {
        "architectures",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_return_dict",
        "use_cache",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "model_type",
        "torchscript",
        "pruned_heads",
        "reference_compile",
        "gradient_checkpointing",
        "to_dict",
        "is_encoder_decoder",
        "is_decoder",
        "add_cross_attention",
    }
)
# transformers reads these older names in its base class, for the families that have `rope_parameters`.
_ROPE_NAMES = frozenset({"rope_theta", "rope_scaling", "partial_rotary_factor", "original_max_position_embeddings"})
_MODELING_NAME = re.compile(r"""\bconfig\.([a-z]\w*)|getattr\(\s*(?:self\.)?config,\s*["'](\w+)["']""")
_CONFIG_NAME = re.compile(r"""kwargs\.(?:get|pop)\(\s*["'](\w+)["']|\bself\.([a-z]\w*)\b""")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a model folder's config.json.

    Raises:
        ModelError: There is no such file, or it is not a JSON object of a sane size.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            "the folder holds no config.json, so it is no pretrained model",
            where=str(folder),
            next="name the folder that `save_pretrained` wrote: config.json and model.safetensors stand in it",
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelError(
            f"config.json has {path.stat().st_size:,} bytes, more than {MAX_CONFIG_BYTES:,}", where=str(path)
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"config.json is not readable JSON: {error}", where=str(path)) from error
    if not isinstance(raw, dict):
        raise ModelError("config.json is not a JSON object", where=str(path))
    return raw


def make_config(raw: object, *, where: str, strict: bool = False) -> PretrainedConfig:
    """Return transformers' config of a vetted config.json.

    Args:
        raw: The content of config.json, with its `model_type`.
        where: What a message calls it.
        strict: Refuse unknown keys (what Headrace itself wrote has none) instead of leaving them out.

    Raises:
        ModelError: The family is unknown, a key is forbidden, or a value is absurd.
    """
    if not isinstance(raw, Mapping):
        raise ModelError("the architecture is not a JSON object", where=where, next="take the original config")
    _refuse_forbidden(raw, where)
    config_class = _config_class(raw, where)
    known = known_names(raw["model_type"])
    unknown = sorted(key for key in raw if key not in known and key not in _LEFT_OUT and not key.startswith("_"))
    if unknown and strict:
        raise ModelError(
            f"the config holds keys that {raw['model_type']!r} does not have: {', '.join(unknown[:10])}",
            where=where,
            next="the file was changed or written by another version; take the original",
        )
    if unknown:
        logger.debug("left out of %s: %s", where, ", ".join(unknown))
    values = {key: value for key, value in raw.items() if key in known}
    for key, value in values.items():
        _check_value(key, value, where)
    try:
        # deep copy through JSON: transformers changes nested values in place
        config: PretrainedConfig = config_class(**json.loads(json.dumps(values)))
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"transformers refuses the config: {_first_line(error)}", where=where) from error
    _check_size(config, where)
    if "use_cache" in config_class.__dataclass_fields__:
        config.use_cache = False
    if hasattr(config, "reference_compile"):  # ModernBERT of transformers < 5.4 compiles by itself
        config.reference_compile = False
    return config


def architecture(config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields of a config as JSON: what `make_config(strict=True)` turns into an equal one."""
    known = known_names(config.model_type)
    kept = {key: value for key, value in config.to_dict().items() if key in known}
    plain: dict[str, Any] = json.loads(json.dumps(kept, sort_keys=True))
    return {"model_type": config.model_type, **plain}


@functools.cache
def known_names(model_type: str) -> frozenset[str]:
    """Return the keys that a family's own code reads from its config.

    The fields of the config class alone are too few: DeBERTa-v2 reads `position_buckets` and `norm_rel_ebd` by
    `getattr`, ModernBERT takes `global_rope_theta`. Without them a pretrained model would compute something else.
    """
    config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    names = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    if "rope_parameters" in names:
        names |= _ROPE_NAMES
    modeling = sys.modules[model_class(MODEL_MAPPING, config_class).__module__]
    for module, pattern in ((modeling, _MODELING_NAME), (sys.modules[config_class.__module__], _CONFIG_NAME)):
        for found in pattern.finditer(inspect.getsource(module)):
            names.add(found.group(1) or found.group(2))
    return frozenset(
        name
        for name in names - _REFUSED - _LEFT_OUT
        # a method or a plan of parallelism is no value of a config.json
        if not name.startswith(("_", "base_model_")) and not callable(getattr(config_class, name, None))
    )


def model_class(mapping: Any, config_class: type[PretrainedConfig]) -> Any:
    """Return transformers' model class of a family; the first one where there are several."""
    found = mapping[config_class]
    return found[0] if isinstance(found, list | tuple) else found


def label_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the label names of a config.json in the order of the outputs; () where it names none."""
    id2label = raw.get("id2label")
    if not isinstance(id2label, dict) or not id2label:
        return ()
    try:
        by_index = {int(key): str(value) for key, value in id2label.items()}
    except ValueError:
        return ()
    names = tuple(by_index[index] for index in sorted(by_index))
    is_default = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return () if is_default or sorted(by_index) != list(range(len(names))) else names


def _config_class(raw: Mapping[str, Any], where: str) -> type[PretrainedConfig]:
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ModelError(
            f"the model's family {model_type!r} is not one that transformers has",
            where=where,
            next=suggestion(str(model_type), ("bert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta"))
            + ", and any other encoder of AutoModel",
        )
    config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    if config_class not in MODEL_MAPPING or getattr(config_class, "sub_configs", None):
        raise ModelError(
            f"the family {model_type!r} is not a plain text encoder", where=where, next="name an encoder, e.g. minilm"
        )
    for key in ("is_encoder_decoder", "is_decoder", "add_cross_attention"):
        if raw.get(key, getattr(config_class, key, False)):
            raise ModelError(
                f"the model is no encoder: {key} is true", where=where, next="name an encoder, e.g. minilm"
            )
    return config_class


def _refuse_forbidden(raw: Mapping[str, Any], where: str) -> None:
    found = sorted(key for key in raw if key in _REFUSED and raw[key] not in (None, False))
    if found:
        raise ModelError(
            f"config.json asks for what Headrace never does (code or kernels from outside): {', '.join(found)}",
            where=where,
            next="take a model that transformers runs by itself, or remove these keys if you trust the weights alone",
        )


def _check_value(key: str, value: object, where: str, depth: int = 0) -> None:
    """Refuse values that no encoder has; sizes are checked by what their names say."""
    problem = None
    if depth > _MAX_DEPTH:
        problem = "is nested too deeply"
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        limit = _limit(key)
        if not -limit <= value <= limit:
            problem = f"is {value}, beyond the limit of {limit:,}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            problem = f"is {value}"
    elif isinstance(value, str):
        if len(value) > _MAX_STRING:
            problem = f"is a text of {len(value):,} characters"
    elif isinstance(value, list | dict):
        if len(value) > _MAX_ITEMS:
            problem = f"has {len(value):,} entries"
        else:
            for name, item in value.items() if isinstance(value, dict) else ((key, item) for item in value):
                _check_value(str(name), item, where, depth + 1)
    if problem:
        raise ModelError(f"config.json: {key} {problem}", where=where, next="the file is damaged or made to do harm")


def _limit(key: str) -> int:
    if "layers" in key or key in {"n_layer", "depth"}:
        return 1024
    if "heads" in key or key == "n_head":
        return 4096
    if "intermediate" in key or key == "hidden_dim":
        return 262_144
    if ("size" in key and "vocab" not in key) or "width" in key or key in {"dim", "d_model", "d_ff", "n_embd"}:
        return 65_536
    return _MAX_INTEGER


def _check_size(config: PretrainedConfig, where: str) -> None:
    width = int(getattr(config, "hidden_size", 0) or 0)
    n_layers = int(getattr(config, "num_hidden_layers", 0) or 0)
    between = int(getattr(config, "intermediate_size", 0) or 4 * width)
    rows = int(getattr(config, "vocab_size", 0) or 0) + int(getattr(config, "max_position_embeddings", 0) or 0)
    # four square matrices of attention and two of the feed-forward, a layer
    n_parameters = rows * width + n_layers * (4 * width * width + 2 * width * between)
    if width <= 0 or n_parameters > MAX_PARAMETERS:
        raise ModelError(
            f"the model would have {n_parameters:,} parameters at width {width}; at most {MAX_PARAMETERS:,} are built",
            where=where,
            next="the file is damaged or made to do harm",
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
