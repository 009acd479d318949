"""The page of `engine.report`: its text, style and script, and what is filled into them."""
