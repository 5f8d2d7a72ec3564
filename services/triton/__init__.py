"""Tokenizer and decoder in a Triton server: the model repository, and the models' code for its Python backend."""
