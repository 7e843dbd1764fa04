"""The ways to load a model: quantized, with an adapter, from GGUF, in shards, from a mirror, from the disk."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from batchchat.models import load_model, load_tokenizer
from batchchat.models.identity import model_identity
from batchchat.recipe.schema import ModelSection
from tests.support import zoo

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small"
    zoo.byte_bpe().save_pretrained(path)
    zoo.llama(seed=3).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers are wide enough for whole blocks of 4-bit weights."""
    path = tmp_path_factory.mktemp("models") / "wide"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=480, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def section(name: str | Path, **values: Any) -> ModelSection:
    return ModelSection.model_validate({"name": str(name), **values})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def refusal(name: str | Path, **values: Any) -> BatchchatError:
    with pytest.raises(BatchchatError) as caught:
        load_model(section(name, **values))
    assert "\n" not in str(caught.value)
    return caught.value


# bitsandbytes


@pytest.mark.filterwarnings("default")  # bitsandbytes speaks of the casts that it makes on a CPU
def test_options_of_bitsandbytes_reach_the_layers(wide: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    options = {"type": "fp4", "double_quantization": True, "compute_dtype": "float32", "skip_modules": ["o_proj"]}
    model = load_model(section(wide, quantization="4bit", bitsandbytes=options))
    layer = model.model.layers[0]
    assert type(layer.self_attn.q_proj) is Linear4bit
    state = layer.self_attn.q_proj.weight.quant_state
    assert (state.quant_type, state.nested, layer.self_attn.q_proj.compute_dtype) == ("fp4", True, torch.float32)
    assert type(layer.self_attn.o_proj) is torch.nn.Linear
    assert type(model.lm_head) is torch.nn.Linear
    assert torch.isfinite(logits(model)).all()


@pytest.mark.filterwarnings("default")
def test_a_checkpoint_that_is_quantized_already_loads_as_it_is(wide: Path, tmp_path: Path) -> None:
    saved = load_model(section(wide, quantization="4bit"))
    saved.save_pretrained(tmp_path)
    assert torch.equal(logits(load_model(section(tmp_path))), logits(saved))
    error = refusal(tmp_path, quantization="8bit")
    assert "quantized already (bitsandbytes)" in str(error)
    assert "model.quantization=none" in str(error)


def test_a_quantizer_that_is_not_installed_is_named(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    error = refusal(tmp_path)
    assert isinstance(error, EnvironmentFault)
    assert "needs a package that is missing" in str(error)


# adapters


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    peft = pytest.importorskip("peft", reason="adapters need peft: pip install 'batchchat[peft]'")
    model = load_model(section(folder))
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(5)
    model.add_adapter(lora)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_beside_the_weights_or_merged_gives_the_same(folder: Path, adapter: Path) -> None:
    plain = load_model(section(folder))
    beside = load_model(section(folder, adapter=str(adapter)))
    merged = load_model(section(folder, adapter=str(adapter), merge_adapter=True))
    assert type(beside) is type(merged) is type(plain)
    assert not torch.allclose(logits(beside), logits(plain), atol=1e-2)
    assert torch.allclose(logits(beside), logits(merged), atol=1e-4)
    assert merged.num_parameters() == plain.num_parameters() < beside.num_parameters()


def test_an_adapter_is_part_of_what_the_model_is(folder: Path, adapter: Path) -> None:
    with_one = model_identity(section(folder, adapter=str(adapter)))
    assert with_one != model_identity(section(folder))
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert model_identity(section(folder, adapter=str(adapter))) != with_one


def test_what_is_no_adapter(folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no adapter_config.json" in str(refusal(folder, adapter=str(folder)))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "can run code when read" in str(refusal(folder, adapter=str(adapter)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'batchchat[peft]'" in str(refusal(folder, adapter=str(adapter)))


# GGUF


def write_gguf(path: Path) -> None:
    """The small Llama as GGUF, with a tokenizer of its own."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'batchchat[gguf]'")
    model = zoo.llama(seed=3)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    tokens = [f"<{n}>" for n in range(config.vocab_size)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([1] * len(tokens))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # GGUF keeps the two halves of a rotation interleaved
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = tensor.view(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_the_model_that_is_in_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    model = load_model(section(tmp_path, gguf_file="small.gguf", dtype="float32"))
    assert torch.allclose(logits(model), logits(zoo.llama(seed=3)), atol=1e-4)
    assert "holds no other.gguf" in str(refusal(tmp_path, gguf_file="other.gguf"))


# shards, disk, mirror


def test_weights_that_are_missing_are_never_made_up(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    error = refusal(tmp_path)
    assert "lacks 1 of the model's weights (model.layers.1.mlp.up_proj.weight)" in str(error)


def test_shards_make_the_same_model(folder: Path, tmp_path: Path) -> None:
    zoo.llama(seed=3).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(logits(load_model(section(tmp_path))), logits(load_model(section(folder))))


def test_weights_on_the_disk_are_computed_with(folder: Path, tmp_path: Path) -> None:
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    model = load_model(section(folder, device_map=places, offload_folder=str(tmp_path / "weights")))
    assert next(model.model.layers[1].parameters()).device.type == "meta"
    assert torch.allclose(logits(model), logits(load_model(section(folder))), atol=1e-5)


class Mirror(BaseHTTPRequestHandler):
    """As much of a hub as fetching a model needs."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, *args: Any, folder: Path, asked: list[str]):
        self.folder, self.asked = folder, asked
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        names = [file.name for file in self.folder.iterdir()]
        if path.startswith("/api/models/someone/small/revision/"):
            siblings = [{"rfilename": name} for name in names]
            return self._send(json.dumps({"id": "someone/small", "sha": self.COMMIT, "siblings": siblings}).encode())
        if path.startswith("/api/models/someone/small/tree/"):
            entries = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
            return self._send(json.dumps(entries).encode())
        if path.startswith("/someone/small/resolve/") and path.split("/")[-1] in names:
            return self._send((self.folder / path.split("/")[-1]).read_bytes())
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        return None

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def mirror(folder: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, folder=folder, asked=asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_mirror_gives_the_model(
    folder: Path, mirror: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    endpoint, asked = mirror
    mine = section("someone/small", endpoint=endpoint, cache_dir=str(tmp_path))
    assert torch.equal(logits(load_model(mine)), logits(load_model(section(folder))))
    assert len(load_tokenizer(mine)) == len(zoo.byte_bpe())
    assert any(path.endswith("model.safetensors") for path in asked)
    with pytest.raises(UsageError, match="neither a folder here nor on the hub"):
        load_model(section("someone/else", endpoint=endpoint, cache_dir=str(tmp_path)))
