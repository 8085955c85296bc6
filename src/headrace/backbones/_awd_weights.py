"""Reads the AWD-LSTM weights that fastai publishes or saves, and fits their words to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.backbones._awd_layers import Sizes
from headrace.errors import ModelError

_PUBLISHED = "https://s3.amazonaws.com/fast-ai-modelzoo/wt103-fwd.tgz (for backward: wt103-bwd.tgz)"
_VOCABULARIES = (".pkl", ".json", ".txt")
_MAX_SHOWN = 5
# fastai's names: `0.` is the encoder of a language model, without it an encoder that was saved alone.
_TABLE = "encoder.weight"
_TABLE_COPY = "encoder_dp.emb.weight"
_DECODER, _BIAS = "1.decoder.weight", "1.decoder.bias"
_RECURRENT_COPY = re.compile(r"rnns\.\d+\.module\.weight_hh_l0")


@dataclass(frozen=True)
class Found:
    """Weights that were read, under our names, for our words.

    Attributes:
        tensors: The state dict of an `AwdLstm`, float32.
        bias: Of the decoder, [words] float32, where the file has one.
        source: Where they come from, for the record; `n_matched` says how many of our words they knew.
    """

    tensors: dict[str, Tensor]
    bias: Tensor | None
    source: dict[str, Any]


def read(weights: str, vocabulary: str | None, *, sizes: Sizes, words: Sequence[str] | None) -> Found:
    """Return the weights of a .pth file; the words are matched one by one, a new one gets the mean of all.

    Args:
        weights: The file, or a folder with one .pth.
        vocabulary: The weights' own words: a file; None for the one beside the weights.
        sizes: What the weights must have.
        words: Our vocabulary; None for that of the weights.

    Raises:
        ModelError: A file is missing or unreadable, holds anything but tensors, lacks a tensor or has unknown ones, or
            sizes or vocabulary differ.
    """
    path = find_weights(weights)
    tensors, bias = read_tensors(path, sizes=sizes)
    table = tensors["embedding.weight"]
    source: dict[str, Any] = {"weights": path.name, "n_words": len(table)}
    if words is None and vocabulary is None:
        return Found(tensors, bias, source)
    their_path = find_vocabulary(path, vocabulary)
    theirs = _words_of(their_path)
    if len(theirs) != len(table):
        raise ModelError(
            f"the vocabulary has {len(theirs):,} words and the weights have {len(table):,}",
            where=f"{their_path} and {path}",
            next="give the vocabulary that these weights were trained with: backbone: {vocabulary: …}",
        )
    if words is None:
        return Found(tensors, bias, source)
    tensors["embedding.weight"] = match_words(table, theirs=theirs, ours=words)
    if bias is not None:
        bias = match_words(bias, theirs=theirs, ours=words)
    known = set(theirs)
    return Found(tensors, bias, {**source, "n_matched": sum(word in known for word in words)})


def find_weights(weights: str) -> Path:
    """Return the .pth file of a path: itself, or the only one of a folder.

    Raises:
        ModelError: There is none or there are several; `pretrained` names no path.
    """
    path = Path(weights).expanduser()
    if weights == "pretrained" and not path.exists():
        raise ModelError(
            "the pretrained weights of awd_lstm are not downloaded by Headrace",
            where="backbone: weights",
            next=f"unpack fastai's {_PUBLISHED} and give its folder: backbone: {{name: awd_lstm, weights: wt103-fwd}}; "
            "or train from scratch with weights: none",
        )
    return _only_one(path, (".pth",), what="weights")


def find_vocabulary(weights: Path, vocabulary: str | None) -> Path:
    """Return the file with the weights' own words: the given one, or the only .pkl, .json or .txt beside the weights.

    Raises:
        ModelError: There is none, or there are several.
    """
    return _only_one(Path(vocabulary).expanduser() if vocabulary else weights.parent, _VOCABULARIES, what="vocabulary")


def read_tensors(path: Path, *, sizes: Sizes) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return a file's tensors under our names, float32, and the decoder's bias or None.

    Raises:
        ModelError: It holds anything but tensors, lacks one, has an unknown one, one of another shape, or one that is
            not finite; the decoder is not tied to the embeddings.
    """
    raw = _without_copies(_loaded(path), path)
    ours = {_TABLE: "embedding.weight"}
    for number in range(sum(name.endswith(".weight_hh_l0_raw") for name in raw)):
        ours[f"rnns.{number}.weight_hh_l0_raw"] = f"layers.{number}.weight_hh"
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            ours[f"rnns.{number}.module.{name}_l0"] = f"layers.{number}.{name}"
    missing, unknown = sorted(set(ours) - set(raw)), sorted(set(raw) - set(ours) - {_BIAS})
    if missing or unknown or len(ours) == 1:
        faults = [f"lack {_listed(missing)}"] if missing else []
        faults += [f"hold the unknown {_listed(unknown)}"] if unknown else []
        raise ModelError(
            f"these weights are not those of an AWD-LSTM: they {' and '.join(faults or ['have no layers'])}",
            where=str(path),
            next="take a language model or an encoder that fastai published or saved",
        )
    _check_shapes(raw, path, sizes)
    found = {ours[name]: tensor for name, tensor in raw.items() if name in ours}
    return found, raw.get(_BIAS)


