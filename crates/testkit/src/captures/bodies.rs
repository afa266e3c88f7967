//! Golden captures of bodies: codings, fields wherever they lie, GraphQL, event streams; and what follows an upgrade.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::{Capture, ToClient, ToServer, ethernet, started};
use crate::conversation::{Conversation, Packet};

pub(super) fn all() -> Vec<Capture> {
    vec![
        ethernet(
            "body-codings",
            &codings(),
            "the same login in JSON eleven times, in each content coding, in stacks of two, in a transfer coding, in one \
             that nobody knows and in a decompression bomb; the answers are coded too.",
            "every readable one is a login attempt of the same user that failed; the unknown coding and the bomb are not, \
             and the bomb is marked body_capped.",
        ),
        Capture {
            config: Some(
                "identity.user_fields = [\"/who/0/handle\", \"email\", \"login\"]\nidentity.password_fields = [\"/proof\", \"passwort\"]\n",
            ),
            ..ethernet(
                "body-fields",
                &fields(),
                "one user logs in by JSON (plain, in UTF-16, with the field behind 70 kB in chunks of 7 bytes, by a JSON \
                 pointer), by a form in UTF-8 and ISO-8859-1, and by multipart behind a file.",
                "all of them are logins of one and the same user, whatever the characters and the place.",
            )
        },
        ethernet(
            "graphql-operations",
            &graphql(),
            "GraphQL by POST, GET, application/graphql, as a batch and with a persisted document; two of the mutations \
             carry a password, in the variables and in the document.",
            "the endpoint names type and operation; the two mutations are login attempts.",
        ),
        ethernet(
            "sse-stream",
            &event_stream(),
            "an event stream of a minute in chunks, one event in ten seconds; on the same connection a \
             page after it, and on another a long poll of 30 s and the next request.",
            "four transactions: the stream at its head (pace streamed, complete), the long poll (pace held), two others.",
        ),
        ethernet(
            "websocket-messages",
            &websocket(),
            "a WebSocket connection: messages of both sides, in one and in three frames, compressed and empty, a ping \
             within, one of 70 kB cut anywhere, an unmasked one of the client, then closes with 1000 and 1011.",
            "one transaction, upgraded; six messages, five control frames, one wrong mask and one abnormal close are \
             counted.",
        ),
    ]
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: app/1.0\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn answer(c: &mut Conversation, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    c.send(ToClient, &[head.as_bytes(), body].concat()).wait(super::SECOND / 10);
}

/// Appends what a coding makes of `text`; memory does not fail.
fn code(coding: &str, text: &[u8]) -> Vec<u8> {
    let level = Compression::best();
    match coding {
        "gzip" => {
            let mut z = GzEncoder::new(Vec::new(), level);
            let _ = z.write_all(text);
            z.finish().unwrap_or_default()
        }
        "deflate" => {
            let mut z = ZlibEncoder::new(Vec::new(), level);
            let _ = z.write_all(text);
            z.finish().unwrap_or_default()
        }
        "raw deflate" => {
            let mut z = DeflateEncoder::new(Vec::new(), level);
            let _ = z.write_all(text);
            z.finish().unwrap_or_default()
        }
        "br" => brotli_stored(text),
        "zstd" => zstd_stored(text),
        _ => text.to_vec(),
    }
}

/// A brotli stream (RFC 7932 §9) of one uncompressed meta-block and an empty last one; 1 to 65536 bytes.
fn brotli_stored(text: &[u8]) -> Vec<u8> {
    // WBITS 16, not last, 4 nibbles of length, uncompressed.
    let head = (((text.len() - 1) as u32) << 4) | 1 << 20;
    [&head.to_le_bytes()[..3], text, &[3]].concat()
}

/// A Zstandard frame (RFC 8878 §3.1.1) of one raw block; at most 255 bytes.
fn zstd_stored(text: &[u8]) -> Vec<u8> {
    let block = ((text.len() as u32) << 3) | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, text.len() as u8], &block.to_le_bytes()[..3], text].concat()
}

