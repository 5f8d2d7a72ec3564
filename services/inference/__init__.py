"""The Open Inference Protocol (KServe v2 over gRPC): a front on tokenizer and decoder, and a client of such a server."""
