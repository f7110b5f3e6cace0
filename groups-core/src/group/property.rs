use std::fmt;

use crate::group::Operation;

/// A property that a struct maps to: one entry of [`MixpanelGroup::PROPERTIES`].
///
/// [`MixpanelGroup::PROPERTIES`]: crate::MixpanelGroup::PROPERTIES
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// The property's name on the wire. Empty for a field with `#[mixpanel(flatten)]`, whose
    /// names are known at run time only.
    pub name: &'static str,
    /// The struct's field.
    pub field: &'static str,
    /// The operation that sends it: `Set`, `SetOnce` or `Union`.
    pub operation: Operation,
    /// The field's doc comment, without its indentation; empty if it has none. If a part of it comes from a macro, such
    /// as `include_str!`, the whole is as it was written.
    pub doc: &'static str,
    /// The name as it stands in the JSON, with its punctuation: `,"name":`.
    pub(crate) key: &'static str,
    /// Whether `updates()` removes the property where the value is `null`.
    pub(crate) unset_none: bool,
}

/// A [`Property`] as generated code writes it down: `name`, `field`, `operation`, `doc`, `key` and
/// `unset_none`.
type Written = (
    &'static str,
    &'static str,
    Operation,
    &'static str,
    &'static str,
    bool,
);

impl Property {
    /// Returns all properties of a struct, for generated code. That compiles faster than one call for each.
    #[doc(hidden)]
    #[must_use]
    pub const fn all<const N: usize>(written: [Written; N]) -> [Self; N] {
        let mut all = [Self {
            name: "",
            field: "",
            operation: Operation::Set,
            doc: "",
            key: "",
            unset_none: false,
        }; N];
        let mut index = 0;
        while index < N {
            let (name, field, operation, doc, key, unset_none) = written[index];
            all[index] = Self {
                name,
                field,
                operation,
                doc,
                key,
                unset_none,
            };
            index += 1;
        }
        all
    }
}

/// Returns the operations of these properties, in their order, as the first of so many.
pub(crate) const fn operations_of(properties: &[Property]) -> ([Operation; 3], usize) {
    let (mut found, mut len) = ([Operation::Set; 3], 0);
    let all = [Operation::Set, Operation::SetOnce, Operation::Union];
    let mut which = 0;
    while which < all.len() {
        let mut index = 0;
        while index < properties.len() {
            if properties[index].operation as usize == all[which] as usize {
                found[len] = all[which];
                len += 1;
                break;
            }
            index += 1;
        }
        which += 1;
    }
    (found, len)
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property")
            .field("name", &self.name)
            .field("field", &self.field)
            .field("operation", &self.operation)
            .field("doc", &self.doc)
            .finish_non_exhaustive()
    }
}
