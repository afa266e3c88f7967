//! Fields that the configuration names by their place: JSON pointers (RFC 6901).
//!
//! While JSON passes by, each open container knows as one bit per pointer which of them lead through it, so a key costs
//! a comparison only where a pointer could still end there.

use super::fields::Kind;

/// Most pointers of one list: user and password fields together fit into one word.
const POINTERS_MAX: usize = 32;
/// Most steps of a pointer.
const STEPS_MAX: usize = 16;
/// Longest pointer.
const POINTER_BYTES_MAX: usize = 512;

/// Why an entry of `user_fields` or `password_fields` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// There is nothing in it to compare.
    Empty,
    /// In a pointer, `~` must be followed by 0 or 1 (RFC 6901 §3).
    Escape,
    /// More steps, or longer, than any pointer may be.
    TooLong,
    /// More pointers in one list than there may be.
    TooMany,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("must be a name (`password`) or a JSON pointer (`/credentials/password`)")
            }
            Self::Escape => f.write_str("`~` in a JSON pointer must be `~0` (for ~) or `~1` (for /)"),
            Self::TooLong => {
                write!(f, "a JSON pointer has at most {STEPS_MAX} steps and {POINTER_BYTES_MAX} bytes")
            }
            Self::TooMany => write!(f, "a list has at most {POINTERS_MAX} JSON pointers"),
        }
    }
}

impl std::error::Error for FieldError {}

/// Checks the entries of `user_fields` or `password_fields`; an error comes with the place in the list.
///
/// # Errors
/// The first entry that could never match anything.
pub fn check_fields(list: &[String]) -> Result<(), (usize, FieldError)> {
    let mut pointers = 0;
    for (at, entry) in list.iter().enumerate() {
        if entry.starts_with('/') {
            steps(entry).map_err(|e| (at, e))?;
            pointers += 1;
            if pointers > POINTERS_MAX {
                return Err((at, FieldError::TooMany));
            }
        } else if super::names::Reduced::new(entry.to_lowercase().as_bytes(), false).bytes().is_empty() {
            return Err((at, FieldError::Empty));
        }
    }
    Ok(())
}

/// Splits a pointer into its unescaped steps.
fn steps(pointer: &str) -> Result<Vec<Box<[u8]>>, FieldError> {
    let text = pointer.strip_prefix('/').ok_or(FieldError::Empty)?;
    if text.len() > POINTER_BYTES_MAX {
        return Err(FieldError::TooLong);
    }
    let mut list = Vec::new();
    for step in text.split('/') {
        let mut out = String::with_capacity(step.len());
        let mut rest = step.chars();
        while let Some(c) = rest.next() {
            out.push(match c {
                '~' => match rest.next() {
                    Some('0') => '~',
                    Some('1') => '/',
                    _ => return Err(FieldError::Escape),
                },
                c => c,
            });
        }
        list.push(out.into_bytes().into());
    }
    if list.len() > STEPS_MAX {
        return Err(FieldError::TooLong);
    }
    Ok(list)
}

struct Pointer {
    steps: Vec<Box<[u8]>>,
    kind: Kind,
    rank: u16,
}

/// What a key or element is to the pointers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    /// The field that a pointer names: the most preferred one.
    pub(super) leaf: Option<(Kind, u16)>,
    /// The pointers that lead further, by bit.
    pub(super) inside: u64,
}

/// The pointers of both lists, ready to be followed.
#[derive(Default)]
pub(super) struct Pointers(Vec<Pointer>);

impl Pointers {
    /// Takes the pointers out of the two lists; entries that [`check_fields`] refuses are left out.
    pub(super) fn new(users: &[String], passwords: &[String]) -> Self {
        let mut list = Vec::new();
        for (kind, names) in [(Kind::User, users), (Kind::Password, passwords)] {
            let found = (0..=u16::MAX)
                .zip(names)
                .filter_map(|(rank, name)| Some(Pointer { steps: steps(name).ok()?, kind, rank }));
            list.extend(found.take(POINTERS_MAX));
        }
        Self(list)
    }

    /// Returns the bits of all pointers: what leads through the root.
    pub(super) fn all(&self) -> u64 {
        1u64.checked_shl(self.0.len() as u32).map_or(u64::MAX, |bit| bit - 1)
    }

    /// Follows the pointers in `live` by a key, or by the decimal index of an element, `depth` containers deep.
    pub(super) fn follow(&self, mut live: u64, depth: usize, step: &[u8]) -> Hit {
        let mut hit = Hit::default();
        while live != 0 {
            let bit = live.trailing_zeros();
            live &= live - 1;
            let Some(pointer) = self.0.get(bit as usize) else { break };
            if pointer.steps.get(depth.wrapping_sub(1)).is_none_or(|s| **s != *step) {
                continue;
            }
            if pointer.steps.len() > depth {
                hit.inside |= 1 << bit;
            } else if hit.leaf.is_none_or(|(kind, rank)| {
                // A password before a user; then the list's order.
                (kind != Kind::Password, rank) > (pointer.kind != Kind::Password, pointer.rank)
            }) {
                hit.leaf = Some((pointer.kind, pointer.rank));
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_checked() {
        let many = vec!["/a".to_owned(); POINTERS_MAX + 1];
        assert_eq!(check_fields(&many), Err((POINTERS_MAX, FieldError::TooMany)));
        for (entry, want) in [
            ("user", Ok(())),
            ("/a/b~1c/~0", Ok(())),
            ("/", Ok(())),
            ("", Err((0, FieldError::Empty))),
            ("[]", Err((0, FieldError::Empty))),
            ("/a~", Err((0, FieldError::Escape))),
            ("/a~2b", Err((0, FieldError::Escape))),
        ] {
            assert_eq!(check_fields(&[entry.to_owned()]), want, "{entry}");
        }
        assert_eq!(check_fields(&["/a".repeat(17)]), Err((0, FieldError::TooLong)));
        assert_eq!(check_fields(&[format!("/{}", "a".repeat(600))]), Err((0, FieldError::TooLong)));
    }

    #[test]
    fn following() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let p = Pointers::new(&list(&["name", "/a/b", "/a/x~1y", "/a"]), &list(&["/a/b", "/list/0"]));
        assert_eq!(p.all(), 0b11111);
        assert_eq!(p.follow(p.all(), 1, b"a"), Hit { leaf: Some((Kind::User, 3)), inside: 0b01011 });
        assert_eq!(p.follow(0b01011, 2, b"b"), Hit { leaf: Some((Kind::Password, 0)), inside: 0 });
        assert_eq!(p.follow(0b01011, 2, b"x/y"), Hit { leaf: Some((Kind::User, 2)), inside: 0 });
        assert_eq!(p.follow(p.all(), 1, b"list").inside, 0b10000);
        assert_eq!(p.follow(0b10000, 2, b"0").leaf, Some((Kind::Password, 1)));
        assert_eq!(p.follow(p.all(), 3, b"a"), Hit::default());
        assert_eq!(p.follow(0, 1, b"a"), Hit::default());
    }
}
