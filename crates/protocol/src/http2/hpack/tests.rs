//! Tests of the HPACK decoder: the RFC's examples, joining late, limits, and round trips.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{BlockOutcome, Decoder, HpackError, HpackLimits};
use crate::http2::hpack_model::fuzz_hpack_block;
use crate::http2::huffman;
use crate::http2::static_table::STATIC_TABLE;

const LIMITS: HpackLimits = HpackLimits { table_bytes_max: 1 << 16, list_bytes_max: 1 << 16 };

/// A field as it came out; `?` for what is unknown, `!` behind one that may not be indexed.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<(Vec<String>, BlockOutcome), HpackError> {
    let mut fields = Vec::new();
    let text = |text: Option<&[u8]>| text.map_or("?".to_owned(), |t| String::from_utf8_lossy(t).into_owned());
    let outcome = decoder.block(block, |name, value, forbidden| {
        fields.push(format!("{}: {}{}", text(name), text(value), if forbidden { " !" } else { "" }));
    })?;
    assert_eq!(fields.len() as u32, outcome.fields - outcome.fields_over);
    assert_eq!(
        fields.iter().filter(|f| f.starts_with("?:")).count() as u32,
        outcome.fields_unknown,
        "a value is known when its name is"
    );
    Ok((fields, outcome))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// An integer of RFC 7541 §5.1 under the flags `first`.
fn integer(first: u8, prefix: u32, value: usize, out: &mut Vec<u8>) {
    let full = (1 << prefix) - 1;
    if value < full {
        return out.push(first | value as u8);
    }
    out.push(first | full as u8);
    let mut rest = value - full;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A field of the kind `first` (0x40 inserts) with both texts plain.
fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    for text in [name, value] {
        integer(0, 7, text.len(), &mut out);
        out.extend_from_slice(text);
    }
    out
}

const SIZE_256: &str = "3fe1 01";

/// Connection, table size change before it, its blocks with their fields.
type Example = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Every example of RFC 7541 Appendix C.2 to C.6.
const EXAMPLES: &[Example] = &[
    (
        "C.2.1 literal with indexing",
        "",
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header",
        )],
    ),
    ("C.2.2 literal without indexing", "", &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path")]),
    (
        "C.2.3 literal never indexed",
        "",
        &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret !")],
    ),
    ("C.2.4 indexed", "", &[("82", ":method: GET")]),
    (
        "C.3 requests without Huffman code",
        "",
        &[
            (
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                ":method: GET|:scheme: http|:path: /|:authority: www.example.com",
            ),
            (
                "8286 84be 5808 6e6f 2d63 6163 6865",
                ":method: GET|:scheme: http|:path: /|:authority: www.example.com|cache-control: no-cache",
            ),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value",
            ),
        ],
    ),
    (
        "C.4 requests with Huffman code",
        "",
        &[
            (
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                ":method: GET|:scheme: http|:path: /|:authority: www.example.com",
            ),
            (
                "8286 84be 5886 a8eb 1064 9cbf",
                ":method: GET|:scheme: http|:path: /|:authority: www.example.com|cache-control: no-cache",
            ),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value",
            ),
        ],
    ),
    (
        "C.5 responses without Huffman code",
        SIZE_256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                ":status: 302|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com",
            ),
            (
                "4803 3330 37c1 c0bf",
                ":status: 307|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com",
            ),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                ":status: 200|cache-control: private|date: Mon, 21 Oct 2013 20:13:22 GMT|location: https://www.example.com|content-encoding: gzip|set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    ),
    (
        "C.6 responses with Huffman code",
        SIZE_256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                ":status: 302|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com",
            ),
            (
                "4883 640e ffc1 c0bf",
                ":status: 307|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com",
            ),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                ":status: 200|cache-control: private|date: Mon, 21 Oct 2013 20:13:22 GMT|location: https://www.example.com|content-encoding: gzip|set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    ),
];

#[test]
fn examples_of_the_rfc() {
    for (name, start, blocks) in EXAMPLES {
        let mut decoder = Decoder::new(LIMITS);
        decode(&mut decoder, &hex(start)).unwrap();
        for (block, fields) in *blocks {
            assert_eq!(decode(&mut decoder, &hex(block)).unwrap().0.join("|"), *fields, "{name}");
        }
    }
}

