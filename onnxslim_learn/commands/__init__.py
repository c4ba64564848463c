"""The public functions: every command of the command line is one of them, with its options as keywords."""
