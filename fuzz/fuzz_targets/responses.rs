//! Any status, `Retry-After` and body, to a few updates: each must end in exactly one place.
//!
//! ```sh
//! cargo +nightly fuzz run responses
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use mixpanel_groups::client::any_response::check;

fuzz_target!(|input: (Vec<(u16, Vec<u8>, Vec<u8>)>, u8)| {
    let (responses, updates) = input;
    check(responses, usize::from(updates % 16) + 1);
});
