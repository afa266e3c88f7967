//! What passes of a body, and what is read of it on the way.
//!
//! ```text
//! push push push … ─▶ (coded: kept, undone at the end) ─▶ character set ─▶ what is it? ─▶ JSON, form, multipart ─▶ fields
//!                                                                                    └──▶ (responses) hints
//! ```
//! Nothing of a body is kept but its unfinished token and, where it is coded, its first
//! [`CODED_BYTES_MAX`] bytes as on the wire; nothing where the shard has no room for those. How it is cut changes nothing.

use super::charset::{START_BYTES, Start, Utf16, start};
use super::coding::{Codings, Decoded, decode};
use super::fields::{Collector, Found, JsonKey, parameter};
use super::form::FormScanner;
use super::graphql;
use super::hint::{HintKey, JsonHint, PageHint};
use super::json::Scanner;
use super::multipart::MultipartScanner;
use super::secret::SecretBuf;
use crate::kept::Kept;

/// How much is kept of a coded body. Past it, its beginning is read (`body_capped`).
const CODED_BYTES_MAX: usize = 64 << 10;
/// How much is kept of a body whose outline is wanted. Past it, the outline is that of its beginning.
const OUTLINED_BYTES_MAX: usize = 64 << 10;
/// Longest multipart boundary that is looked for (RFC 2046 §5.1.1 allows 70).
const BOUNDARY_BYTES_MAX: usize = 200;
/// First bytes of a body within which a form must show its first `=`.
const FORM_NAME_BYTES_MAX: usize = 64;
/// Capacity that a reused buffer keeps.
const SPARE_BYTES_MAX: usize = 8 << 10;
/// How much UTF-16 is decoded at a time.
const UTF16_PIECE_BYTES: usize = 1 << 10;

/// What a body is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Form,
    Multipart,
    /// A GraphQL document.
    GraphQl,
    /// HTML or text (responses).
    Text,
    /// Not said, or something that says little: the first bytes decide.
    #[default]
    Sniff,
}

/// What is known of how a body begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Not even its character set.
    #[default]
    Start,
    /// Not what it is.
    Sniff,
    /// It is read as this.
    Reading(Format),
    /// It is nothing that has fields.
    Unrecognised,
}

/// One body that is looked into. Wiped when it is dropped.
#[derive(Default)]
pub struct BodyTap {
    format: Format,
    response: bool,
    codings: Codings,
    /// Coded bytes as on the wire.
    coded: SecretBuf,
    /// How much more may be taken.
    room: usize,
    inspect_max: usize,
    capped: bool,
    gap: bool,
    stage: Stage,
    /// First bytes that do not tell enough yet; the document where the body is one.
    first: SecretBuf,
    utf16: Option<Utf16>,
    any: bool,
    /// An outline is wanted: the text is kept, decoded.
    keep: bool,
    kept: SecretBuf,
    kept_whole: bool,
    /// Bytes of these that are on the shard's books.
    counted: usize,
    /// The shard had no room for all that was to be kept: nothing is.
    held_full: bool,
    json: Scanner<JsonKey>,
    form: FormScanner,
    multipart: MultipartScanner,
    found: Found,
    json_hint: (Scanner<HintKey>, JsonHint),
    page_hint: PageHint,
}

/// Where the bytes of a push went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) taken: usize,
    pub(super) over_cap: usize,
    pub(super) after_gap: usize,
    /// From here on nothing is kept, for want of room.
    pub(super) became_full: bool,
}

/// What reading needs besides the tap.
pub(super) struct Reading<'k> {
    pub(super) key: &'k offpath_types::IdentityKey,
    pub(super) fields: &'k super::fields::Fields,
    pub(super) scratch: &'k mut SecretBuf,
    pub(super) spare: &'k mut SecretBuf,
    pub(super) kept: &'k mut Kept,
}

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// What it was read as; `None` for nothing that has fields.
    pub(super) format: Option<Format>,
    /// It was not empty.
    pub(super) any: bool,
    /// Bytes of it are missing, as it was on the wire.
    pub(super) cut: bool,
    /// It was well-formed to its end.
    pub(super) sound: bool,
    /// The decoding of a coded body, and what came out.
    pub(super) decoded: Option<(Decoded, usize)>,
}

