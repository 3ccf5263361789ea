"""Training: the trainer, its step, schedule, checkpoints, processes and device; nothing of what is trained."""
