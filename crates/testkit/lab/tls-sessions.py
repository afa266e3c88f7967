#!/usr/bin/env python3
"""Makes TLS sessions between two OpenSSL ends in memory, for tests of decryption.

Writes one block per session to standard output: its name, its key log, and what each side sent, in order, as hex:
`>` to the server, `<` to the client. Inside each, the client sends requests and the server answers; the text is
made from numbers, so a test knows what must come out. Cipher suites of TLS 1.3 come from OPENSSL_CONF.
"""
import os, ssl, subprocess, sys, tempfile

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
            rounds=3, size=12):
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
    for n in range(rounds):
        c.write(b"request %d " % n * size)
        flush(c, c_out, ">", s_in, lines)
        s.read(65536)
        s.write(b"response %d " % n * size)
        flush(s, s_out, "<", c_in, lines)
        c.read(65536)
    for side, out, arrow, to in ((c, c_out, ">", s_in), (s, s_out, "<", c_in)):
        try:
            side.unwrap()
        except ssl.SSLError:
            pass
        flush(side, out, arrow, to, lines)
    print(f"= {name}")
    with open(log) as f:
        print("".join(line for line in f if not line.startswith(("#", "EXPORTER"))), end="")
    print("\n".join(lines))


def main():
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
