//! The rules for names, against a second reading of them.

#![no_main]

use fsd::file_store::FileName;
use libfuzzer_sys::fuzz_target;

fn is_good(name: &str) -> bool {
    let part = |part: &str| {
        (1..=255).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    (1..=1024).contains(&name.len()) && name.split('/').all(part)
}

fuzz_target!(|name: &str| {
    assert_eq!(FileName::parse(name).is_ok(), is_good(name), "{name:?}");
});
