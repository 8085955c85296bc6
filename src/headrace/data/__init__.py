"""Reads labelled texts, splits them, and balances the training rows."""
