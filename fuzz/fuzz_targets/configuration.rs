//! The configuration: any text is accepted or refused with a reason that names the file, and never a panic.

#![no_main]

use std::path::Path;

use fsd::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(Path::new("node.conf"), text) {
        Ok(config) => assert!(config.member(config.node).is_some(), "a node is a member of its cluster"),
        Err(error) => assert!(error.to_string().contains("node.conf")),
    }
});
