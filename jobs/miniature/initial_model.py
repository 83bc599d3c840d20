"""The untrained model that every model of the miniature world starts from, and its tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.models.loading import deepspeed_hidden, import_transformers
from jobs.miniature.tasks import DIALECTS, QUICK_FAMILIES, WORDY, draw_episodes, work_out

LAYERS, HEADS = 2, 4
VOCABULARY = 400
MAX_POSITIONS = 512
TEMPLATE = (
    "{%- for m in messages %}{%- if m['role'] == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    "{%- generation %}{{- m['content'] + '<|im_end|>' }}{%- endgeneration %}{{- '\n' }}"
    "{%- else %}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- "
    "endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def make_initial_model(
    directory: Path, seed: int, width: int = 96, families: Sequence[str] = QUICK_FAMILIES
) -> None:
    """Write an untrained Qwen3-shaped model with a byte-level BPE tokenizer learned from worked episodes."""
    import torch

    transformers = import_transformers()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_learned_bpe(seed, families),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=width // HEADS,
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


def _learned_bpe(seed: int, families: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer learned from episodes worked in every dialect."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    sample = draw_episodes(1500, seed + 1, families=families)
    dialects = DIALECTS if tuple(families) == QUICK_FAMILIES else [*DIALECTS, *WORDY]
    corpus = [e.question for e in sample] + [work_out(e, d) for e in sample for d in dialects]
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