impl BodyTap {
    /// Begins another body, of which `inspect_max` bytes are looked into.
    /// `keep` where its outline is wanted.
    pub(super) fn begin(
        &mut self,
        what: &Readable<'_>,
        response: bool,
        graphql: bool,
        keep: bool,
        inspect_max: usize,
    ) {
        let Readable::As(format, codings, boundary) = *what else { return };
        debug_assert!(self.stage == Stage::Start && self.coded.len() == 0, "a used tap was wiped");
        (self.format, self.codings, self.response, self.inspect_max) =
            (format, codings, response, inspect_max);
        self.room = if codings.is_empty() { inspect_max } else { CODED_BYTES_MAX.min(inspect_max) };
        if format == Format::Multipart {
            self.multipart.reset(boundary);
            self.stage = Stage::Reading(Format::Multipart);
        }
        (self.keep, self.kept_whole) = (keep, true);
        self.found.reset(graphql || format == Format::GraphQl);
    }

    /// Wipes what was kept.
    pub(super) fn wipe(&mut self) {
        for buf in [&mut self.coded, &mut self.first, &mut self.kept] {
            buf.clear();
            buf.shrink(SPARE_BYTES_MAX);
        }
        (self.capped, self.gap, self.any, self.held_full) = (false, false, false, false);
        (self.stage, self.utf16) = (Stage::Start, None);
        self.counted = 0;
        self.json.reset();
        self.form.reset();
        if self.response {
            self.json_hint.0.reset();
            self.json_hint.1 = JsonHint::default();
            self.page_hint.reset();
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], with: &mut Reading<'_>) -> Pushed {
        if self.gap {
            return Pushed { taken: 0, over_cap: 0, after_gap: bytes.len(), became_full: false };
        }
        let was_full = self.held_full;
        let mut take = bytes.len().min(self.room);
        self.room -= take;
        if self.codings.is_empty() {
            self.read(&bytes[..take], with);
        } else {
            take = self.room_for(take, with.kept);
            if !self.held_full {
                self.coded.extend(&bytes[..take]);
            }
        }
        self.capped |= take < bytes.len();
        let became_full = self.held_full && !was_full;
        Pushed { taken: take, over_cap: bytes.len() - take, after_gap: 0, became_full }
    }

    /// Takes room on the shard's books for `want` more bytes; returns for how many there was any. Where there is not
    /// for all, nothing of the body is kept from here on.
    fn room_for(&mut self, want: usize, kept: &mut Kept) -> usize {
        if self.held_full {
            return 0;
        }
        let taken = kept.take(self.counted, want);
        self.counted += taken;
        if taken < want {
            self.held_full = true;
            kept.remove(self.uncount());
            for buf in [&mut self.coded, &mut self.first, &mut self.kept] {
                buf.clear();
                buf.shrink(0);
            }
        }
        taken
    }

    /// Takes what this tap keeps off the books; returns how much that is.
    pub(super) fn uncount(&mut self) -> usize {
        std::mem::take(&mut self.counted)
    }

    pub(super) fn gap(&mut self) {
        self.gap = true;
    }

    pub(super) fn capped(&self) -> bool {
        self.capped
    }

    pub(super) fn is_response(&self) -> bool {
        self.response
    }

    pub(super) fn found(&mut self) -> &mut Found {
        &mut self.found
    }

    #[cfg(test)]
    pub(super) fn is_wiped(&self) -> bool {
        self.coded.len() == 0 && self.first.len() == 0 && self.kept.len() == 0
    }

    /// What was kept for an outline, the boundary where it is multipart, and whether that is all of the body.
    pub(super) fn outlined(&self) -> (&[u8], &[u8], bool) {
        (self.kept.bytes(), self.multipart.boundary(), self.kept_whole)
    }

    /// What the body was said to be.
    pub(super) fn said(&self) -> Format {
        self.format
    }

