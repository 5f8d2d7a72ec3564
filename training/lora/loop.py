"""The steps of a run, as one of its workers takes them.

What a step yields depends on the recipe and the data alone: its packs, and the dropout of each, follow from their numbers,
so one worker and several, and a run that was killed and one that was not, learn the same up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from services.errors import InvalidInput
from services.llm.group import Group
from training.lora.adapter import chameleon, learnt_tensors
from training.lora.batch import collate
from training.lora.objective import FIGURES, answers_loss, pairs_loss
from training.lora.plan import Plan
from training.lora.recipe import Job
from training.lora.state import LOG, STATE, Log, load_state, save_state
from training.losses import Targets
from training.rows.pack import Packs
from training.rows.survey import Reader
from training.rows.trouble import Unusable
from training.schedule import rate_at

if TYPE_CHECKING:
    from peft import PeftModel

_CLIP = 1.0


@dataclass
class Trainer:
    """Learns `plan`'s steps into `model`'s adapter. `held` are packs of `held_reader`'s rows, for validation."""

    job: Job
    fingerprint: str
    model: PeftModel
    group: Group
    plan: Plan
    reader: Reader
    held: Packs
    held_reader: Reader

    def __post_init__(self) -> None:
        self._targets = Targets.of(self.reader.maker.vocabulary).to(self.job.device)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=self.job.recipe.rate, weight_decay=0.0)
        chameleon(self.model).recompute = self.job.recompute

    def run(self, progress: Callable[[dict[str, Any]], None] = lambda entry: None) -> None:
        """All steps from the last save on. Rank 0 saves, logs, and tells `progress` each entry of the log."""
        job, steps = self.job, self.plan.steps
        step, seconds = self._restore()
        first = self.group.rank == 0
        log = Log(job.work / LOG, step or -1) if first else None
        if step == 0 and (entry := self.validate()):
            self._tell(log, {"step": 0, "steps": steps, **entry}, progress)
        warmup = math.ceil(job.recipe.warmup * steps)
        while step < steps:
            begin = time.monotonic()
            rate = rate_at(step, steps, job.recipe.rate, warmup, floor=0.0)
            entry = self._step(step, rate)
            step += 1
            taken = time.monotonic() - begin
            seconds += taken
            entry |= {"rate": rate, "tokens_per_s": self.plan.tokens(step - 1) / max(taken, 1e-9)}
            if step % job.validate_every == 0 or step == steps:
                entry |= self.validate()
            self._tell(log, {"step": step, "steps": steps, **entry}, progress)
            if first and (step % job.save_every == 0 or step == steps):
                self._save(step, seconds)

    def _step(self, step: int, rate: float) -> dict[str, float]:
        recipe = self.job.recipe
        weight = self.plan.weight(step, recipe)
        self._optimizer.zero_grad(set_to_none=False)
        sums = torch.zeros(len(FIGURES), dtype=torch.float64)
        self.model.train()
        for number in self.plan.step(step)[self.group.rank :: self.group.size]:
            torch.manual_seed((recipe.seed << 32) + number)
            loss, figures = self._loss(self.reader, self.plan.rows(number))
            (loss / weight).backward()  # type: ignore[no-untyped-call]
            sums += figures
        self._share_gradients()
        entry = self._words(self._all(sums), weight)
        if not math.isfinite(entry["loss"]):
            raise InvalidInput(f"the loss is not finite at step {step + 1}; lower it", field="--rate")
        torch.nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return entry

    def _loss(self, reader: Reader, rows: list[int]) -> tuple[Tensor, Tensor]:
        recipe, device = self.job.recipe, self.job.device
        try:
            batch = collate([reader[row] for row in rows], device)
        except Unusable as trouble:
            raise InvalidInput(
                f"a row changed while training: {trouble.message} ({trouble.reason})",
                field=reader.source.name,
            ) from None
        with torch.autocast(device, torch.bfloat16, enabled=recipe.bfloat16):
            if recipe.pairs:
                return pairs_loss(self.model, batch, self._targets, recipe.beta)
            return answers_loss(self.model, batch, self._targets, recipe.image_weight, recipe.keep_weight)

    def _share_gradients(self) -> None:
        """Every worker's gradients become the sum of all: one exchange a step, of the adapter's size."""
        if self.group.size == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:  # this worker had no pack
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in self._parameters if p.grad is not None])
        flat = self.group.sum(flat)
        parts = torch.split(flat, [parameter.numel() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _all(self, sums: Tensor) -> Tensor:
        return self.group.sum(sums.to(self.job.device)).cpu()

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Losses on the rows held out, without dropout; nothing where there are none."""
        if not len(self.held):
            return {}
        sums = torch.zeros(len(FIGURES), dtype=torch.float64)
        self.model.eval()
        for number in range(len(self.held))[self.group.rank :: self.group.size]:
            sums += self._loss(self.held_reader, self.held[number])[1]
        return {"validation": self._words(self._all(sums))}

    def _words(self, sums: Tensor, weight: float | None = None) -> dict[str, float]:
        text, texts, codes, drawn, dpo, preferred, margin, pairs, drift, kept = sums.tolist()
        recipe = self.job.recipe
        weight = weight or (pairs if recipe.pairs else texts + recipe.image_weight * drawn + kept)
        learnt = text + recipe.image_weight * codes + recipe.keep_weight * drift
        entry = {"loss": (dpo if recipe.pairs else learnt) / weight}
        if kept:
            entry["drift"] = drift / kept
        if texts:
            entry["text"] = text / texts
        if drawn:
            entry["image"] = codes / drawn
        if pairs:
            entry |= {"preferred": preferred / pairs, "margin": margin / pairs}
        return entry

    def _tell(
        self, log: Log | None, entry: dict[str, Any], progress: Callable[[dict[str, Any]], None]
    ) -> None:
        if log is not None:
            log.add(entry)
            progress(entry)

    def _save(self, step: int, seconds: float) -> None:
        state = {
            "step": step,
            "seconds": seconds,
            "adapter": {n: t.detach().cpu().clone() for n, t in learnt_tensors(self.model).items()},
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        save_state(self.job.work / STATE, self.fingerprint, state)

    def _restore(self) -> tuple[int, float]:
        """Step and seconds of the last save, whose adapter and optimizer are put in place."""
        state = load_state(self.job.work / STATE, self.fingerprint)
        if state is None:
            return 0, 0.0
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        return int(state["step"]), float(state["seconds"])
