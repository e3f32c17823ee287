"""The page that shows a sensitivity: parts of it from the smallest to the whole."""
