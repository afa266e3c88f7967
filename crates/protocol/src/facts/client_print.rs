//! What an HTTP/2 client says of its stack before its first request.
//!
//! Settings, the first window update and stream priorities differ from stack to stack and hardly anybody fakes
//! them (Akamai, "Passive Fingerprinting of HTTP/2 Clients", 2017), and so does the order of the pseudo-header
//! fields. Hashed in wire order, behind the print of the head.

use super::hash::StableHash;

/// The running print of a connection's start.
#[derive(Clone, Copy)]
pub(crate) struct ClientPrint(StableHash);

impl Default for ClientPrint {
    fn default() -> Self {
        Self(StableHash::new(u64::from_le_bytes(*b"http2_01")))
    }
}

impl ClientPrint {
    /// Adds the payload of SETTINGS: ids and values in order. Reserved ids of the shape 0x?a?a are random with every
    /// connection of Chrome (as RFC 8701 has it for TLS): of these only the presence counts.
    pub(crate) fn settings(&mut self, payload: &[u8]) {
        for setting in payload.as_chunks::<6>().0 {
            if setting[0] & 0xf == 0xa && setting[1] & 0xf == 0xa {
                self.0.write(b"grease");
            } else {
                self.0.write(setting);
            }
        }
        self.0.write(b"S");
    }

    /// Adds the payload of a WINDOW_UPDATE of the connection, or of PRIORITY with its stream.
    pub(crate) fn frame(&mut self, stream: u32, payload: &[u8]) {
        self.0.write(&stream.to_be_bytes());
        self.0.write(payload);
    }

    /// Returns the fingerprint of a request with `head`'s print and pseudo-header fields in this order.
    pub(crate) fn of_request(mut self, head: u64, pseudo_order: &[u8]) -> u64 {
        self.0.write(pseudo_order);
        self.0.write(&head.to_le_bytes());
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_their_order_and_the_pseudo_header_order_count() {
        let print = |settings: &[u8], window: u32, order: &[u8]| {
            let mut print = ClientPrint::default();
            print.settings(settings);
            print.frame(0, &window.to_be_bytes());
            print.of_request(7, order)
        };
        let (a, b) = ([0, 1, 0, 0, 16, 0], [0, 4, 0, 1, 0, 0]);
        let chrome = print(&[a, b].concat(), 15_663_105, b"masp");
        assert_eq!(chrome, print(&[a, b].concat(), 15_663_105, b"masp"));
        assert_ne!(chrome, print(&[b, a].concat(), 15_663_105, b"masp"));
        assert_ne!(chrome, print(&[a, b].concat(), 12_517_377, b"masp"));
        assert_ne!(chrome, print(&[a, b].concat(), 15_663_105, b"mpas"));
        let grease = |id, value| print(&[a, [id, id, 0, 0, 0, value]].concat(), 1, b"masp");
        assert_eq!(grease(0x1a, 1), grease(0xfa, 9));
    }
}
