#!/usr/bin/env python3
"""Sends CONNECTIONS times REQUESTS requests to URL over keep-alive connections, a few at a time."""
import concurrent.futures
import http.client
import sys
import urllib.parse

url, connections, requests = urllib.parse.urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def visit(number):
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=10)
    for turn in range(requests):
        connection.request("GET", f"/item/{number}?turn={turn}", headers={"User-Agent": "mirror-lab"})
        connection.getresponse().read()
    connection.close()


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(visit, range(connections)))
print(f"lab: {connections * requests} requests over {connections} connections")
