"""One module per modality; each has `analyse(picture float32 [SIZE, SIZE, 3]) -> tuple[Finding, ...]`."""
