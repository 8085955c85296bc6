"""Turns texts into stored tokens, and stored tokens into batches."""
