"""Training on PyTorch Lightning; the only part that imports it."""
