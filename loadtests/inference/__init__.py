"""Load on the Open Inference Protocol's front of tokenizer and decoder (`python -m loadtests.inference`)."""
