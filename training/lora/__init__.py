"""LoRA fine-tuning of a checkpoint on instruction rows or preference pairs, and merging what it learnt."""
