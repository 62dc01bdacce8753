"""One module per noun; bodies parse, call once or twice, and print."""
