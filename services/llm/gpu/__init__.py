"""The transformer's layers on a GPU: Triton kernels between torch's products, replayed as CUDA graphs."""
