"""MedMax Serve: gRPC services for mixed-modal biomedical assistants."""

__version__ = "0.1.0"