    /// Ends the body; `cut` where it broke off.
    pub(super) fn finish(&mut self, cut: bool, with: &mut Reading<'_>) -> Read {
        let cut = cut || self.capped || self.gap;
        let mut decoded = None;
        let mut whole = !cut;
        self.kept_whole &= !cut;
        let mut as_said = true;
        if !self.codings.is_empty() && self.coded.len() > 0 {
            let coded = std::mem::take(&mut self.coded);
            let (codings, max) = (self.codings, self.inspect_max);
            if !self.response && is_plain(&codings, coded.bytes(), max) {
                self.read(coded.bytes(), with);
                as_said = false;
            }
            if as_said {
                let result = decode(&codings, coded.bytes(), max, |piece| self.read(piece, with));
                whole &= result.0 == Decoded::Whole;
                self.kept_whole &= whole;
                decoded = Some(result);
            }
            self.coded = coded;
        }
        if self.stage == Stage::Start {
            self.settle_start(with);
        }
        if self.stage == Stage::Sniff {
            self.settle(None, with);
        }
        let Stage::Reading(format) = self.stage else {
            return Read { format: None, any: self.any, cut, sound: true, decoded };
        };
        let found = &mut self.found;
        let mut collector = collector(found, with);
        let sound = match format {
            _ if self.response => match format {
                Format::Json => self.json_hint.0.finish(),
                _ => true,
            },
            Format::Json => self.json.finish(),
            Format::Multipart => self.multipart.finish(),
            Format::Form => {
                self.form.finish(whole, &mut collector);
                true
            }
            Format::GraphQl => {
                collector.document(self.first.bytes());
                true
            }
            Format::Text | Format::Sniff => true,
        };
        self.capped |= self.json.too_deep() || self.multipart.capped();
        Read { format: Some(format), any: self.any, cut, sound: sound && as_said, decoded }
    }

    /// What a login's response hints at, once it is finished.
    pub(super) fn hint(&mut self) -> offpath_types::BodyHint {
        match self.stage {
            Stage::Reading(Format::Json) => self.json_hint.1.hint(),
            Stage::Reading(_) | Stage::Unrecognised => self.page_hint.finish(),
            Stage::Start | Stage::Sniff => offpath_types::BodyHint::None,
        }
    }

    /// Takes the next bytes, decoded.
    fn read(&mut self, bytes: &[u8], with: &mut Reading<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.any = true;
        if self.stage != Stage::Start {
            return self.unicode(bytes, with);
        }
        if self.first.len() == 0 && bytes.len() >= START_BYTES {
            let mark = self.start(bytes);
            return self.unicode(&bytes[mark..], with);
        }
        let take = bytes.len().min(START_BYTES - self.first.len());
        self.first.extend(&bytes[..take]);
        if self.first.len() == START_BYTES {
            self.settle_start(with);
            self.unicode(&bytes[take..], with);
        }
    }

    /// Settles the character set by all that there is.
    fn settle_start(&mut self, with: &mut Reading<'_>) {
        let first = std::mem::take(&mut self.first);
        let mark = self.start(first.bytes());
        self.unicode(&first.bytes()[mark..], with);
    }

    /// Settles the character set by the first bytes; returns how long its mark is.
    fn start(&mut self, first: &[u8]) -> usize {
        self.stage = Stage::Sniff;
        match start(first) {
            Start::Utf16 { little, mark } if matches!(self.format, Format::Json | Format::Sniff) => {
                self.utf16 = Some(Utf16::new(little));
                mark
            }
            Start::Utf16 { .. } => 0,
            Start::Utf8 { mark } => mark,
        }
    }

    /// Takes the next bytes, in the character set that was settled.
    fn unicode(&mut self, bytes: &[u8], with: &mut Reading<'_>) {
        let Some(mut utf16) = self.utf16 else { return self.utf8(bytes, with) };
        let mut plain = SecretBuf::default();
        for piece in bytes.chunks(UTF16_PIECE_BYTES) {
            plain.clear();
            utf16.decode(piece, &mut plain);
            self.utf8(plain.bytes(), with);
        }
        self.utf16 = Some(utf16);
    }

    fn utf8(&mut self, bytes: &[u8], with: &mut Reading<'_>) {
        if self.stage != Stage::Sniff {
            return self.parse(bytes, with);
        }
        if self.first.len() == 0 {
            let skipped = bytes.len() - bytes.trim_ascii_start().len();
            let bytes = &bytes[skipped..];
            match sniff(bytes) {
                Sniffed::More => self.first.extend(bytes),
                known => {
                    self.become_known(known);
                    self.parse(bytes, with);
                }
            }
            return;
        }
        // At most as much as is looked at, plus one piece.
        let need = (FORM_NAME_BYTES_MAX + 1).saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend(&bytes[..need]);
        let known = sniff(self.first.bytes());
        if known != Sniffed::More {
            self.settle(Some(known), with);
            self.parse(&bytes[need..], with);
        }
    }

