"""The untrained model that every model of the miniature world starts from, and its tokenizer."""

from pathlib import Path
from typing import Any

from cluster.models.loading import deepspeed_hidden, import_transformers
from jobs.miniature.tasks import DIALECTS, draw_episodes, work_out

WIDTH, LAYERS, HEADS = 96, 2, 4
VOCABULARY = 400
MAX_POSITIONS = 512
TEMPLATE = (
    "{%- for m in messages %}{%- if m['role'] == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    "{%- generation %}{{- m['content'] + '<|im_end|>' }}{%- endgeneration %}{{- '\n' }}"
    "{%- else %}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- "
    "endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def make_initial_model(directory: Path, seed: int) -> None:
    """Write an untrained Qwen3-shaped model with a byte-level BPE tokenizer learned from worked episodes."""
    import torch

    transformers = import_transformers()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_learned_bpe(seed),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=WIDTH // HEADS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with deepspeed_hidden():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _learned_bpe(seed: int) -> Any:
    """A byte-level BPE tokenizer learned from episodes worked in every dialect."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    sample = draw_episodes(1500, seed + 1)
    corpus = [e.question for e in sample] + [work_out(e, d) for e in sample for d in DIALECTS]
    bpe = Tokenizer(models.BPE())
    label = Regex("(?<![a-z])[t-z](?![a-z])")  # an operation's label is a token of its own
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(label, "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return bpe
