"""The loop around a trainer's step: data, metrics, callbacks, history, stopping and resuming."""
