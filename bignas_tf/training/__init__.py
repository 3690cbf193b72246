"""Training: losses, schedules, optimizers, rules, checkpoints, logs and the loops."""
