"""One file a family; its docstring says what is supported and is what `packets families` prints."""