fn codings() -> Vec<Packet> {
    let mut c = started();
    let login = br#"{"username":"ann@example.com","password":"hunter22"}"#;
    let refusal = br#"{"success":false,"message":"wrong password"}"#;
    for (names, stack) in [
        ("gzip", &["gzip"][..]),
        ("deflate", &["deflate"]),
        ("deflate", &["raw deflate"]),
        ("br", &["br"]),
        ("zstd", &["zstd"]),
        ("gzip, br", &["gzip", "br"]),
        ("br, gzip", &["br", "gzip"]),
        ("zstd, deflate", &["zstd", "deflate"]),
    ] {
        let all = |text: &[u8]| stack.iter().fold(text.to_vec(), |text, coding| code(coding, &text));
        let headers = format!("Content-Type: application/json\r\nContent-Encoding: {names}\r\n");
        c.send(ToServer, &post("/login", &headers, &all(login)));
        answer(&mut c, &headers, &all(refusal));
    }
    let json = "Content-Type: application/json\r\n";
    let packed = code("gzip", login);
    let head = "POST /login HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: app/1.0\r\nTransfer-Encoding: gzip, chunked\r\n";
    let size = format!("\r\n{:x}\r\n", packed.len());
    let chunked = [head.as_bytes(), json.as_bytes(), size.as_bytes(), &packed, b"\r\n0\r\n\r\n"];
    c.send(ToServer, &chunked.concat());
    answer(&mut c, json, refusal);
    let unknown = format!("{json}Content-Encoding: compress\r\n");
    c.send(ToServer, &post("/login", &unknown, login));
    answer(&mut c, json, refusal);
    let bomb = [&vec![b' '; 8 << 20][..], login].concat();
    let headers = format!("{json}Content-Encoding: gzip\r\n");
    c.send(ToServer, &post("/login", &headers, &code("gzip", &bomb)));
    answer(&mut c, json, refusal);
    c.close();
    c.into_packets()
}

