"""Why this answer: how much each word of a text moved a label's logit, and how that is shown."""

from headrace.explain.attribution import Integration, explain
from headrace.explain.explanation import Explanation, Piece
from headrace.explain.shown import as_html, as_markup, as_styled

__all__ = ["Explanation", "Integration", "Piece", "as_html", "as_markup", "as_styled", "explain"]