#[test]
fn evictions_are_those_of_the_rfc() {
    // After C.5.3 the table holds set-cookie, content-encoding, date; nothing older.
    let (_, start, blocks) = EXAMPLES[6];
    let mut decoder = Decoder::new(LIMITS);
    decode(&mut decoder, &hex(start)).unwrap();
    for (block, _) in blocks {
        decode(&mut decoder, &hex(block)).unwrap();
    }
    let (fields, _) = decode(&mut decoder, &hex("be bf c0")).unwrap();
    assert!(fields[0].starts_with("set-cookie: foo="));
    assert_eq!(fields[1..], ["content-encoding: gzip", "date: Mon, 21 Oct 2013 20:13:22 GMT"]);
    assert_eq!(decode(&mut decoder, &hex("c1")), Err(HpackError::IndexInvalid));
}

#[test]
fn every_prefix_is_cut_or_shorter() {
    for (name, start, blocks) in EXAMPLES {
        for last in 0..blocks.len() {
            let whole = hex(blocks[last].0);
            for cut in 0..whole.len() {
                for late in [false, true] {
                    let mut decoder = if late { Decoder::midstream(LIMITS) } else { Decoder::new(LIMITS) };
                    decode(&mut decoder, &hex(start)).unwrap();
                    for (block, _) in &blocks[..last] {
                        decode(&mut decoder, &hex(block)).unwrap();
                    }
                    match decode(&mut decoder, &whole[..cut]) {
                        Ok((fields, _)) if !late => {
                            assert!(blocks[last].1.starts_with(&fields.join("|")), "{name} at {cut}");
                        }
                        Ok(_) => {}
                        Err(error) => assert_eq!(error, HpackError::BlockCut, "{name} at {cut}"),
                    }
                }
            }
        }
    }
}

#[test]
fn integers() {
    // Literal without indexing, name from the index that is tested (prefix of 4 bits), empty value.
    for (name, index, want) in [
        ("fits the prefix", "0e", Ok(":status: ")),
        ("prefix full, zero follows", "0f00", Ok("accept-charset: ")),
        ("one byte more", "0f0d", Ok("content-length: ")),
        ("zeros after it", "0f8d 8080 8080 00", Ok("content-length: ")),
        ("ten bytes", "0f8d 8080 8080 8080 8000", Ok("content-length: ")),
        ("eleven bytes", "0f8d 8080 8080 8080 8080 00", Err(HpackError::IntegerTooLong)),
        ("2^32 - 1", "0ff0 ffff ff0f", Err(HpackError::IndexInvalid)),
        ("2^32", "0ff1 ffff ff0f", Err(HpackError::IntegerTooLong)),
        ("2^63", "0fff ffff ffff ffff ffff 7f", Err(HpackError::IntegerTooLong)),
    ] {
        let block = hex(&format!("{index}00"));
        let fields = decode(&mut Decoder::new(LIMITS), &block).map(|(fields, _)| fields.join("|"));
        assert_eq!(fields, want.map(str::to_owned), "{name}");
    }
}

#[test]
fn broken_blocks() {
    for (name, block, want) in [
        ("index 0", "80", HpackError::IndexInvalid),
        ("index past both tables", "be", HpackError::IndexInvalid),
        ("name index past both tables", "7e00", HpackError::IndexInvalid),
        ("no value", "41", HpackError::BlockCut),
        ("value longer than the block", "4103 6162", HpackError::BlockCut),
        ("value of 4 GB", "417f 80ff ffff 0f61", HpackError::BlockCut),
        ("bad Huffman code", "4181 ff", HpackError::HuffmanInvalid),
        ("table size above what is allowed", "3fe2 1f", HpackError::TableSizeTooLarge),
        ("table size after a field", "82 20", HpackError::TableSizeLate),
    ] {
        let mut decoder = Decoder::new(LIMITS);
        assert_eq!(decode(&mut decoder, &hex("4001 6101 62")).unwrap().0, ["a: b"]);
        decode(&mut decoder, &hex("20 3fe1 1f")).unwrap();
        assert_eq!(decode(&mut decoder, &hex(block)), Err(want), "{name}");
        assert_eq!(
            decode(&mut decoder, &hex("82 be")).unwrap().0,
            [":method: GET", "?: ?"],
            "{name}: place is lost"
        );
    }
}