fn fields() -> Vec<Packet> {
    let mut c = started();
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let text = r#"{"email":"Jürgen","passwort":"geheim"}"#;
    let utf16: Vec<u8> =
        [0xfeffu16].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let pointed = r#"{"email":"nobody","who":[{"handle":"j\u00fcrgen"}],"proof":"geheim"}"#;
    let file = "x".repeat(5000);
    let multipart = format!(
        "--B\r\nContent-Disposition: form-data; name=f; filename=passwort\r\n\r\n{file}\r\n--B\r\nContent-Disposition: form-data; name=login\r\n\r\nJÜRGEN\r\n--B\r\nContent-Disposition: form-data; name=\"passwort\"\r\n\r\ngeheim\r\n--B--\r\n"
    );
    for (headers, body) in [
        (json, text.as_bytes()),
        (json, &utf16),
        (json, pointed.as_bytes()),
        (form, b"login=J%C3%BCrgen&passwort=geheim"),
        (form, b"login=J%FCrgen&passwort=geheim&_charset_=iso-8859-1"),
        ("Content-Type: multipart/form-data; boundary=B\r\n", multipart.as_bytes()),
    ] {
        c.send(ToServer, &post("/login", headers, body));
        answer(&mut c, json, br#"{"token":"0123456789abcdef"}"#);
    }
    let filler = "0123456789".repeat(7_000);
    let far = format!(r#"{{"filler":"{filler}","passwort":"geheim","email":"jürgen"}}"#);
    let mut chunked = format!(
        "POST /login HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: app/1.0\r\n{json}Transfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    // Small chunks where it matters, large ones before.
    let (before, after) = far.as_bytes().split_at(filler.len());
    for chunk in before.chunks(50_000).chain(after.chunks(7)) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    c.send(ToServer, &chunked);
    answer(&mut c, json, br#"{"token":"0123456789abcdef"}"#);
    c.close();
    c.into_packets()
}

fn graphql() -> Vec<Packet> {
    let mut c = started();
    let json = "Content-Type: application/json\r\n";
    let refused = br#"{"errors":[{"message":"wrong password"}]}"#;
    let data = br#"{"data":{"me":{"id":1}}}"#;
    for (body, reply) in [
        (
            r#"{"operationName":"Login","query":"mutation Login($email: String!, $password: String!) { login(email: $email, password: $password) { token } }","variables":{"email":"ann@example.com","password":"hunter22"}}"#,
            &refused[..],
        ),
        (
            r#"{"query":"mutation { login(email: \"ann@example.com\", password: \"hunter22\") { token } }"}"#,
            refused,
        ),
        (r#"{"query":"query Me { me { id } }"}"#, data),
        (r#"[{"query":"query Me { me { id } }"},{"query":"query Cart { cart { id } }"}]"#, data),
        (r#"{"operationName":"Me","extensions":{"persistedQuery":{"version":1,"sha256Hash":"5c31"}}}"#, data),
    ] {
        c.send(ToServer, &post("/graphql", json, body.as_bytes()));
        answer(&mut c, json, reply);
    }
    c.send(
        ToServer,
        &post("/graphql", "Content-Type: application/graphql\r\n", b"query Cart { cart { id } }"),
    );
    answer(&mut c, json, data);
    c.send(
        ToServer,
        b"GET /graphql?query=query+Stock+%7Bstock%7D HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: app/1.0\r\n\r\n",
    );
    answer(&mut c, json, data);
    c.close();
    c.into_packets()
}

fn event_stream() -> Vec<Packet> {
    let mut c = started();
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: app/1.0\r\n\r\n");
    c.send(ToServer, get("/events").as_bytes());
    c.send(
        ToClient,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for i in 0..6 {
        c.wait(10 * super::SECOND);
        let event = format!("data: {i}\n\n");
        c.send(ToClient, format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
    }
    c.send(ToClient, b"0\r\n\r\n").wait(super::SECOND);
    c.send(ToServer, get("/after").as_bytes());
    answer(&mut c, "", b"ok");
    c.close();
    let mut poll = Conversation::new(super::v4([192, 0, 2, 11], 40_001), super::server(), super::START);
    poll.handshake();
    poll.send(ToServer, get("/poll").as_bytes()).wait(30 * super::SECOND);
    answer(&mut poll, "", b"news");
    poll.send(ToServer, get("/next").as_bytes());
    answer(&mut poll, "", b"ok");
    poll.close();
    crate::conversation::merge(vec![c.into_packets(), poll.into_packets()])
}

/// A frame of the client's (masked) or the server's.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(len @ 0..=125) => out.push(bit | len as u8),
        Ok(len) => {
            out.push(bit | 126);
            out.extend(len.to_be_bytes());
        }
        Err(_) => {
            out.push(bit | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let key = if masked { [0x37, 0xfa, 0x21, 0x3d] } else { [0; 4] };
    if masked {
        out.extend(key);
    }
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    out
}

fn websocket() -> Vec<Packet> {
    let mut c = started();
    c.send(
        ToServer,
        b"GET /socket HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    c.send(
        ToClient,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let long = [
        frame(0x81, true, b"hello"),
        frame(0x01, true, b"in "),
        frame(0x89, true, b"ping"),
        frame(0x00, true, b"three "),
        frame(0x80, true, b"frames"),
        frame(0x82, true, &[7; 70_000]),
    ]
    .concat();
    c.send(ToServer, &long);
    c.send(
        ToClient,
        &[frame(0x8a, false, b"ping"), frame(0xc1, false, &[0xf2, 0x48, 0xcd]), frame(0x8a, false, b"")]
            .concat(),
    );
    c.send(ToServer, &[frame(0x81, false, b"bare"), frame(0x82, true, b"")].concat());
    c.send(ToClient, &frame(0x88, false, &1011u16.to_be_bytes()));
    c.send(ToServer, &frame(0x88, true, &1000u16.to_be_bytes()));
    c.close();
    c.into_packets()
}
