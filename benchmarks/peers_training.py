"""One LoRA expert trained by peft on torch: the same base, linears, rows, steps, schedule and loss."""

# pyright: reportMissingImports=false

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.peers_model import load
from benchmarks.peers_torch import adapters
from moejax.train.experts import fresh, sites_of
from moejax.train.rows import drawn, seed_of
from moejax.types import Batch

if TYPE_CHECKING:
    from benchmarks.training import Lesson


def wear(lesson: "Lesson", name: str) -> tuple[Any, list[Tensor]]:
    """transformers' model with a fresh expert, and its factors; the rest is frozen."""
    base, recipe = lesson.base, lesson.recipe
    model = load(base).requires_grad_(False)
    expert = fresh(base.shapes, name, sites_of(recipe, base.layers), recipe, 0)
    free: list[Tensor] = []
    for module, site in base.sites.items():
        if site in expert.loras:
            one, (parent, _, last) = expert.loras[site], module.rpartition(".")
            scale = recipe.alpha / recipe.rank
            linear = adapters(model.get_submodule(module), one.a[None], one.b[None], scale)
            setattr(model.get_submodule(parent), last, linear)
            free += [linear.lora_A["task_0"].weight, linear.lora_B["task_0"].weight]
    return model, free


def loss(model: Any, batch: Batch, labels: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of cos(sentence, label) / temperature over the choices."""
    mask, pool = torch.from_numpy(batch.mask), torch.from_numpy(batch.pool).float()[..., None]
    hidden = model(torch.from_numpy(batch.tokens).long(), attention_mask=mask.long())[0]
    text = (hidden * pool).sum(1) / pool.sum(1).clamp(min=1)
    text = torch.nn.functional.normalize(text, dim=-1)
    choices = torch.from_numpy(batch.choices).long()
    logits = torch.einsum("bd,bcd->bc", text, labels[choices.clamp(min=0)]) / temperature
    logits = logits.masked_fill(choices < 0, -1e30)
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.targets).long())


def train(lesson: "Lesson", name: str) -> list[float]:
    """The losses of all steps."""
    model, free = wear(lesson, name)
    recipe, optimiser = lesson.recipe, lesson.recipe.optimiser
    temperature = lesson.base.model.config.temperature  # pyright: ignore[reportAttributeAccessIssue]
    labels, losses = torch.tensor(lesson.base.labels.__array__()), []
    adam = torch.optim.AdamW(free, lr=optimiser.rate, weight_decay=optimiser.decay)
    rise = max(1, round(optimiser.warmup * optimiser.steps))
    warm = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: min(step / rise, 1.0))
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(optimiser.steps - rise, 1))
    schedule = torch.optim.lr_scheduler.SequentialLR(adam, [warm, fall], [rise])
    stream = drawn(lesson.rows[name], recipe.batch, seed_of(name, 0))
    for number in range(optimiser.steps):
        found = loss(model, stream(number), labels, temperature)
        adam.zero_grad()
        found.backward()
        if optimiser.clip is not None:
            torch.nn.utils.clip_grad_norm_(free, optimiser.clip)
        adam.step()
        schedule.step()
        losses.append(float(found.detach()))
    return losses
