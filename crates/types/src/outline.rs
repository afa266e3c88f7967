//! What an inventory learns of one request: names, kinds of values, kinds of credentials; never a value.

use crate::{Span, TextArena};

/// Where a request carries a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParameterPlace {
    /// In the query of its target.
    Query,
    /// A header field that is none of HTTP's own.
    Header,
    /// A field of a form body, urlencoded or multipart.
    Form,
    /// A value of a JSON body; the name is a pointer (RFC 6901) in which `*` stands for every element of an array (`~2`
    /// is a member of that name) and
    /// a placeholder (`{id}`, `{uuid}` …) for members whose names are data.
    Json,
}

/// Kinds of values that were seen in one place: a lattice whose join is [`ValueKinds::join`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ValueKinds(u16);

impl ValueKinds {
    /// Digits, perhaps after a minus sign, without leading zeros.
    pub const INTEGER: Self = Self(1);
    /// A number with a fraction or an exponent.
    pub const NUMBER: Self = Self(1 << 1);
    /// `true` or `false`.
    pub const BOOLEAN: Self = Self(1 << 2);
    /// 8-4-4-4-12 hexadecimal digits.
    pub const UUID: Self = Self(1 << 3);
    /// `2024-05-31`.
    pub const DATE: Self = Self(1 << 4);
    /// A date with a time.
    pub const DATE_TIME: Self = Self(1 << 5);
    /// An e-mail address.
    pub const EMAIL: Self = Self(1 << 6);
    /// Any other text.
    pub const STRING: Self = Self(1 << 7);
    /// Nothing behind the equals sign, or a text of no characters.
    pub const EMPTY: Self = Self(1 << 8);
    /// JSON's `null`.
    pub const NULL: Self = Self(1 << 9);
    /// A JSON object.
    pub const OBJECT: Self = Self(1 << 10);
    /// A JSON array.
    pub const ARRAY: Self = Self(1 << 11);
    /// A file of a multipart form.
    pub const FILE: Self = Self(1 << 12);
    /// Several times in one request.
    pub const REPEATED: Self = Self(1 << 13);

    /// Returns the kinds of both.
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the kinds of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether all of `other` are in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Debug for ValueKinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 14] = [
            "integer",
            "number",
            "boolean",
            "uuid",
            "date",
            "date-time",
            "email",
            "string",
            "empty",
            "null",
            "object",
            "array",
            "file",
            "repeated",
        ];
        f.debug_set().entries((0..14).filter(|bit| self.0 & (1 << bit) != 0).map(|bit| NAMES[bit])).finish()
    }
}

/// One name in one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Where it stood.
    pub place: ParameterPlace,
    /// Its name in [`Outline::text`]; UTF-8.
    pub name: Span,
    /// What stood behind it.
    pub kinds: ValueKinds,
    /// How often.
    pub count: u32,
}

/// How a request says who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CredentialKind {
    /// Basic authorization.
    Basic,
    /// A bearer token in Authorization.
    Bearer,
    /// Digest authorization.
    Digest,
    /// A header field of this name.
    Header,
    /// A session cookie of this name.
    Cookie,
    /// A query parameter of this name.
    Query,
}

/// What was read of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyOutline {
    /// Nothing: there was none, or its type has no fields.
    #[default]
    Unread,
    /// All of it.
    Whole,
    /// Its beginning, or not all names: that a name is absent says nothing.
    Partial,
}

/// Names and kinds of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// All names.
    pub text: TextArena,
    /// Each name of each place once, in order of appearance.
    pub parameters: Vec<Parameter>,
    /// Credentials, each once; the name is in `text`, in lower case where case does not matter.
    pub credentials: Vec<(CredentialKind, Span)>,
    /// What was read of the body.
    pub body: BodyOutline,
    /// Names that were not taken: they look like values, or there were too many.
    pub names_left_out: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_join_as_a_lattice() {
        let (a, b) = (ValueKinds::INTEGER, ValueKinds::UUID);
        assert_eq!(a.join(b), b.join(a));
        assert_eq!(a.join(a), a);
        assert!(a.join(b).contains(a) && !a.contains(b) && a.contains(ValueKinds::default()));
        assert_eq!(a.join(b).without(b), a);
        assert_eq!(format!("{:?}", a.join(ValueKinds::REPEATED)), r#"{"integer", "repeated"}"#);
    }
}
