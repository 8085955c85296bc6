"""Pretrained encoders: one file, one family."""
