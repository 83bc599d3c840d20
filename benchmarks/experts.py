"""Which quantity stands for h_t in a student whose MLP is a set of experts: measured by the audit, on
students trained here.

SCAS reads the last decoder layer's up projection. With experts no single one sees every token. Candidates:
the shared expert's up projection (where there is one), the chosen experts' up projections weighted by the
router, and the output of the whole MLP. For each, SCAS's cost is ranked against the exact gradient norm of
every answer, within questions.

    python -m benchmarks.experts            # about 20 minutes on two cores
    python -m benchmarks.experts --quick    # fewer steps and answers

Two students a family (seeds), each trained from scratch on the miniature world's tasks, on an unequal mixture
of dialects.
"""

import argparse
import random
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.measurement import finish
from cluster.models.loading import ModelSource, import_transformers, load_tokenizer
from cluster.models.rendering import Rendered, Renderer
from jobs.miniature.initial_model import make_initial_model
from jobs.miniature.tasks import draw_episodes, work_out
from selection.audit import agreements
from selection.costs import CostSettings, compute_cost
from selection.gradients import Gradients
from selection.scoring import Scorer, Statistics

MIXTURE = {"equations": 4.0, "running": 2.0, "wordy": 1.0, "prefix": 1.0, "terse": 0.5}
SHAPE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 96, "num_experts_per_tok": 2, "intermediate_size": 288}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 24, "num_key_value_heads": 4, "intermediate_size": 288},
    "qwen3_moe": EXPERTS
    | {"num_experts": 8, "head_dim": 24, "num_key_value_heads": 4, "norm_topk_prob": True},
    "qwen2_moe": EXPERTS
    | {"num_experts": 8, "num_key_value_heads": 4, "shared_expert_intermediate_size": 96},
    "mixtral": {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "intermediate_size": 96,
        "num_key_value_heads": 4,
    },
}
RATE, BATCH = 3e-3, 32


def make_student(kind: str, renderer: Renderer, seed: int, steps: int) -> Any:
    """A student of a family, trained on worked episodes."""
    transformers = import_transformers()
    from transformers import CONFIG_MAPPING

    torch.manual_seed(seed)
    config = CONFIG_MAPPING[kind](
        vocab_size=len(renderer.tokenizer), tie_word_embeddings=True, **SHAPE, **FAMILIES[kind]
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    rng = random.Random(seed)
    episodes = draw_episodes(steps * BATCH // 4, seed + 100, min_operations=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 40) * (1 - step / steps)
        chosen = [
            (rng.choice(episodes), rng.choices(list(MIXTURE), list(MIXTURE.values()))[0])
            for _ in range(BATCH)
        ]
        rows = [renderer.conversation(e.question, work_out(e, d)) for e, d in chosen]
        width = max(r.answer_end for r in rows)
        ids = torch.tensor([[*r.ids[: r.answer_end], *[0] * (width - r.answer_end)] for r in rows])
        labels = torch.full_like(ids, -100)
        for k, r in enumerate(rows):
            labels[k, r.prompt_length : r.answer_end] = ids[k, r.prompt_length : r.answer_end]
        logits = model(
            input_ids=ids, attention_mask=(labels >= 0).long() | (ids > 0).long(), use_cache=False
        ).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), float(loss.detach())


def candidates(model: Any) -> dict[str, str]:
    """Candidate -> the dotted name of the module to read; a probe is put in for what no module gives."""
    layer, name = model.model.layers[-1].mlp, f"model.layers.{len(model.model.layers) - 1}.mlp"
    if not hasattr(layer, "experts"):
        return {"up projection": f"{name}.up_proj", "MLP output": name}
    layer.weighted_up = torch.nn.Identity()
    layer.experts.register_forward_pre_hook(
        lambda module, inputs: layer.weighted_up(_weighted_up(module, *inputs)) is None or None
    )
    found = {"MLP output": name, "router-weighted up projections": f"{name}.weighted_up"}
    if hasattr(layer, "shared_expert"):
        found["shared expert's up projection"] = f"{name}.shared_expert.up_proj"
    return found


def _weighted_up(
    experts: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The chosen experts' up projections of every token, weighted by the router: [tokens, width]."""
    up = experts.gate_up_proj.chunk(2, dim=1)[1]  # [experts, width, hidden]
    every = torch.einsum("td,ewd->tew", hidden, up)
    chosen = torch.gather(every, 1, index.unsqueeze(-1).expand(-1, -1, every.shape[-1]))
    return (chosen * weights.unsqueeze(-1)).sum(1)


def pool(renderer: Renderer, questions: int) -> tuple[list[str], list[Rendered]]:
    """Every question in every dialect."""
    ids, rows = [], []
    for episode in draw_episodes(questions, 7):
        for dialect in MIXTURE:
            ids.append(episode.question_id)
            rows.append(renderer.conversation(episode.question, work_out(episode, dialect)))
    return ids, rows


def measure(kind: str, renderer: Renderer, seed: int, steps: int, questions: int) -> list[dict[str, Any]]:
    """Agreement with the exact gradient norm, within questions, per candidate; and of the mean loss alone."""
    model, loss = make_student(kind, renderer, seed, steps)
    ids, rows = pool(renderer, questions)
    norms = pd.DataFrame(
        [Gradients(model, renderer.special_ids).norms(r) for r in rows],
        columns=["gradient_norm", "projection_gradient_norm"],
    )
    table = norms.assign(question_id=ids)
    named = candidates(model)
    for candidate, layer in named.items():
        scored = [
            s for s in Scorer(model, renderer.special_ids, layer).score(rows) if isinstance(s, Statistics)
        ]
        statistics = pd.DataFrame([asdict(s) for s in scored]).assign(question_id=ids)
        table[candidate] = compute_cost(statistics, CostSettings("scas"))
        table["mean loss alone"] = compute_cost(statistics, CostSettings("naturalness"))
    found = []
    for a in agreements(table, [*named, "mean loss alone"]):
        if a.norm == "gradient_norm" and a.scope == "within a question":
            figures = {
                "correlation": round(a.correlation, 3),
                "low": round(a.low, 3),
                "high": round(a.high, 3),
            }
            found.append(
                {
                    "family": kind,
                    "seed": seed,
                    "candidate": a.cost,
                    "training_loss": round(loss, 3),
                    **figures,
                }
            )
            print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure every family and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    steps, questions, seeds = (150, 12, 1) if quick else (600, 80, 2)
    with tempfile.TemporaryDirectory() as folder:
        make_initial_model(Path(folder) / "m", 0)
        renderer = Renderer(load_tokenizer(ModelSource(str(Path(folder) / "m"))))
    finish(
        "experts",
        {
            "rows": [
                row
                for kind in FAMILIES
                for seed in range(seeds)
                for row in measure(kind, renderer, seed, steps, questions)
            ]
        },
    )


if __name__ == "__main__":
    main()
