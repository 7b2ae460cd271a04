"""The loop and what it is made of: optimizers, schedules, devices, checkpoints."""
