//! Dialogue scripts: what client and server say, readable in a diff.
//!
//! ```text
//! >>>
//! POST /login HTTP/1.1
//! Host: shop.example
//! Content-Length: 5
//!
//! hello\
//! <<<
//! HTTP/1.1 204 No Content
//!
//! <>< 1000
//! ```
//! - `>>>` starts bytes to the server, `<<<` bytes to the client.
//! - `><> N` and `<>< N` are N bytes to the server or to the client that the capture missed.
//! - Every content line ends in CRLF, empty lines too. A line that ends in a lone backslash has no line
//!   ending. `\r \n \t \0 \\` and `\xHH` are escapes, so `Host: a\n\` is a line that ends in a bare LF.
//! - Lines before the first marker are remarks.

use std::fmt;

use offpath_types::Direction;

/// One step of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Bytes sent.
    Data {
        /// Which way.
        direction: Direction,
        /// What.
        bytes: Vec<u8>,
    },
    /// Bytes sent that the capture missed.
    Gap {
        /// Which way.
        direction: Direction,
        /// How many.
        len: u32,
    },
}

/// A parsed script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialogue {
    /// The steps in order.
    pub turns: Vec<Turn>,
}

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogueError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for DialogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for DialogueError {}

impl Dialogue {
    /// Parses a script.
    ///
    /// # Errors
    /// An unknown escape, or a gap without a length.
    pub fn parse(script: &str) -> Result<Self, DialogueError> {
        let mut turns: Vec<Turn> = Vec::new();
        let mut in_data = false;
        for (i, line) in script.lines().enumerate() {
            let error = |what| DialogueError { line: i + 1, what };
            let (marker, rest) = line.split_at_checked(3).unwrap_or((line, ""));
            let direction = match marker {
                ">>>" | "><>" => Direction::ToServer,
                "<<<" | "<><" => Direction::ToClient,
                _ => {
                    if in_data && let Some(Turn::Data { bytes, .. }) = turns.last_mut() {
                        push_line(bytes, line).map_err(error)?;
                    }
                    continue;
                }
            };
            in_data = matches!(marker, ">>>" | "<<<");
            turns.push(if in_data {
                Turn::Data { direction, bytes: Vec::new() }
            } else {
                let len = rest.trim().parse().map_err(|_| error("a gap needs a length"))?;
                Turn::Gap { direction, len }
            });
        }
        turns.retain(|turn| !matches!(turn, Turn::Data { bytes, .. } if bytes.is_empty()));
        Ok(Self { turns })
    }

    /// Returns all bytes of one direction; gaps contribute nothing.
    pub fn bytes(&self, wanted: Direction) -> Vec<u8> {
        self.turns
            .iter()
            .filter_map(|turn| match turn {
                Turn::Data { direction, bytes } if *direction == wanted => Some(bytes.as_slice()),
                _ => None,
            })
            .collect::<Vec<_>>()
            .concat()
    }
}

fn push_line(out: &mut Vec<u8>, line: &str) -> Result<(), &'static str> {
    let mut bytes = line.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next() {
            None => return Ok(()),
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => hex(bytes.next())? * 16 + hex(bytes.next())?,
            Some(_) => return Err("unknown escape"),
        });
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn hex(digit: Option<u8>) -> Result<u8, &'static str> {
    digit.and_then(|d| char::from(d).to_digit(16)).map(|d| d as u8).ok_or("\\x needs two hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gives_its_turns() {
        let script =
            "remark\n>>>\nGET / HTTP/1.1\nHost: a\\n\\\n\n<<<\nx\\x41\\0\\\\\\\n<>< 12\n><> 3\n>>>\n";
        let turns = Dialogue::parse(script).unwrap().turns;
        assert_eq!(
            turns,
            [
                Turn::Data {
                    direction: Direction::ToServer,
                    bytes: b"GET / HTTP/1.1\r\nHost: a\n\r\n".to_vec()
                },
                Turn::Data { direction: Direction::ToClient, bytes: b"xA\0\\".to_vec() },
                Turn::Gap { direction: Direction::ToClient, len: 12 },
                Turn::Gap { direction: Direction::ToServer, len: 3 },
            ]
        );
    }

    #[test]
    fn errors_name_their_line() {
        for (script, line) in [(">>>\nok\n\\q", 3), ("<>< many", 1), (">>>\n\\x4", 2)] {
            assert_eq!(Dialogue::parse(script).unwrap_err().line, line, "{script}");
        }
    }
}
