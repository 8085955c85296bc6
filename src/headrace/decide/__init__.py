"""From logits to answers: calibration, thresholds and abstention, chosen on validation and kept in the bundle."""