def match_words(rows: Tensor, *, theirs: Sequence[str], ours: Sequence[str]) -> Tensor:
    """Return the rows of our words, in our order; a word that is not among theirs gets the mean of all rows.

    Args:
        rows: [their words, …] float32.
        theirs: Their words. Of a word that stands there twice the last row counts.
        ours: Our words.
    """
    place = {word: number for number, word in enumerate(theirs)}
    with_mean = torch.cat([rows, rows.mean(dim=0, keepdim=True)])
    return with_mean[torch.tensor([place.get(word, len(rows)) for word in ours], dtype=torch.int64)]


def _only_one(path: Path, endings: tuple[str, ...], *, what: str) -> Path:
    wanted = " or ".join(endings)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in endings and file.is_file())
        if len(files) == 1:
            return files[0]
        counted = f"{len(files)} files that could be it ({_listed([file.name for file in files])})" if files else "none"
        raise ModelError(
            f"the {what} should be the only {wanted} of the folder, but there are {counted}",
            where=str(path),
            next=f"name the file: backbone: {{{what}: …}}",
        )
    if path.suffix not in endings or not path.is_file():
        problem = "is not there" if not path.exists() else f"is no {wanted} file"
        raise ModelError(
            f"the {what} {path.name!r} {problem}", where=f"backbone: {what}: {path}", next=f"give a {wanted}"
        )
    return path


def _words_of(path: Path) -> tuple[str, ...]:
    # late: whoever has no published weights needs no reader of pickles
    from headrace.text.vocabulary import read_vocabulary

    return read_vocabulary(path).words


def _loaded(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .pth file by name, without `model` around them and without the prefix of the encoder."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler lets any kind through on a damaged file
        # torch's own words advise to unpickle whatever is there, which is never done here
        raise ModelError(
            f"the weights cannot be read as tensors alone ({type(error).__name__}): damaged, or not a file of weights",
            where=str(path),
            next="take the file as it was published; nothing else is unpickled",
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(
            "the file holds something else than named tensors", where=str(path), next="take a state dict of fastai"
        )
    named = {str(name): tensor.detach() for name, tensor in state.items()}
    for name, tensor in named.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested or not tensor.is_floating_point():
            raise ModelError(
                f"{name!r} is no plain tensor of numbers", where=str(path), next="take the file as it was published"
            )
    whole = any(name.startswith("0.") for name in named)
    return {(name.removeprefix("0.") if whole else name): tensor for name, tensor in named.items()}


def _without_copies(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop what fastai keeps twice: the table, the tied decoder, and the recurrent weights after dropout."""
    table = raw.get(_TABLE)
    for name in (_TABLE_COPY, _DECODER):
        copy = raw.pop(name, None)
        if copy is not None and table is not None and not torch.equal(copy, table):
            raise ModelError(
                f"the decoder of these weights is not tied to their embeddings: {name} differs",
                where=str(path),
                next="take weights that were trained with tied weights",
            )
    for name in [name for name in raw if _RECURRENT_COPY.fullmatch(name)]:
        kept = name.replace(".module.weight_hh_l0", ".weight_hh_l0_raw")
        raw.setdefault(kept, raw[name])
        del raw[name]
    return {name: tensor.float().contiguous() if tensor.is_floating_point() else tensor for name, tensor in raw.items()}


def _check_shapes(raw: Mapping[str, Tensor], path: Path, sizes: Sizes) -> None:
    n_layers = sum(name.endswith("_raw") for name in raw)
    table, first = raw[_TABLE], raw["rnns.0.weight_hh_l0_raw"]
    if table.dim() == 2 and first.dim() == 2:
        hidden = sizes.hidden_size if n_layers == 1 else int(first.shape[1])
        have = asdict(Sizes(int(table.shape[1]), hidden, n_layers))
        wrong = {key: size for key, size in have.items() if size != asdict(sizes)[key]}
        if wrong:
            shown = ", ".join(f"{key} {size} and not {asdict(sizes)[key]}" for key, size in wrong.items())
            raise ModelError(
                f"the weights have {shown}",
                where=str(path),
                next=f"backbone: {{{', '.join(f'{key}: {size}' for key, size in wrong.items())}}}",
            )
    n_words = len(table) if table.dim() else 0
    expected: dict[str, tuple[int, ...]] = {_TABLE: (n_words, sizes.embedding_size), _BIAS: (n_words,)}
    widths = sizes.layer_widths
    for number, (below, above) in enumerate(pairwise(widths)):
        expected[f"rnns.{number}.weight_hh_l0_raw"] = (4 * above, above)
        expected[f"rnns.{number}.module.weight_ih_l0"] = (4 * above, below)
        for name in ("bias_ih", "bias_hh"):
            expected[f"rnns.{number}.module.{name}_l0"] = (4 * above,)
    for name, tensor in raw.items():
        if tuple(tensor.shape) != expected[name]:
            raise ModelError(
                f"{name} has the shape {list(tensor.shape)}, not {list(expected[name])}",
                where=str(path),
                next="take weights of one model",
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} holds NaN, infinity, or no floats", where=str(path), next="take other weights")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
