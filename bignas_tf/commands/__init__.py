"""The sub-commands of `bignas`, a module each: a docstring, `add_arguments` and `main`."""
