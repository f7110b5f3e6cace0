//! Each mistake gives one message, at the token that is wrong, with what to do instead.
//!
//! After a change of messages, `TRYBUILD=overwrite cargo test -p ui` rewrites the expected output.
//! Read the difference as a user would.

#[test]
fn each_mistake_gives_one_message() {
    trybuild::TestCases::new().compile_fail("*/*.rs");
}
