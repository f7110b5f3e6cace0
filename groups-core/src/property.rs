use crate::Operation;

/// A property that a struct maps to: one entry of [`MixpanelGroup::PROPERTIES`].
///
/// [`MixpanelGroup::PROPERTIES`]: crate::MixpanelGroup::PROPERTIES
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// The property's name on the wire. Empty for a field with `#[mixpanel(flatten)]`, whose
    /// names are known at run time only.
    pub name: &'static str,
    /// The struct's field.
    pub field: &'static str,
    /// The operation that sends it: `Set`, `SetOnce` or `Union`.
    pub operation: Operation,
    /// The field's doc comment, without its indentation; empty if it has none.
    pub doc: &'static str,
    /// The name as it stands in the JSON, with its punctuation: `,"name":`.
    pub(crate) key: &'static str,
    /// Whether `updates()` removes the property where the value is absent.
    pub(crate) unset_none: bool,
}

impl Property {
    /// For generated code.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        field: &'static str,
        operation: Operation,
        doc: &'static str,
        key: &'static str,
    ) -> Self {
        Self {
            name,
            field,
            operation,
            doc,
            key,
            unset_none: false,
        }
    }

    /// For generated code: `#[mixpanel(unset_none)]`.
    #[doc(hidden)]
    #[must_use]
    pub const fn unset_none(mut self) -> Self {
        self.unset_none = true;
        self
    }
}