    /// Settles what the body is by its first bytes, and reads those.
    fn settle(&mut self, known: Option<Sniffed>, with: &mut Reading<'_>) {
        self.become_known(known.unwrap_or(Sniffed::Neither));
        let first = std::mem::take(&mut self.first);
        self.parse(first.bytes(), with);
    }

    fn become_known(&mut self, known: Sniffed) {
        let format = match (self.format, known) {
            (Format::GraphQl, Sniffed::Json) if !self.response => Some(Format::GraphQl),
            (Format::Text, _) if self.response => Some(Format::Text),
            (_, Sniffed::Json) => Some(Format::Json),
            (_, _) if self.response => Some(Format::Text),
            (Format::GraphQl, _) => Some(Format::GraphQl),
            (_, Sniffed::Form) => Some(Format::Form),
            (Format::Sniff, _) => None,
            (said, _) => Some(said),
        };
        self.stage = format.map_or(Stage::Unrecognised, Stage::Reading);
    }

    /// Takes the next bytes of what the body is known to be.
    fn parse(&mut self, bytes: &[u8], with: &mut Reading<'_>) {
        let Stage::Reading(format) = self.stage else { return };
        if self.response {
            match format {
                Format::Json => self.json_hint.0.feed(bytes, &mut self.json_hint.1),
                _ => self.page_hint.feed(bytes),
            }
            return;
        }
        if self.keep {
            let want = bytes.len().min(OUTLINED_BYTES_MAX - self.kept.len());
            let take = self.room_for(want, with.kept);
            self.keep = !self.held_full;
            self.kept_whole &= self.keep && take == bytes.len();
            if self.keep {
                self.kept.extend(&bytes[..take]);
            }
        }
        let mut collector = collector(&mut self.found, with);
        match format {
            Format::Json => self.json.feed(bytes, &mut collector),
            Format::Form => self.form.feed(bytes, &mut collector),
            Format::Multipart => self.multipart.feed(bytes, &mut collector),
            Format::GraphQl => {
                let left = graphql::DOCUMENT_BYTES_MAX.saturating_sub(self.first.len());
                let take = self.room_for(bytes.len().min(left), with.kept);
                self.capped |= take < bytes.len() || self.held_full;
                if !self.held_full {
                    self.first.extend(&bytes[..take]);
                }
            }
            Format::Text | Format::Sniff => {}
        }
    }
}

fn collector<'a>(found: &'a mut Found, with: &'a mut Reading<'_>) -> Collector<'a> {
    Collector { key: with.key, fields: with.fields, scratch: with.scratch, spare: with.spare, found }
}

/// What a body's headers say of whether it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable<'a> {
    /// Yes; with the boundary where it is multipart.
    As(Format, Codings, &'a [u8]),
    /// A type that holds no fields: images, protobuf …
    TypeUnread,
    /// A coding that is not known, or too many.
    CodingUnread,
}

/// Reads Content-Type and the codings; `response` where HTML is wanted and forms are not.
pub(super) fn readable(content_type: Option<&[u8]>, codings: Codings, response: bool) -> Readable<'_> {
    let content_type = content_type.unwrap_or_default();
    let media = media_type(content_type);
    let is = |known: &str| media.eq_ignore_ascii_case(known.as_bytes());
    let ends = |end: &str| {
        media.len() > end.len() && media[media.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    };
    let format = if is("application/json") || is("text/json") || ends("+json") || is("application/x-ndjson") {
        Format::Json
    } else if is("application/graphql") && !response {
        Format::GraphQl
    } else if is("application/x-www-form-urlencoded") && !response {
        Format::Form
    } else if is("multipart/form-data") && !response {
        Format::Multipart
    } else if response && (is("text/html") || is("application/xhtml+xml")) {
        Format::Text
    } else if media.is_empty()
        || is("text/plain")
        || is("text/javascript") && !response
        || (is("application/octet-stream") || is("*/*")) && !response
    {
        Format::Sniff
    } else {
        return Readable::TypeUnread;
    };
    let codings = match (codings.unknown, response) {
        (true, true) => return Readable::CodingUnread,
        // Many servers pass over what a request says of its coding, so one that does not exist would hide a login.
        (true, false) => Codings::default(),
        (false, _) => codings,
    };
    let boundary = match format {
        Format::Multipart => match parameter(content_type, b"boundary") {
            Some(b) if (1..=BOUNDARY_BYTES_MAX).contains(&b.len()) => b,
            _ => return Readable::TypeUnread,
        },
        _ => b"",
    };
    Readable::As(format, codings, boundary)
}