#[test]
fn table_sizes() {
    let mut decoder = Decoder::new(LIMITS);
    decode(&mut decoder, &hex("4001 6101 62 4001 6301 64")).unwrap();
    // 34 bytes an entry: 67 leave the newest.
    assert_eq!(decode(&mut decoder, &hex("3f24 be")).unwrap().0, ["c: d"]);
    assert_eq!(decode(&mut decoder, &hex("bf")), Err(HpackError::IndexInvalid));

    let mut decoder = Decoder::new(LIMITS);
    decoder.allow(8192);
    decoder.allow(100);
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    assert_eq!(decode(&mut decoder, &hex("3fe1 3f be")).unwrap().0, ["a: b"], "8192 is still allowed");
    assert_eq!(decode(&mut decoder, &hex("20 3fe1 1f be")), Err(HpackError::IndexInvalid), "0 empties it");

    let mut decoder = Decoder::new(LIMITS);
    let large = literal(0x40, b"a", &[b'x'; 4096]);
    assert_eq!(decode(&mut decoder, &large).unwrap().1.fields, 1);
    assert_eq!(
        decode(&mut decoder, &hex("be")),
        Err(HpackError::IndexInvalid),
        "larger than the table: empties it"
    );
}

#[test]
fn joined_late() {
    let mut decoder = Decoder::midstream(LIMITS);
    // New, unseen, and the literal whose name is unseen.
    let (fields, outcome) = decode(&mut decoder, &hex("82 be 4001 6101 62 7f00 0178 be bf c0")).unwrap();
    assert_eq!(fields, [":method: GET", "?: ?", "a: b", "?: x", "?: x", "a: b", "?: ?"]);
    assert_eq!((outcome.fields, outcome.fields_unknown), (7, 4));
    // The name of an entry with an unknown name is unknown.
    assert_eq!(decode(&mut decoder, &hex("7e01 79 0f2f 017a")).unwrap().0, ["?: y", "?: z"]);
    // A size change says how large the table is, not what is in it.
    assert_eq!(decode(&mut decoder, &hex("3fe1 1f be c0 c1")).unwrap().0, ["?: y", "a: b", "?: ?"]);
    // 0 empties it: then all is known.
    assert_eq!(decode(&mut decoder, &hex("20 3fe1 1f 4001 6101 62 be")).unwrap().0, ["a: b", "a: b"]);
    assert_eq!(decode(&mut decoder, &hex("bf")), Err(HpackError::IndexInvalid));
    let mut decoder = Decoder::midstream(LIMITS);
    assert_eq!(
        decode(&mut decoder, &hex("20 3fe1 1f be")),
        Err(HpackError::IndexInvalid),
        "emptied before any entry"
    );
    // After a loss the table may be larger than it was: four entries of 2 KB may still be in it.
    let mut decoder = Decoder::new(LIMITS);
    decoder.lose();
    for name in [b"a", b"b", b"c", b"d"] {
        decode(&mut decoder, &literal(0x40, name, &[b'x'; 2000])).unwrap();
    }
    assert!(decode(&mut decoder, &hex("c1")).unwrap().0[0].starts_with("a: x"));
    // After a loss nothing before it is used.
    let mut decoder = Decoder::new(LIMITS);
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    decoder.lose();
    assert_eq!(decode(&mut decoder, &hex("be 7e00")).unwrap().0, ["?: ?", "?: "]);
    // An index that would lie beyond the table, had it its least entries.
    decode(&mut decoder, &hex("3f21")).unwrap();
    assert_eq!(decode(&mut decoder, &hex("be bf")).unwrap().0, ["?: ", "?: ?"]);
    assert_eq!(decode(&mut decoder, &hex("c0")), Err(HpackError::IndexInvalid), "64 bytes hold no third");
}

