#!/usr/bin/python3
"""Attackers in the lab: credential stuffing on /api/login; one JSON line per response.

attack.py BASE_URL FIRST_ADDRESS COUNT ATTEMPTS PER_SECOND   (COUNT addresses 256 apart, at most 16 at a time)

An attacker stops after five responses 403 in a row, or after ATTEMPTS.
"""
import asyncio
import ipaddress
import json
import random
import sys
import time

import aiohttp

base, first, count, attempts, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])


async def attacker(local, gate):
    async with gate:
        rng = random.Random(local)
        refused = 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(local, 0))) as session:
            for n in range(attempts):
                body = {"username": f"victim{rng.randrange(10**6)}", "password": f"leaked{rng.randrange(10**9)}"}
                sent = time.time()
                async with session.post(base + "/api/login", json=body) as response:
                    await response.read()
                    print(json.dumps({"time": time.time(), "sent": sent, "client": local, "n": n, "status": response.status}), flush=True)
                    refused = refused + 1 if response.status == 403 else 0
                if refused >= 5:
                    return
                await asyncio.sleep(rng.expovariate(rate))


async def main():
    gate = asyncio.Semaphore(16)
    start = ipaddress.ip_address(first)
    await asyncio.gather(*(attacker(str(start + 256 * i), gate) for i in range(count)))


asyncio.run(main())