/// Tells whether a request's body is text, though its head says that it is coded: it begins like text, and cannot be
/// decoded. Servers that do not undo codings read such a one.
fn is_plain(codings: &Codings, coded: &[u8], max: usize) -> bool {
    /// Coded bytes that all look like text by chance: one body in a million.
    const FIRST_BYTES: usize = 16;
    let first = &coded[..coded.len().min(FIRST_BYTES)];
    first.iter().all(|c| matches!(c, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
        && decode(codings, coded, max, |_| ()).0 != Decoded::Whole
}

/// Returns a content type without its parameters.
pub(super) fn media_type(content_type: &[u8]) -> &[u8] {
    content_type[..memchr::memchr(b';', content_type).unwrap_or(content_type.len())].trim_ascii()
}

/// What first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sniffed {
    Json,
    Form,
    Neither,
    /// Nothing yet.
    More,
}

/// Tells from the first bytes, without white space before them, what a body is.
fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes.first() {
        None => return Sniffed::More,
        Some(b'{' | b'[') => return Sniffed::Json,
        Some(_) => {}
    }
    let name = |c: &u8| c.is_ascii_alphanumeric() || b"_-.[]%$:+&".contains(c);
    match bytes.iter().take(FORM_NAME_BYTES_MAX).position(|c| !name(c)) {
        Some(end) if end > 0 && bytes[end] == b'=' => Sniffed::Form,
        None if bytes.len() < FORM_NAME_BYTES_MAX => Sniffed::More,
        _ => Sniffed::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_can_be_read() {
        use Format::*;
        let codings = |value: &str| {
            let mut codings = Codings::default();
            codings.note(value.as_bytes());
            codings
        };
        let none = Codings::default();
        for (content_type, encoding, response, want) in [
            (Some("application/json; charset=utf-8"), "", false, Readable::As(Json, none, b"" as &[u8])),
            (Some("application/vnd.api+json"), "gzip", false, Readable::As(Json, codings("gzip"), b"")),
            (Some("application/json"), "br", true, Readable::As(Json, codings("br"), b"")),
            (Some("application/graphql"), "", false, Readable::As(GraphQl, none, b"")),
            (Some("application/x-www-form-urlencoded"), "", false, Readable::As(Form, none, b"")),
            (Some("multipart/form-data; boundary=\"x y\""), "", false, Readable::As(Multipart, none, b"x y")),
            (Some("multipart/form-data"), "", false, Readable::TypeUnread),
            (None, "", false, Readable::As(Sniff, none, b"")),
            (Some("text/plain"), "", false, Readable::As(Sniff, none, b"")),
            (Some("image/png"), "", false, Readable::TypeUnread),
            (Some("application/json"), "compress", false, Readable::As(Json, none, b"")),
            (Some("application/json"), "gzip, foo", false, Readable::As(Json, none, b"")),
            (Some("application/json"), "compress", true, Readable::CodingUnread),
            (Some("text/html"), "", true, Readable::As(Text, none, b"")),
            (Some("text/html"), "", false, Readable::TypeUnread),
        ] {
            let got = readable(content_type.map(str::as_bytes), codings(encoding), response);
            assert_eq!(got, want, "{content_type:?} {encoding:?}");
        }
    }

    #[test]
    fn sniffing() {
        for (text, want) in [
            ("{\"a\":1}", Sniffed::Json),
            ("[1]", Sniffed::Json),
            ("a=b", Sniffed::Form),
            ("user%5Bx%5D=b", Sniffed::Form),
            ("user", Sniffed::More),
            ("hello world = x", Sniffed::Neither),
            ("=", Sniffed::Neither),
            ("", Sniffed::More),
            ("\x00\x01=", Sniffed::Neither),
        ] {
            assert_eq!(sniff(text.as_bytes()), want, "{text}");
        }
        assert_eq!(sniff(&[b'a'; 64]), Sniffed::Neither);
    }
}
