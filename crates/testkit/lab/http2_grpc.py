"""gRPC without generated code: messages are bytes. http2_grpc.py PORT serves; http2_grpc.py PORT python calls.

Every call has a path of its own, so that each can be told from the others. The callers print the truth.
"""

import json
import sys
from concurrent import futures

import grpc


def answer(request, context):
    """Unary: as many bytes back, unless the path says which status to fail with."""
    path = context._rpc_event.call_details.method.decode()
    if "Fail" in path:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: " + path)
    return request


def stream(requests, context):
    """Streaming: every message back, with a trailer."""
    context.set_trailing_metadata((("x-trailer", "1"),))
    yield from requests


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        if "Stream" in details.method:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Handlers()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def told(port, path, status, request_bytes, response_bytes):
    print(json.dumps({"port": port, "method": "POST", "path": path, "status": 200, "grpc_status": status,
                      "request_bytes": request_bytes, "response_bytes": response_bytes}), flush=True)


def call(port):
    for connection in range(3):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            waiting = []
            for n in range(30):
                path = f"/lab.Python/{'Fail' if n % 5 == 4 else 'Say'}{connection}x{n}"
                size = [0, 1, 100, 20000, 100000][n % 5]
                metadata = (("x-request-id", f"{connection}-{n}"), ("authorization", "Bearer 0123456789"))
                waiting.append((path, size, channel.unary_unary(path).future(b"x" * size, metadata=metadata)))
            for path, size, reply in waiting:
                failed = reply.exception() is not None
                told(port, path, reply.code().value[0], 5 + size, 0 if failed else 5 + size)
            for n in range(5):
                path = f"/lab.Python/Stream{connection}x{n}"
                sizes = [10, 0, 30000][: n % 4]
                replies = channel.stream_stream(path)(iter([b"y" * size for size in sizes]))
                total = sum(5 + len(reply) for reply in replies)
                told(port, path, replies.code().value[0], sum(5 + size for size in sizes), total)


if __name__ == "__main__":
    (call if len(sys.argv) > 2 else serve)(int(sys.argv[1]))
