"""Language models: their texts, their batches, their training and what it leaves behind."""
