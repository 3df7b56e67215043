"""LoRA adapters: as tensors and on disk, which modules they change, and how they compute beside a frozen base."""
