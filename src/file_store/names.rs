//! Names of files: relative paths whose rules every node must judge alike.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use fsd_wire::NAME_BYTES_MAX;

/// The longest part of a name, in bytes: what stands between two `/`.
pub const NAME_PART_BYTES_MAX: usize = 255;

/// A name that follows the rules. Clones share one string: the store's maps hold a name several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Checks `name` against the rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories above the file, outermost first: for `a/b/c`, `a` and `a/b`.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

// Hash, equality and order of a `FileName` are those of its text, as `Borrow` demands.
impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text cannot be the name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError {
    /// The rule that it breaks, as a sentence about the name; one line.
    pub reason: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid name: {}", self.reason)
    }
}

impl std::error::Error for NameError {}

fn check(name: &str) -> Result<(), NameError> {
    let broken = |reason| Err(NameError { reason });
    if name.is_empty() {
        return broken("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return broken("it is longer than 1024 bytes");
    }
    if name.starts_with('/') || name.ends_with('/') {
        return broken("it begins or ends with /");
    }
    if name.chars().any(is_whitespace) {
        return broken("it has whitespace in it");
    }
    if name.chars().any(char::is_control) {
        return broken("it has a control character in it");
    }
    for part in name.split('/') {
        match part {
            "" => return broken("it has an empty part"),
            "." | ".." => return broken("a part of it is . or .."),
            _ if part.len() > NAME_PART_BYTES_MAX => return broken("a part of it is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Whitespace is listed here and not asked of the standard library, whose tables follow Unicode from one
/// release to the next: nodes of different builds must judge a name alike. (The set of control characters
/// can never change.)
fn is_whitespace(c: char) -> bool {
    matches!(
        c,
        '\t'..='\r'
            | ' '
            | '\u{85}'
            | '\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
    )
}

const _: () = assert!(NAME_BYTES_MAX == 1024 && NAME_PART_BYTES_MAX == 255, "the reasons above name them");

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str) -> &'static str {
        FileName::parse(name).expect_err(name).reason
    }

    #[test]
    fn names_within_the_rules_are_taken_as_they_are() {
        let long = ["x".repeat(255), "y".repeat(255), "z".repeat(255), "w".repeat(255), "v".into()].join("/");
        assert_eq!(long.len(), 1025);
        let longest = &long[1..];
        for name in ["a", "a/b", "a/b/c.txt", "...", "..a", "a./b", ".a", "-", "é/ü", "日本", "a\\b", longest]
        {
            assert_eq!(FileName::parse(name).expect(name).as_str(), name);
        }
        assert_eq!(reason(&long), "it is longer than 1024 bytes");
    }

    #[test]
    fn each_rule_is_told_by_its_reason() {
        assert_eq!(reason(""), "it is empty");
        for name in ["/", "/a", "a/", "//"] {
            assert_eq!(reason(name), "it begins or ends with /", "{name:?}");
        }
        for name in ["a b", "a\tb", "a\r\nb", " ", "a\u{a0}b", "a\u{2003}b", "a\u{3000}", "\u{85}"] {
            assert_eq!(reason(name), "it has whitespace in it", "{name:?}");
        }
        for name in ["a\0", "\u{1b}[0m", "a\u{7f}", "\u{9f}"] {
            assert_eq!(reason(name), "it has a control character in it", "{name:?}");
        }
        assert_eq!(reason("a//b"), "it has an empty part");
        for name in [".", "..", "a/.", "a/../b", "./a"] {
            assert_eq!(reason(name), "a part of it is . or ..", "{name:?}");
        }
        assert!(FileName::parse(&"x".repeat(255)).is_ok());
        assert_eq!(reason(&"x".repeat(256)), "a part of it is longer than 255 bytes");
        // Bytes count, not characters.
        assert_eq!(reason(&"é".repeat(128)), "a part of it is longer than 255 bytes");
    }

    #[test]
    fn the_listed_whitespace_is_what_unicode_calls_so() {
        for c in '\0'..=char::MAX {
            assert_eq!(is_whitespace(c), c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn directories_come_outermost_first() {
        let directories =
            |name| FileName::parse(name).unwrap().directories().map(String::from).collect::<Vec<_>>();
        assert_eq!(directories("a"), Vec::<String>::new());
        assert_eq!(directories("a/b/cd/e"), ["a", "a/b", "a/b/cd"]);
    }
}
