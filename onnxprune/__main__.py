"""`python -m onnxprune` is the `onnxprune` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