#[test]
fn the_unseen_part_ends_when_the_table_has_turned_over() {
    let mut decoder = Decoder::midstream(LIMITS);
    decode(&mut decoder, &hex("3fe1 01")).unwrap();
    // 256 bytes: seven entries of 34 leave 18, too little for an unseen one.
    for n in 0..7 {
        let (fields, _) = decode(&mut decoder, &[&hex("4001 6101 62")[..], &[0xbe + n, 0xbf + n]].concat())
            .unwrap_or_else(|error| {
                assert_eq!((error, n), (HpackError::IndexInvalid, 6));
                (vec!["a: b".into(), "a: b".into(), "?: ?".into()], BlockOutcome::default())
            });
        assert_eq!(fields, ["a: b", "a: b", "?: ?"]);
    }
}

#[test]
fn entries_beyond_our_memory_become_unknown() {
    let limits = HpackLimits { table_bytes_max: 100, ..LIMITS };
    let mut decoder = Decoder::new(limits);
    decode(&mut decoder, &hex("4001 6101 62 4001 6301 64 4001 6501 66")).unwrap();
    assert_eq!(decode(&mut decoder, &hex("be bf c0")).unwrap().0, ["e: f", "c: d", "?: ?"]);
    let large = literal(0x40, b"a", &[b'x'; 100]);
    decode(&mut decoder, &large).unwrap();
    assert_eq!(
        decode(&mut decoder, &hex("be 4001 6301 64 be bf")).unwrap().0,
        ["?: ?", "c: d", "c: d", "?: ?"]
    );
}

#[test]
fn bombs_are_capped() {
    // One entry of 4 KB, then 16 KB of references to it: 65 MB of fields.
    let mut decoder = Decoder::new(LIMITS);
    let entry = literal(0x40, b"a", &[b'x'; 3983]);
    decode(&mut decoder, &entry).unwrap();
    let mut handed = 0;
    let outcome = decoder
        .block(&[0xbe; 16384], |name, value, _| handed += name.unwrap().len() + value.unwrap().len() + 32)
        .unwrap();
    assert_eq!(outcome.fields, 16384);
    assert_eq!(outcome.list_bytes, 16384 * (3983 + 1 + 32));
    assert_eq!(outcome.fields_over, 16384 - 16);
    assert_eq!(handed, 16 * (3983 + 1 + 32));
    // What fits after it still comes out, and the table stays in step.
    let block = [&[0xbe; 20][..], &hex("4001 6301 64 82 be")].concat();
    let (fields, outcome) = decode(&mut decoder, &block).unwrap();
    assert_eq!(fields[16..], ["c: d", ":method: GET", "c: d"]);
    assert_eq!(outcome.fields_over, 4);
}

