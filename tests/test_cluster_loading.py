"""Loading: safetensors only, clear refusals, content fingerprints, exact heads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.heads import check_projection, decoder_of, project
from cluster.loading import ModelSource, check_model_directory, fingerprint, import_transformers, load_model, load_tokenizer

TINY = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ARCHITECTURES = {
    "llama": ("LlamaConfig", TINY | {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2Config", TINY | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", TINY | {"num_key_value_heads": 1, "head_dim": 8}),
    "mistral": ("MistralConfig", TINY | {"num_key_value_heads": 1}),
    "gemma2": ("Gemma2Config", TINY | {"num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 5.0}),
    "gpt2": ("GPT2Config", {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "gpt_neox": ("GPTNeoXConfig", TINY),
    "gemma": ("GemmaConfig", TINY | {"num_key_value_heads": 1, "head_dim": 8}),
    "granite": ("GraniteConfig", TINY | {"num_key_value_heads": 1, "logits_scaling": 3.0}),
}

OTHERS = {
    "gemma3_text": (
        "Gemma3TextConfig",
        TINY
        | {"num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "mamba": ("MambaConfig", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    "lfm2": ("Lfm2Config", TINY | {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]}),
    "phimoe": ("PhimoeConfig", TINY | {"num_key_value_heads": 1, "num_local_experts": 2, "sliding_window": 9}),
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
        | {"num_key_value_heads": 1, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16},
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
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**shape | changes), dtype=torch.float32)
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


def test_a_copied_model_keeps_its_fingerprint_and_a_changed_weight_changes_it(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    copy = ModelSource(str(tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(ModelSource(str(tiny_model)))
    model = load_model(copy)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    load_tokenizer(copy).save_pretrained(tmp_path / "other")
    assert fingerprint(ModelSource(str(tmp_path / "other"))) != fingerprint(copy)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_projection_of_chosen_positions_equals_the_models_own_logits(kind: str) -> None:
    model = random_model(kind)
    check_projection(model)
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, 3:5]
        got = project(model, decoder_of(model)(input_ids=ids).last_hidden_state[:, 3:5])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_an_architecture_whose_head_is_not_the_plain_one_is_refused() -> None:
    model = random_model("llama")
    model.config.logits_scaling = 7.0  # as if a new family scaled its logits in a way heads.py does not know
    with pytest.raises(BadInput, match="vocabulary projection of llama"):
        check_projection(model)
