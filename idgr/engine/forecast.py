"""What a training would take, from a few real steps of it: instances, tokens, steps, time, memory of the GPU.

Writes nothing, and leaves the model's weights changed.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from idgr.engine.options import TrainingOptions
from idgr.engine.schedule import epoch_batches, first_steps
from idgr.engine.step import Training, accumulate_gradients, optimizer_step
from idgr.engine.task import TrainableModel, TrainingContext, TrainingTask
from idgr.engine.trainer import training_mode

# So many batches are tried, from the longest, which needs the most memory, to the shortest.
_TRIED = 9


def forecast(model: TrainableModel, task: TrainingTask, options: TrainingOptions) -> dict[str, Any]:
    """Take a few steps, and tell from them what the whole training would take.

    Returns:
        parameters; instances; of the first epoch: tokens (of prompts, without templates; items, of a SASRec), padded
        tokens, batches and steps; the steps of all epochs; seconds of an epoch, without measuring; into how many parts
        the memory made batches be split; and on a GPU the most memory that was in use, in MiB.
    """
    training = Training(model, task, options, TrainingContext())
    batches = epoch_batches(task.lengths, 0, options)
    padded = np.array([len(batch) * int(task.lengths[batch].max()) for batch in batches])
    longest_first = np.argsort(-padded, kind="stable")
    places = np.linspace(0, len(batches) - 1, min(_TRIED, len(batches))).round().astype(int)
    tried = longest_first[places].tolist()
    seconds = 0.0
    with training_mode(model, options):
        model.train()
        for number, place in enumerate([tried[0], *tried]):
            started = time.monotonic()
            optimizer_step(training, accumulate_gradients(training, [batches[place]]))
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            if number:  # the first step only warms up
                seconds += time.monotonic() - started
            training.state.step += 1
        model.eval()
    instances = np.concatenate(batches)
    found: dict[str, Any] = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "instances_per_epoch": len(instances) if task.sizes is None else int(task.sizes[instances].sum()),
        "tokens_per_epoch": int(task.lengths[instances].sum()),
        "padded_tokens_per_epoch": int(padded.sum()),
        "batches_per_epoch": len(batches),
        "steps_per_epoch": math.ceil(len(batches) / options.accumulate),
        "steps": first_steps(task.lengths, options)[-1],
        "seconds_per_epoch": round(seconds * float(padded.sum() / padded[tried].sum()), 3),
        "batch_parts": training.pieces,
    }
    if model.device.type == "cuda":
        found["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(model.device) / 2**20)
    return found
