"""The training loop, and its hooks, optimizers, schedules, devices and checkpoints."""
