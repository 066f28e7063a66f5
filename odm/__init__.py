"""ODM: quantization-aware training of super-resolution networks (arXiv 2307.13337)."""

__version__ = "0.1.0"
