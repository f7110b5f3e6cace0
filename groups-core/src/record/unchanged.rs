//! Compares two versions of a struct without writing JSON.

use std::cell::Cell;

use crate::record::MixpanelGroup;
use crate::record::tokens::Tokens;
use crate::util::{MAX_KEPT, lend};

thread_local! {
    static TOKENS: Cell<Tokens> = Cell::default();
}

/// Returns whether all properties certainly have the same value. If it returns `false`, they still may.
pub(crate) fn is_unchanged<T: MixpanelGroup>(new: &T, old: &T) -> bool {
    lend(&TOKENS, |tokens| {
        tokens.bytes.clear();
        let mut walk = |group| tokens.push(group).map(|()| tokens.bytes.len());
        let is_unchanged = match (walk(old), walk(new)) {
            (Ok(middle), Ok(_)) => tokens.bytes[..middle] == tokens.bytes[middle..],
            _ => false,
        };
        (is_unchanged, tokens.bytes.capacity() <= MAX_KEPT)
    })
}
