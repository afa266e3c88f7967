#!/usr/bin/python3
"""People in the lab: browse, log in and buy with one HTTP stack; print one JSON line per response.

people.py STACK BASE_URL LOCAL_ADDRESS USER PASSWORD SECONDS   (STACK is requests or aiohttp)
"""
import asyncio
import json
import random
import sys
import time

stack, base, local, user, password, seconds = sys.argv[1:7]
deadline = time.time() + float(seconds)
rng = random.Random(local)


def steps():
    """One visit: pages, assets, an item, a login, the cart."""
    item = rng.randrange(1, 20)
    yield "GET", "/", None
    yield "GET", "/catalogue", None
    yield "GET", f"/item/{item}", None
    yield "GET", f"/api/stock/{item}", None
    yield "GET", "/login", None
    # People mistype now and then.
    if rng.random() < 0.1:
        yield "POST", "/api/login", {"username": user, "password": password + "x"}
    yield "POST", "/api/login", {"username": user, "password": password}
    yield "POST", "/api/cart", {"item": item, "quantity": 1}
    yield "GET", "/cart", None


def note(path, status):
    print(json.dumps({"time": time.time(), "client": local, "stack": stack, "path": path, "status": status}), flush=True)


def with_requests():
    import requests
    from requests.adapters import HTTPAdapter

    class From(HTTPAdapter):
        def init_poolmanager(self, *args, **kwargs):
            kwargs["source_address"] = (local, 0)
            return super().init_poolmanager(*args, **kwargs)

    while time.time() < deadline:
        with requests.Session() as session:
            session.mount("http://", From())
            for method, path, body in steps():
                note(path, session.request(method, base + path, json=body, timeout=10).status_code)
                time.sleep(rng.uniform(0.05, 0.4))


async def with_aiohttp():
    import aiohttp

    while time.time() < deadline:
        connector = aiohttp.TCPConnector(local_addr=(local, 0))
        async with aiohttp.ClientSession(connector=connector) as session:
            for method, path, body in steps():
                async with session.request(method, base + path, json=body) as response:
                    await response.read()
                    note(path, response.status)
                await asyncio.sleep(rng.uniform(0.05, 0.4))


if stack == "requests":
    with_requests()
else:
    asyncio.run(with_aiohttp())
