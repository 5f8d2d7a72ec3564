"""gRPC on both sides: the error tree as statuses, plain servers, clients that look like the services themselves."""

from services.rpc.client import RemoteDecoder, RemoteLanguageModel, RemoteTokenizer
from services.rpc.interceptor import ErrorInterceptor
from services.rpc.server import Server, freeze, serve
from services.rpc.status import RpcStatus, error_of, status_of

__all__ = [
    "ErrorInterceptor",
    "RemoteDecoder",
    "RemoteLanguageModel",
    "RemoteTokenizer",
    "RpcStatus",
    "Server",
    "error_of",
    "freeze",
    "serve",
    "status_of",
]
