"""Loading: safetensors only, clear refusals, content fingerprints, exact heads."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.identity import fingerprint
from cluster.models.loading import (
    ModelSource,
    import_transformers,
    load_model,
    load_tokenizer,
)
from cluster.models.proof import prove
from cluster.models.vocabulary import decoder_of
from tests.architectures import tiny_model as build

TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
ARCHITECTURES = {
    "llama": ("LlamaConfig", TINY | {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2Config", TINY | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", TINY | {"num_key_value_heads": 1, "head_dim": 8}),
    "mistral": ("MistralConfig", TINY | {"num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2Config",
        TINY | {"num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 5.0},
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "gpt_neox": ("GPTNeoXConfig", TINY),
    "gemma": ("GemmaConfig", TINY | {"num_key_value_heads": 1, "head_dim": 8}),
    "granite": ("GraniteConfig", TINY | {"num_key_value_heads": 1, "logits_scaling": 3.0}),
}

OTHERS = {
    "cohere": ("CohereConfig", TINY | {"num_key_value_heads": 1, "logit_scale": 0.25}),
    "gemma3_text": (
        "Gemma3TextConfig",
        TINY
        | {
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mamba": ("MambaConfig", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    "lfm2": ("Lfm2Config", TINY | {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]}),
    "phimoe": (
        "PhimoeConfig",
        TINY | {"num_key_value_heads": 1, "num_local_experts": 2, "sliding_window": 9},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        TINY
        | {
            "num_key_value_heads": 2,
            "moe_intermediate_size": 8,
            "n_routed_experts": 2,
            "num_experts_per_tok": 1,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 2,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
        },
    ),
    "bloom": ("BloomConfig", {"vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "falcon_h1": (
        "FalconH1Config",
        TINY
        | {
            "num_key_value_heads": 1,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 16,
        },
    ),
    "llama4_text": (
        "Llama4TextConfig",
        TINY
        | {
            "num_key_value_heads": 1,
            "head_dim": 8,
            "intermediate_size_mlp": 32,
            "num_local_experts": 1,
            "moe_layers": [],
            "attention_chunk_size": 8,
        },
    ),
}


def random_model(kind: str, **changes: Any) -> torch.nn.Module:
    transformers = import_transformers()
    torch.manual_seed(0)
    name, shape = (ARCHITECTURES | OTHERS)[kind]
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, name)(**shape | changes), dtype=torch.float32
    )
    return model.eval()


def test_pickle_weights_are_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin.*safetensors"):
        load_model(ModelSource(str(tmp_path / "m")))


def test_a_missing_directory_and_one_without_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model there"):
        check_model_directory(str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match=r"config\.json"):
        check_model_directory(str(tmp_path))


def test_a_copied_model_keeps_its_fingerprint_and_a_changed_weight_changes_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    copy = ModelSource(str(tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(ModelSource(str(tiny_model)))
    model = load_model(copy)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    load_tokenizer(copy).save_pretrained(tmp_path / "other")
    assert fingerprint(ModelSource(str(tmp_path / "other"))) != fingerprint(copy)


def wide_model(directory: Path) -> Path:
    """An untrained model of 17 MiB with the miniature's tokenizer."""
    from jobs.miniature.initial_model import make_initial_model

    make_initial_model(directory, seed=1)
    transformers = import_transformers()
    shape = {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 96,
    }
    config = transformers.AutoConfig.from_pretrained(directory)
    for name, value in shape.items():
        setattr(config, name, value)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_projection_of_chosen_positions_equals_the_models_own_logits(kind: str) -> None:
    model = random_model(kind)
    head = prove(model, ("projection",)).head
    assert head.own is None
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, 3:5]
        got = head.logits(decoder_of(model)(input_ids=ids).last_hidden_state[:, 3:5])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_head_that_is_not_the_plain_one_is_found_out_and_the_models_own_is_used() -> None:
    """A family that scales its logits in a way nobody here knows of."""
    model = random_model("llama")
    model.lm_head.register_forward_hook(lambda _m, _i, out: out * 3.0)
    model.config.logits_scaling = 7.0
    proof = prove(model, ("projection",))
    assert "logits differ from the plain way's" in proof.fallbacks["projection"]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        hidden = decoder_of(model)(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(proof.head.logits(hidden), model(input_ids=ids).logits[0])


def test_code_that_a_model_brings_along_is_part_of_what_it_is(tiny_model: Path, tmp_path: Path) -> None:
    """A changed modeling file under the same weights gives other answers; its fingerprint was the same."""
    shutil.copytree(tiny_model, tmp_path / "m")
    source = ModelSource(str(tmp_path / "m"), trust_remote_code=True)
    before = fingerprint(source)
    (tmp_path / "m" / "parts").mkdir()
    (tmp_path / "m" / "parts" / "modeling_own.py").write_text("SCALE = 1\n")
    with_code = fingerprint(source)
    (tmp_path / "m" / "parts" / "modeling_own.py").write_text("SCALE = 2\n")
    assert len({before, with_code, fingerprint(source)}) == 3


HUB = """
import json, sys
from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.identity import fingerprint, pinned
from cluster.models.loading import ModelSource, load_model, load_tokenizer
plain, named = ModelSource("acme/tiny"), ModelSource("acme/tiny", revision="v1")
found = [pinned(plain).revision, pinned(named).revision, fingerprint(plain), fingerprint(named)]
found.append(load_model(pinned(plain)).config.hidden_size + len(load_tokenizer(pinned(plain))) * 0)
try:
    pinned(ModelSource("acme/other"))
except BadInput as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.long
def test_a_hub_model_without_a_revision_is_known_and_loaded_by_its_commit(
    tiny_model: Path, tmp_path: Path
) -> None:
    """It was `@None`, so new weights under the same name were taken for the old ones. The hub is a filled
    cache here.
    """

    def run(main: str) -> list[Any]:
        hub = tmp_path / "hub"
        model = hub / "models--acme--tiny"
        for commit in ("a" * 40, "b" * 40):
            if not (model / "snapshots" / commit).exists():
                shutil.copytree(tiny_model, model / "snapshots" / commit)
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(main)
        (model / "refs" / "v1").write_text("b" * 40)
        environment = os.environ | {
            "HF_HUB_CACHE": str(hub),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        done = subprocess.run(
            [sys.executable, "-c", HUB],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return list(json.loads(done.stdout.splitlines()[-1]))

    first, second = run("a" * 40), run("b" * 40)
    assert first[:2] == ["a" * 40, "b" * 40]
    assert second[0] == "b" * 40
    assert first[2] != first[3] == second[2]
    assert first[4] == 96
    assert "cannot find the model; got acme/other" in first[5]


def test_threads_that_load_at_once_get_whole_models(tmp_path: Path) -> None:
    """transformers swaps a function while it loads: weights stayed untied, in the process for good."""
    build("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(lambda _: load_model(ModelSource(str(tmp_path))), range(8)))
    for model in [*models, load_model(ModelSource(str(tmp_path)))]:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
