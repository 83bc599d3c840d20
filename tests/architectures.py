"""Every causal language model that the installed transformers can build, at tiny size, generated from its
config class.

Sizes are set by the names of a config's fields, at every depth; some architectures need more. Windows and
chunks are a few tokens wide, so that short texts cross them. What `LEFT_OUT` names cannot be built small.
"""

import dataclasses
from typing import Any

import torch

from cluster.models.loading import import_transformers

LAYERS, VOCABULARY, POSITIONS, WINDOW = 4, 97, 256, 7
# Field name -> value, where a config has a field of that name.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "lru_width"), 32
    ),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "decoder_ffn_dim", "mamba_d_ssm"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(
        ("head_dim", "qk_nope_head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank", "kv_channels"), 8
    ),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "block_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("sliding_window", "local_attention", "window_size", "attention_window_size"), WINDOW),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16
    ),
    **dict.fromkeys(
        ("num_local_experts", "num_experts", "n_routed_experts", "rotary_dim", "qk_rope_head_dim"), 4
    ),
    **dict.fromkeys(("conv_kernel",), 4),
    **dict.fromkeys(
        ("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "encoder_layers"), 1
    ),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups", "bos_token_id", "is_decoder"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    **dict.fromkeys(("dropout", "resid_pdrop", "embd_pdrop", "hidden_dropout_prob"), 0.0),
    "is_decoder": True,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "image_size": 16,
    "patch_size": 8,
}
LATENT = {"num_key_value_heads": 4}  # multi-head latent attention has as many key heads as query heads
VISION = {
    **dict.fromkeys(("hidden_size", "intermediate_size"), 32),
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
# Further values of single architectures.
FURTHER: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"), LATENT
    ),
    **dict.fromkeys(("minicpm3", "youtu"), LATENT),
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    },
    "gemma3": {"vision_config": {"model_type": "siglip_vision_model"} | VISION},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "layer_types": ["mamba", "attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "bailing_hybrid": LATENT | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": LATENT
    | {
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "longcat_flash": LATENT
    | {"head_dim": 4, "qk_head_dim": 12, "zero_expert_num": 2, "expert_ffn_hidden_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen4_exp_text": {"layer_types": ["linear_attention"] * 4},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 8, "mamba_headdim": 8},
    "zaya": {"num_experts_per_tok": 1},
}
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(("blt", "cpmant", "roc_bert", "xlm"), "its tables have sizes of their own"),
    **dict.fromkeys(
        ("fuyu", "got_ocr2", "moss_transcribe_diarize", "gemma4_unified"),
        "the parts beside the text cannot be made small",
    ),
    **dict.fromkeys(("phi4_multimodal", "dots3_note"), "the parts beside the text cannot be made small"),
    **dict.fromkeys(("moshi", "musicgen", "musicgen_melody"), "speaks in sounds"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "drafts for another model"),
    **dict.fromkeys(
        ("dbrx", "zamba", "reformer", "dots3_note_text"), "its config class does not build another size"
    ),
    "gemma3n": "needs the library timm",
}


def model_types() -> list[str]:
    """The model types that the installed transformers loads as causal language models."""
    import_transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if kind not in LEFT_OUT]


def tiny_config(kind: str, **changes: Any) -> Any:
    """The config of a model type at tiny size."""
    from transformers import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[kind], changes)


def _shrunk(cls: Any, changes: dict[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(cls)}
    values = {name: value for name, value in SMALL.items() if name in names}
    for name, part in getattr(cls, "sub_configs", {}).items():
        if hasattr(part, "model_type"):
            values[name] = _shrunk(part, {}).to_dict()
    return cls(**values | FURTHER.get(cls.model_type, {}) | changes)


def tiny_model(kind: str, **changes: Any) -> Any:
    """An untrained model of a type, float32, in evaluation mode; weights large enough that leaks show."""
    transformers = import_transformers()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(kind, **changes), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()
