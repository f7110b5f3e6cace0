//! Any status, `Retry-After` and body, to a few updates: each must end in exactly one place.
//!
//! ```sh
//! cargo +nightly fuzz run answers
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use mixpanel_groups::client::any_response::check;

fuzz_target!(|input: (Vec<(u16, Vec<u8>, Vec<u8>)>, u8)| {
    let (answers, updates) = input;
    check(answers, usize::from(updates % 16) + 1);
});
