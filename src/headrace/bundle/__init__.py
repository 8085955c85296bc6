"""The bundle: one folder with nothing executable in it, that predicts and embeds; proved in a process of its own."""

from headrace.bundle.about import About, TextSettings, versions
from headrace.bundle.bundle import Bundle, save_bundle
from headrace.bundle.language_model import LanguageModelBundle
from headrace.bundle.proof import prove_in_fresh_process

__all__ = [
    "About",
    "Bundle",
    "LanguageModelBundle",
    "TextSettings",
    "prove_in_fresh_process",
    "save_bundle",
    "versions",
]
