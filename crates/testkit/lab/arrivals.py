#!/usr/bin/python3
"""A second webhook target that only notes when each webhook arrives: arrivals.py ADDRESS PORT OUTPUT"""
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

out = open(sys.argv[3], "w", buffering=1)


class Clock(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        arrived = time.time()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        signed = bool(self.headers["webhook-signature"])
        out.write(json.dumps({"arrived": arrived, "signed": signed, "type": body["type"], "data": body["data"]}) + "\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Clock).serve_forever()
