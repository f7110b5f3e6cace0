use std::fmt::Display;

use proc_macro2::Span;
use quote::ToTokens;

/// Collects every mistake, so that all of a struct's are reported in one go.
#[derive(Default)]
pub(crate) struct Ctxt {
    errors: Option<syn::Error>,
    misread: bool,
}

impl Ctxt {
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.errors {
            Some(errors) => errors.combine(error),
            None => self.errors = Some(error),
        }
    }

    /// A mistake in the tokens `at`.
    pub(crate) fn error(&mut self, at: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(at, message));
    }

    /// A mistake of two places: told at the second, and shown at the first.
    pub(crate) fn twice(&mut self, [first, second]: [Span; 2], message: impl Display) {
        self.push(syn::Error::new(second, message));
        self.push(syn::Error::new(first, "this is the other one"));
    }

    /// A key that cannot be read. It may have been any: none can be called missing from now on.
    pub(crate) fn misread(&mut self, error: syn::Error) {
        self.push(error);
        self.misread = true;
    }

    pub(crate) fn has_misread(&self) -> bool {
        self.misread
    }

    /// All mistakes, if there are any.
    pub(crate) fn into_error(self) -> Option<syn::Error> {
        self.errors
    }
}
