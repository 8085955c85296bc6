"""Did it learn? Named diagnoses of a finished training, each with its likely cause and the edit that mends it."""

from headrace.doctor.diagnose import diagnose
from headrace.doctor.facts import Diagnosis, Facts

__all__ = ["Diagnosis", "Facts", "diagnose"]
