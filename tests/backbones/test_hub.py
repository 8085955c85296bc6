"""The hub path against a small stand-in for the hub on loopback that serves a tiny BERT."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time

import huggingface_hub
import pytest
import torch
from transformers import AutoModel

from headrace.backbones import transformer
from headrace.errors import ModelError
from hub_stand_in import COMMIT, StandIn


@pytest.fixture
def hub(encoders, tmp_path):
    sharded, pickled, evil, half = (tmp_path / name for name in ("sharded", "pickled", "evil", "half"))
    AutoModel.from_pretrained(encoders["bert"]).save_pretrained(sharded, max_shard_size="20KB")
    for folder in (pickled, evil, half):
        shutil.copytree(encoders["bert"], folder)
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    config = json.loads((evil / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    (half / "config.json").unlink()
    server = StandIn(
        {
            "owner/tiny-bert": encoders["bert"],
            "owner/sharded": sharded,
            "owner/pickled": pickled,
            "owner/evil": evil,
            "owner/half": half,
        }
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def use_hub(hub, tmp_path, monkeypatch):
    """Point the hub's client, which read its environment on import, to the stand-in and a fresh cache."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    return hub


def fetched(hub: StandIn) -> set[str]:
    """Return the names of the repository's files that were asked for; the client also asks for things of its own."""
    return {request.rsplit("/", 1)[1] for request in hub.requests if "/resolve/" in request}


def point_to(monkeypatch, old: str, new: str) -> None:
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        value = getattr(huggingface_hub.constants, name)
        monkeypatch.setattr(huggingface_hub.constants, name, value.replace(old, new))


def refusal(name: str, **arguments) -> ModelError:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        transformer.load(name, **arguments)
    assert time.monotonic() - start < 10
    return caught.value


@pytest.mark.slow
def test_a_hub_id_in_a_fresh_process_gives_the_served_weights(hub, encoders, tmp_path):
    program = (
        "import sys, torch\n"
        "from headrace.backbones import transformer\n"
        "model = transformer.load('owner/tiny-bert', revision='v1')\n"
        "torch.save(model.state_dict(), sys.argv[1])\n"
        "print(model.config()['source']['revision'])\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("HF_HUB_CACHE", None)
    environment.pop("HF_HUB_OFFLINE", None)
    saved = tmp_path / "state.pt"
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == COMMIT
    expected = transformer.load(str(encoders["bert"])).state_dict()
    state = torch.load(saved, weights_only=True)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert "HEAD /owner/tiny-bert/resolve/v1/config.json" in hub.requests
    assert fetched(hub) == {"config.json", "model.safetensors"}


def test_sharded_weights_come_whole(use_hub, encoders):
    expected = transformer.load(str(encoders["bert"]))
    found = transformer.load("owner/sharded")
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))


def test_only_the_config_is_fetched_for_random_weights(use_hub):
    transformer.load("owner/tiny-bert", weights="none")
    assert fetched(use_hub) == {"config.json"}


def test_a_repository_without_safetensors_is_refused_and_nothing_pickled_is_fetched(use_hub):
    error = refusal("owner/pickled")
    assert error.what.startswith("the model has no model.safetensors")
    assert error.where == "backbone: owner/pickled"
    assert not [request for request in use_hub.requests if request.endswith(".bin")]


def test_a_repository_with_code_is_refused(use_hub):
    assert refusal("owner/evil").what.endswith("(code or kernels from outside): auto_map")
    assert not [request for request in use_hub.requests if request.endswith(".py")]


def test_an_unknown_model_revision_or_file_is_named(use_hub):
    error = refusal("owner/unknown")
    assert error.what == "the hub has no model 'owner/unknown', or it is private"
    assert error.where == "backbone: owner/unknown"
    assert refusal("owner/tiny-bert", revision="v9").what == "the model 'owner/tiny-bert' has no revision 'v9'"
    assert refusal("owner/half").what == "the model 'owner/half' has no config.json on the hub"
    assert refusal("gated/model").what == "the model 'gated/model' is gated"


def test_no_network_ends_in_one_clear_error_within_seconds(use_hub, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    point_to(monkeypatch, use_hub.url, closed)
    error = refusal("owner/tiny-bert")
    assert error.what.startswith("the model 'owner/tiny-bert' is not on this machine and the hub cannot be reached: ")
    assert error.where == "backbone: owner/tiny-bert"
    assert "backbone: minilm" in error.next


@pytest.mark.parametrize("way", ["hub is gone", "offline is set"])
def test_a_fetched_model_loads_again_without_the_hub(way, use_hub, monkeypatch):
    first = transformer.load("owner/tiny-bert", revision="v1")
    n_before = len(use_hub.requests)
    if way == "offline is set":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        point_to(monkeypatch, use_hub.url, "http://127.0.0.1:9")
    again = transformer.load("owner/tiny-bert", revision="v1")
    assert len(use_hub.requests) == n_before
    assert again.config()["source"]["revision"] == COMMIT
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert "cannot be reached" in refusal("owner/tiny-bert", revision="v2").what


def test_a_model_of_which_only_the_config_was_fetched_says_what_is_missing(use_hub, monkeypatch):
    transformer.load("owner/tiny-bert", weights="none")
    point_to(monkeypatch, use_hub.url, "http://127.0.0.1:9")
    error = refusal("owner/tiny-bert")
    assert error.what == "model.safetensors of 'owner/tiny-bert' is not on this machine and the hub cannot be reached"