#[test]
fn names_that_insertions_take_over_are_not_copied() {
    // A name of 60 KB, then two bytes for each entry that takes it over, plain and in Huffman code.
    for huffman in [false, true] {
        let mut decoder = Decoder::new(LIMITS);
        decoder.allow(1 << 16);
        let name = [b'n'; 60_000];
        let mut code = name.to_vec();
        if huffman {
            code.clear();
            huffman::encode(&name, &mut code);
        }
        let mut block = hex("3fe1ff03 40");
        integer(if huffman { 0x80 } else { 0 }, 7, code.len(), &mut block);
        block.extend_from_slice(&code);
        block.push(0);
        decode(&mut decoder, &block).unwrap();
        for _ in 0..100 {
            let outcome = decoder.block(&hex("7e00").repeat(5000), |_, _, _| {}).unwrap();
            assert_eq!((outcome.fields, outcome.fields_unknown), (5000, 0));
            assert!(decoder.texts.capacity() < 2 << 10, "{}", decoder.texts.capacity());
        }
        assert!(decoder.held_bytes() > 60_000);
        let (fields, _) = decode(&mut decoder, &hex("be 0f2f 0161")).unwrap();
        assert!(fields[0] == format!("{}: ", "n".repeat(60_000)), "huffman: {huffman}");
        decode(&mut decoder, &hex("20")).unwrap();
        assert!(decoder.held_bytes() < 4 << 10, "{}", decoder.held_bytes());
    }
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut decoder = Decoder::new(LIMITS);
    // Smallest entries, as many as a block holds; then the largest literal, not inserted.
    decode(&mut decoder, &hex("4000 00").repeat(20_000)).unwrap();
    assert!(decoder.held_bytes() < 16 << 10, "{}", decoder.held_bytes());
    let mut long = hex("0001 61");
    integer(0x80, 7, 65_535, &mut long);
    long.resize(long.len() + 65_535, 0);
    let (fields, _) =
        decode(&mut Decoder::new(HpackLimits { list_bytes_max: 1 << 20, ..LIMITS }), &long).unwrap();
    assert!(fields[0].len() > 100_000);
    decode(&mut decoder, &long).unwrap();
    assert!(decoder.held_bytes() < 16 << 10, "{}", decoder.held_bytes());
    for n in 0..200 {
        decode(&mut decoder, &literal(0x40, b"", &[n; 1000])).unwrap();
        assert!(decoder.held_bytes() < 32 << 10, "{}", decoder.held_bytes());
    }
    // Insertions for ever.
    let mut decoder = Decoder::midstream(LIMITS);
    for n in 0..20_000u32 {
        let block = [&hex("4000 04")[..], &n.to_be_bytes()].concat();
        decode(&mut decoder, &block).unwrap();
        assert!(decoder.held_bytes() < 3 << 16, "{}", decoder.held_bytes());
    }
    assert_eq!(
        decoder
            .block(&[0xbe], |_, value, _| assert_eq!(value, Some(&19_999u32.to_be_bytes()[..])))
            .unwrap()
            .fields,
        1
    );
}

/// How the test encoder writes a field.
#[derive(Clone, Copy, Debug)]
struct Choice {
    insert: bool,
    forbid: bool,
    look_up: bool,
    huffman: [bool; 2],
}

/// An encoder that does what it is told; its table is the model of the decoder's.
struct Encoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
    size_max: usize,
}

impl Encoder {
    fn resize(&mut self, size: usize, out: &mut Vec<u8>) {
        integer(0x20, 5, size, out);
        self.size_max = size;
        self.evict();
    }

    fn evict(&mut self) {
        while self.table.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>() > self.size_max {
            self.table.pop();
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8], choice: Choice, out: &mut Vec<u8>) {
        let known = || {
            let fixed = STATIC_TABLE.iter().map(|(n, v)| (*n, *v));
            fixed.chain(self.table.iter().map(|(n, v)| (&n[..], &v[..])))
        };
        let whole = known().position(|entry| entry == (name, value)).filter(|_| choice.look_up);
        if let Some(place) = whole.filter(|_| !choice.forbid) {
            return integer(0x80, 7, place + 1, out);
        }
        let named = known().position(|entry| entry.0 == name).filter(|_| choice.look_up);
        let index = named.map_or(0, |place| place + 1);
        match choice {
            Choice { forbid: true, .. } => integer(0x10, 4, index, out),
            Choice { insert: true, .. } => integer(0x40, 6, index, out),
            _ => integer(0, 4, index, out),
        }
        let texts = [(name, choice.huffman[0]), (value, choice.huffman[1])];
        for (text, huffman) in &texts[usize::from(index > 0)..] {
            let mut code = Vec::new();
            huffman::encode(text, &mut code);
            let (flag, text) = if *huffman { (0x80, &code[..]) } else { (0, *text) };
            integer(flag, 7, text.len(), out);
            out.extend_from_slice(text);
        }
        if choice.insert && !choice.forbid {
            self.table.insert(0, (name.to_vec(), value.to_vec()));
            self.evict();
        }
    }
}

