#!/usr/bin/env python3
"""Makes TLS sessions between two OpenSSL ends in memory, for tests of decryption.

Writes one block per session to standard output: its name, its key log, and what each side sent, in order, as hex:
`>` to the server, `<` to the client. Inside each, the client sends requests and the server answers; the text is
made from numbers, so a test knows what must come out. Cipher suites of TLS 1.3 come from OPENSSL_CONF.

With `captures FOLDER` it writes two golden captures instead: HTTP/1.1 over TLS 1.2 with a key log beside it, and over
TLS 1.3 with the key log inside of the pcapng file.
"""
import os, ssl, struct, subprocess, sys, tempfile

WORK = tempfile.mkdtemp()
OP_NO_ENCRYPT_THEN_MAC = 1 << 19


def certificate(kind):
    name = os.path.join(WORK, kind[0])
    if not os.path.exists(name):
        command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=a", "-days", "1", "-newkey", *kind,
                   "-keyout", name + ".key", "-out", name]
        subprocess.run(command, check=True, capture_output=True)
    return name, name + ".key"


def flush(side, out, arrow, to, lines):
    data = out.read()
    if data:
        lines.append(arrow + " " + data.hex())
        to.write(data)


def session(name, version, ciphers=None, kind=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), etm=True, retry=False,
            rounds=None):
    rounds = rounds or [(b"request %d " % n * 12, b"response %d " % n * 12) for n in range(3)]
    log = os.path.join(WORK, "keylog")
    if os.path.exists(log):
        os.remove(log)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(*certificate(kind))
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for context in (server, client):
        context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers + ":@SECLEVEL=0")
        if not etm:
            context.options |= OP_NO_ENCRYPT_THEN_MAC
    client.keylog_filename = log
    if retry:
        server.set_ecdh_curve("secp384r1")
    c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
    c, s = client.wrap_bio(c_in, c_out), server.wrap_bio(s_in, s_out, server_side=True)
    lines, done = [], set()
    while len(done) < 2:
        for side, out, arrow, to in ((c, c_out, ">", s_in), (s, s_out, "<", c_in)):
            if side not in done:
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
            flush(side, out, arrow, to, lines)
    for request, response in rounds:
        c.write(request)
        flush(c, c_out, ">", s_in, lines)
        s.read(65536)
        s.write(response)
        flush(s, s_out, "<", c_in, lines)
        c.read(65536)
    for side, out, arrow, to in ((c, c_out, ">", s_in), (s, s_out, "<", c_in)):
        try:
            side.unwrap()
        except ssl.SSLError:
            pass
        flush(side, out, arrow, to, lines)
    with open(log) as f:
        keys = "".join(line for line in f if not line.startswith(("#", "EXPORTER")))
    if name is None:
        return keys, lines
    print(f"= {name}\n{keys}" + "\n".join(lines))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frames(lines, mss=700):
    """Ethernet frames of a TCP connection that carries the flights, with times in microseconds."""
    ends = [(bytes([192, 0, 2, 10]), 50000), (bytes([198, 51, 100, 1]), 443)]
    next_seq, out, clock = [1000, 9000], [], 1_700_000_000_000_000

    def send(side, flags, data=b""):
        nonlocal clock
        clock += 1000
        (src, sport), (dst, dport) = ends[side], ends[1 - side]
        ack = next_seq[1 - side] if flags & 0x10 else 0
        tcp = struct.pack("!HHIIBBHHH", sport, dport, next_seq[side], ack, 5 << 4, flags, 65535, 0, 0) + data
        pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), len(out), 0x4000, 64, 6, 0, src, dst)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        out.append((clock, bytes([2, 0, 0, 0, 0, 2 - side, 2, 0, 0, 0, 0, 1 + side, 8, 0]) + ip + tcp))
        next_seq[side] += len(data) + (1 if flags & 3 else 0)

    send(0, 0x02), send(1, 0x12), send(0, 0x10)
    for line in lines:
        side, data = int(line[0] == "<"), bytes.fromhex(line[2:])
        for at in range(0, len(data), mss):
            send(side, 0x18, data[at:at + mss])
    send(0, 0x11), send(1, 0x11), send(0, 0x10)
    return out


def captures(folder):
    body = b'{"items":[' + b",".join(b'{"id":%d}' % n for n in range(300)) + b"]}"
    rounds = [(b"GET /items?page=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: lab\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body),
              (b"POST /login HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/x-www-form-urlencoded\r\n"
               b"Content-Length: 31\r\n\r\nusername=alice&password=secret1",
               b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwrong\r\n0\r\n\r\n")]
    keys, lines = session(None, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", rounds=rounds)
    os.makedirs(folder + "/tls12-decrypted", exist_ok=True)
    with open(folder + "/tls12-decrypted/keylog.txt", "w") as f:
        f.write(keys)
    with open(folder + "/tls12-decrypted/input.pcap", "wb") as f:
        f.write(struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for time, frame in frames(lines):
            f.write(struct.pack("<IIII", *divmod(time, 10**6), len(frame), len(frame)) + frame)
    keys, lines = session(None, ssl.TLSVersion.TLSv1_3, rounds=rounds)

    def block(kind, content):
        content += bytes(-len(content) % 4)
        return struct.pack("<II", kind, len(content) + 12) + content + struct.pack("<I", len(content) + 12)

    os.makedirs(folder + "/tls13-decrypted-pcapng", exist_ok=True)
    with open(folder + "/tls13-decrypted-pcapng/input.pcapng", "wb") as f:
        f.write(block(0x0a0d0d0a, struct.pack("<IHHq", 0x1a2b3c4d, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 65535)))
        for n, (time, frame) in enumerate(frames(lines)):
            if n == 3:
                # Directly before the ClientHello.
                f.write(block(10, struct.pack("<II", 0x544c534b, len(keys)) + keys.encode()))
            f.write(block(6, struct.pack("<IIIII", 0, time >> 32, time & 0xffffffff, len(frame), len(frame)) + frame))


def main():
    if sys.argv[1:2] == ["captures"]:
        captures(sys.argv[2])
        return
    if len(sys.argv) > 1:
        session(sys.argv[1], ssl.TLSVersion.TLSv1_3)
        return
    v12, v13, rsa = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, ("rsa:2048",)
    print("# Made by crates/testkit/lab/tls-sessions.py with " + ssl.OPENSSL_VERSION)
    sys.stdout.flush()
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
                  "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
        conf = os.path.join(WORK, "conf")
        with open(conf, "w") as f:
            f.write("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
                    f"Ciphersuites = {suite}\nCipherString = DEFAULT:@SECLEVEL=0\n")
        subprocess.run([sys.executable, __file__, suite], check=True, env={**os.environ, "OPENSSL_CONF": conf})
    session("TLS 1.3 with a HelloRetryRequest", v13, retry=True)
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
                   "ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM8", "ECDHE-ECDSA-AES128-SHA256",
                   "ECDHE-ECDSA-AES256-SHA384"):
        session(cipher, v12, cipher)
    session("ECDHE-ECDSA-AES256-SHA without encrypt_then_mac", v12, "ECDHE-ECDSA-AES256-SHA", etm=False)
    session("AES128-SHA with RSA key exchange", v12, "AES128-SHA", rsa)
    session("AES256-SHA256 without encrypt_then_mac", v12, "AES256-SHA256", rsa, etm=False)


main()
