"""SmolLM2-135M, pretrained, fine-tuned on film snippets at 128 tokens: LoRA, and a sparse scheme.

python -m experiments.smol_lm.run                 both; writes result.json and table.md
python -m experiments.smol_lm.run --case lora     one, printed only

Each is trained by PyTorch eager and by the compiled trainer in turns, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from tabulate import tabulate
from torch import Tensor, nn

import pockengine as pe
from experiments.beside import saved_bytes, timed_in_turns
from pockengine.scheme import Rule
from pockengine.tasks import load_task, smol_lm, smol_lm_tokenizer
from tests.eager import torch_optimizer

HERE = Path(__file__).parent
TOKENS = 128
WINDOWS = 5
EPOCHS = 4
LAYERS = 30
Outcome = dict[str, Any]


def sparse_scheme(last: int = 6) -> pe.Scheme:
    """Of the last layers: a quarter of what the perceptron puts out, half of attention's, norms."""
    fractions = {}
    for layer in range(LAYERS - last, LAYERS):
        prefix = f"model.layers.{layer}"
        fractions[f"{prefix}.self_attn.o_proj.weight"] = 0.5
        fractions[f"{prefix}.mlp.down_proj.weight"] = 0.25
        fractions[f"{prefix}.input_layernorm.weight"] = 1.0
        fractions[f"{prefix}.post_attention_layernorm.weight"] = 1.0
    return pe.Scheme(fractions)


CASES: dict[str, tuple[Rule | pe.Scheme, float]] = {
    "lora": (pe.Scheme.lora(8, ["q_proj", "v_proj"], alpha=16), 1e-3),
    "sparse": (sparse_scheme(), 1e-4),
}
"""Schemes, and AdamW's learning rate for each."""


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of (N, L, vocabulary) by (N, L)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def batches() -> list[tuple[Tensor, Tensor]]:
    """Windows of real text, one a step, several times: token ids, and each one's successor."""
    tokenizer = smol_lm_tokenizer()
    text = "\n".join(load_task("sentiment-movie").train_inputs[: 8 * WINDOWS])
    ids = torch.tensor(tokenizer.encode(text).ids)
    windows = ids[: WINDOWS * (TOKENS + 1)].view(WINDOWS, 1, TOKENS + 1)
    return EPOCHS * [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in windows]


class Eager:
    """PyTorch's run of a scheme; of a tensor that is updated in part, the rest is put back."""

    def __init__(self, model: nn.Module, scheme: Rule | pe.Scheme, lr: float) -> None:
        resolved = scheme.resolve(model)
        self.model, self.channels = model, resolved.channels(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in resolved)
        updated = [model.get_parameter(name) for name in resolved]
        self.before = {name: model.get_parameter(name).detach().clone() for name in self.channels}
        self.optimizer = torch_optimizer(pe.AdamW(), updated, lr)

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """One step's loss."""
        loss = next_token_loss(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        for name, part in self.channels.items():
            tensor = self.model.get_parameter(name).detach()
            outside = (slice(None),) * part.axis + (slice(part.count, None),)
            tensor[outside] = self.before[name][outside]
        return float(loss.detach())


def measured(case: str) -> Outcome:
    """Losses of both, medians in milliseconds, bytes."""
    scheme, lr = CASES[case]
    model, steps = smol_lm(pretrained=True).eval(), batches()
    trainer = pe.compile(
        model, steps[0], loss=next_token_loss, optimizer=pe.AdamW(), scheme=scheme, threads=1
    )
    eager = Eager(scheme.prepared(model) if isinstance(scheme, Rule) else model, scheme, lr)
    saved = saved_bytes(eager.model, lambda: next_token_loss(eager.model(steps[0][0]), steps[0][1]))
    feed, other = iter(steps), iter(steps)
    times, losses = timed_in_turns(
        lambda: eager.step(*next(feed)),
        lambda: trainer.step(*next(other), lr=lr),
        steps=len(steps),
    )
    plan = trainer.plan
    return {
        **times,
        "torch_losses": losses[0],
        "losses": losses[1],
        "loss_error": max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)),
        "torch_saved_bytes": saved,
        "arena_bytes": plan.arena_bytes,
        "param_bytes": plan.param_bytes,
        "state_bytes": plan.state_bytes,
        "const_bytes": plan.const_bytes,
    }


def table(outcomes: dict[str, Outcome]) -> str:
    """The result as Markdown."""
    rows = [
        (
            name,
            " ".join(f"{epoch.mean():.3f}" for epoch in np.reshape(found["losses"], (EPOCHS, -1))),
            f"{found['loss_error']:.0e}",
            f"{found['torch_ms']:.0f}",
            f"{found['ms']:.0f}",
            f"{found['torch_ms'] / found['ms']:.2f}x",
            f"{found['torch_saved_bytes'] / 1e6:.0f}",
            f"{found['arena_bytes'] / 1e6:.1f}",
            f"{found['param_bytes'] / 1e6:.2f}",
            f"{found['state_bytes'] / 1e6:.2f}",
            f"{found['const_bytes'] / 1e6:.0f}",
        )
        for name, found in outcomes.items()
    ]
    heads = ("scheme", "loss by epoch", "largest difference", "PyTorch ms", "ms", "speed")
    sizes = ("PyTorch saves MB", "arena MB", "param MB", "state MB", "const MB")
    return tabulate(rows, (*heads, *sizes), tablefmt="github") + "\n"


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), help="one, printed only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    outcomes = {name: measured(name) for name in ([options.case] if options.case else CASES)}
    if not options.case:
        text = json.dumps(outcomes, indent=1)
        (HERE / "result.json").write_text(text + "\n", encoding="utf-8")
        (HERE / "table.md").write_text(table(outcomes), encoding="utf-8")
    print(table(outcomes))


if __name__ == "__main__":
    main()
