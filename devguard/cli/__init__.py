"""The command line: one file per noun, one map from exception to exit status (in `main`)."""
