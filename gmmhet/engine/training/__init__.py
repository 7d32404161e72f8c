"""Training of the networks: epochs and optimizer steps, parameter schedule, early stopping, history,
checkpoints, and what an earlier training is continued from."""
