"""What `benchmarks.scoring` measures: shapes of models, pools of rows, and the least arithmetic they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A model shape and a pool: `questions` prompts of about P tokens with `answers` answers of about R
    tokens each.
    """

    about: str
    shape: dict[str, Any]
    prompt: int
    answer: int
    answers: int
    questions: int
    wanted: float | None = None


SMALL = {
    "vocab_size": 1536,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHAPE_135M = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
SHAPE_05B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
SHAPE_7B = {
    "vocab_size": 151_936,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
CASES = {
    "0.5M": Case("0.5M parameters, P~100, R~120, 9 answers", SMALL, 100, 120, 9, 60),
    "135M short prompt": Case("135M shape, P~120, R~250, 9 answers", SHAPE_135M, 120, 250, 9, 2, 1.25),
    "135M long prompt": Case("135M shape, P~1500, R~150, 9 answers", SHAPE_135M, 1500, 150, 9, 1, 5.0),
}
GPU_CASES = {
    "0.5B short prompt": Case("0.5B shape, P~120, R~250, 9 answers", SHAPE_05B, 120, 250, 9, 60),
    "0.5B long prompt": Case("0.5B shape, P~1500, R~150, 9 answers", SHAPE_05B, 1500, 150, 9, 20),
    "7B short prompt": Case("7B shape, P~120, R~250, 9 answers", SHAPE_7B, 120, 250, 9, 20),
}
MEMORY = Case(
    "152k vocabulary, one answer of 4,096 tokens", SHAPE_05B | {"num_hidden_layers": 4}, 16, 4096, 1, 1
)


def build(case: Case, dtype: str, device: str) -> tuple[Any, list[Any]]:
    """A model of random weights and the case's rows, lengths drawn from 0.6 to 1.4 of the nominal ones."""
    import torch

    from cluster.models.loading import import_transformers
    from cluster.models.rendering import Rendered

    transformers = import_transformers()
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**case.shape, tie_word_embeddings=True, max_position_embeddings=32_768)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    g = torch.Generator().manual_seed(1)

    def draw(size: int) -> list[int]:
        return torch.randint(5, case.shape["vocab_size"], (size,), generator=g).tolist()

    def about(size: int) -> int:
        return size if case is MEMORY else int(size * (0.6 + 0.8 * float(torch.rand(1, generator=g))))

    rows = []
    for _ in range(case.questions):
        prompt = draw(about(case.prompt))
        for _ in range(case.answers):
            answer = draw(about(case.answer))
            rows.append(Rendered((*prompt, *answer), len(prompt), len(prompt) + len(answer)))
    return model, rows


def necessary_flop(case: Case, rows: Sequence[Any]) -> float:
    """Operations that scoring cannot do without: every prompt once, every answer once, both projected onto
    the vocabulary.
    """
    s = case.shape
    width, head = s["hidden_size"], s["hidden_size"] // s["num_attention_heads"]
    per_layer = (
        2 * width * width + 2 * width * head * s["num_key_value_heads"] + 3 * width * s["intermediate_size"]
    )
    weights = s["num_hidden_layers"] * per_layer + width * s["vocab_size"]
    prompts = {row.ids[: row.prompt_length] for row in rows}
    sizes = [(row.prompt_length, row.length - row.prompt_length) for row in rows]
    tokens = sum(len(p) for p in prompts) + sum(r for _, r in sizes)
    pairs = sum(len(p) ** 2 / 2 for p in prompts) + sum(r * p + r * r / 2 for p, r in sizes)
    return 2 * weights * tokens + 4 * s["num_hidden_layers"] * width * pairs
