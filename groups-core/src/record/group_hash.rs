//! A hash of a record's group, by which records are shared out among connections.

use std::borrow::Cow;

use crate::json::members::Text;

/// Returns the hash of a group with this id. Groups of one id and several keys are rare, and may share it.
///
/// It is fast and good enough to share groups out: words are added as in rustc's `FxHasher`, and mixed as in
/// `MurmurHash3`, since ids may differ in one digit. Nothing depends on it but how evenly that is.
#[inline]
pub(crate) fn hash(id: &[u8]) -> u64 {
    let add = |hash: u64, word: &[u8; 8]| {
        (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517c_c1b7_2722_0a95)
    };
    let last = id.last_chunk().copied().unwrap_or_else(|| {
        let mut last = [0; 8];
        last[..id.len()].copy_from_slice(id);
        last
    });
    let words = id.as_chunks::<8>().0.iter();
    let hash = add(words.fold(0, add), &last);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// Returns the same hash for a record that was written, of the bytes that identify it: they end with the id as text.
pub(crate) fn hash_written(head: &[u8]) -> u64 {
    let text = &head[..head.len() - 1];
    let is_quote = |index: &usize| text[*index] == b'"' && text[..*index].last() != Some(&b'\\');
    let start = (0..text.len()).rev().find(is_quote).unwrap_or_default();
    let id = &text[start + 1..];
    if !id.contains(&b'\\') {
        return hash(id);
    }
    let parsed = serde_json::from_slice(&head[start..]).map(|Text(id)| id);
    hash(parsed.unwrap_or(Cow::Borrowed("")).as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::{Group, Operation, Property};
    use crate::json::EncodeError;
    use crate::record::visit::Visitor;
    use crate::record::{EncodedUpdate, MixpanelGroup, Record, Update};

    proptest! {
        #[test]
        fn a_group_has_one_hash_however_its_updates_are_kept(
            key in "[a-z\"\\\\]{1,4}",
            id in prop_oneof!["[a-c\"\\\\:,\u{1}é]{1,12}", ".{1,40}"],
        ) {
            let update = Group::new(&key, &id).delete();
            let stored = EncodedUpdate::new(&update).unwrap().unwrap();
            let expected = hash(id.as_bytes());
            prop_assert_eq!(update.group_hash(), expected);
            prop_assert_eq!(stored.group_hash(), expected);
            prop_assert_eq!(Update::from(&stored).group_hash(), expected);
            prop_assert_eq!(Update::from(stored).group_hash(), expected);
        }
    }

    struct Company(u64);

    impl MixpanelGroup for Company {
        const GROUP_KEY: &'static str = "company";
        const GROUP_HEAD: &'static str = r#""$group_key":"company","$group_id":"#;
        const PROPERTIES: &'static [Property] = &[];

        fn group(&self) -> Group<'_> {
            Group::new("company", self.0)
        }

        fn visit_properties<V: Visitor>(
            &self,
            _old: &Self,
            _operation: Operation,
            _visitor: &mut V,
        ) -> Result<(), EncodeError> {
            Ok(())
        }
    }

    #[test]
    fn a_derived_struct_has_the_hash_of_its_group() {
        let hashes = [Company(42).set(), Company(42).delete()].map(|update| update.group_hash());
        assert_eq!(hashes, [hash(b"42"); 2]);
    }
}
