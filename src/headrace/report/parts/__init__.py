"""The page's sections: each takes what it needs from a report, and is left out where the report has nothing for it."""
