use std::fmt::Display;

use proc_macro2::Span;
use quote::ToTokens;

/// A collection of mistakes, so that all mistakes of a struct are reported at once.
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

    /// Adds a mistake in the tokens `at`.
    pub(crate) fn error(&mut self, at: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(at, message));
    }

    /// Adds a mistake of two places: reported at the second, with a note at the first.
    pub(crate) fn twice(&mut self, [first, second]: [Span; 2], message: impl Display) {
        self.push(syn::Error::new(second, message));
        self.push(syn::Error::new(first, "this is the other one"));
    }

    /// Adds a key that cannot be read. As it may be any key, none is reported as missing afterwards.
    pub(crate) fn misread(&mut self, error: syn::Error) {
        self.push(error);
        self.misread = true;
    }

    pub(crate) fn has_misread(&self) -> bool {
        self.misread
    }

    /// Returns all mistakes, if there are any.
    pub(crate) fn into_error(self) -> Option<syn::Error> {
        self.errors
    }
}
