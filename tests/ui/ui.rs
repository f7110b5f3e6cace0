//! Every mistake gives one message, at the token that is wrong, that says what to do.
//!
//! After a change of words `TRYBUILD=overwrite cargo test -p ui` writes the expected outputs anew:
//! read the difference as a user would.

#[test]
fn every_mistake_is_told() {
    trybuild::TestCases::new().compile_fail("*/*.rs");
}
