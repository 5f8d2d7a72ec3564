"""The language model: a mixed-modal engine with continuous batching, and its gRPC servicer."""