/// A field, from few names and values so that the tables are used, or from any bytes.
fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Choice)> {
    let name = prop_oneof![
        Just(b":path".to_vec()),
        Just(b":status".to_vec()),
        Just(b"cookie".to_vec()),
        Just(b"x-request-id".to_vec()),
        Just(b"grpc-status".to_vec()),
        vec(any::<u8>(), 0..20),
        // Around the longest name that is copied.
        (127..131usize).prop_map(|len| vec![b'n'; len]),
    ];
    let value = prop_oneof![
        Just(b"/".to_vec()),
        Just(b"200".to_vec()),
        "[a-z0-9=; /]{0,60}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..80)
    ];
    let choice = (any::<bool>(), any::<bool>(), any::<bool>(), any::<[bool; 2]>(), 0..8u8).prop_map(
        |(insert, forbid, look_up, huffman, rare)| Choice {
            insert,
            forbid: forbid && rare == 0,
            look_up,
            huffman,
        },
    );
    (name, value, choice)
}

/// A block: perhaps a table size, then fields.
type Block = (Option<u16>, Vec<(Vec<u8>, Vec<u8>, Choice)>);

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let size = prop_oneof![8 => Just(None), 1 => (0..400u16).prop_map(Some), 1 => Just(Some(4096))];
    // A block without a field can't be a head, and the other decoder refuses a size change there.
    vec((size, vec(field(), 1..12)), 1..12)
}

fn encode(blocks: &[Block]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder { table: Vec::new(), size_max: 4096 };
    let mut encoded = Vec::new();
    for (size, fields) in blocks {
        let mut out = Vec::new();
        if let Some(size) = size {
            encoder.resize(usize::from(*size), &mut out);
        }
        for (name, value, choice) in fields {
            encoder.field(name, value, *choice, &mut out);
        }
        encoded.push(out);
    }
    encoded
}

fn decode_known(decoder: &mut Decoder, block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields = Vec::new();
    decoder
        .block(block, |name, value, _| fields.push((name.unwrap().to_vec(), value.unwrap().to_vec())))
        .unwrap();
    fields
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(blocks in blocks()) {
        let mut decoder = Decoder::new(LIMITS);
        let mut other = loona_hpack::Decoder::new();
        for (block, (_, fields)) in encode(&blocks).iter().zip(&blocks) {
            let want: Vec<_> = fields.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(&decode_known(&mut decoder, block), &want);
            prop_assert_eq!(other.decode(block).unwrap(), want, "another decoder agrees");
        }
    }

    #[test]
    fn what_another_encoder_wrote_is_decoded(lists in vec(vec(field(), 0..12), 1..12)) {
        let mut decoder = Decoder::new(LIMITS);
        let mut other = loona_hpack::Encoder::new();
        for fields in &lists {
            let block = other.encode(fields.iter().map(|(name, value, _)| (&name[..], &value[..])));
            let want: Vec<_> = fields.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(decode_known(&mut decoder, &block), want);
        }
    }

    #[test]
    fn joining_late_losing_and_little_memory_never_lie(
        blocks in blocks(),
        options in any::<[u8; 2]>(),
        controls in vec(0..8u8, 12),
        damage in proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut data = options.to_vec();
        for (block, control) in encode(&blocks).iter().zip(&controls) {
            if control & 3 == 3 {
                data.extend_from_slice(&[3, 0, 2, 0x20, *control]);
            }
            data.push(control & 4);
            data.extend_from_slice(&(block.len() as u16).to_be_bytes());
            data.extend_from_slice(block);
        }
        if let Some((place, byte)) = damage {
            let place = place.index(data.len());
            data[place] = byte;
        }
        fuzz_hpack_block(&data);
    }

    #[test]
    fn any_bytes_are_survived(data in vec(any::<u8>(), 0..400)) {
        fuzz_hpack_block(&data);
    }
}

#[test]
#[ignore = "writes the seeds of the fuzz target"]
fn write_fuzz_seeds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/hpack_block");
    std::fs::create_dir_all(folder).unwrap();
    for (name, start, blocks) in EXAMPLES {
        let mut data = vec![1, 0x8f];
        for block in std::iter::once(start).chain(blocks.iter().map(|(block, _)| block)) {
            let block = hex(block);
            data.push(0);
            data.extend_from_slice(&(block.len() as u16).to_be_bytes());
            data.extend_from_slice(&block);
        }
        let name = name.to_lowercase().replace(['.', ' '], "_");
        std::fs::write(format!("{folder}/{name}.bin"), data).unwrap();
    }
}
