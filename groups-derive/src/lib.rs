//! The derive macro of mixpanel-groups, which re-exports it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ast;
mod attr;
mod bound;
mod case;
mod check;
mod ctxt;
mod doc;
mod expand;
mod fallback;
mod keys;
mod suggest;
#[cfg(test)]
mod tests;
mod value;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::ast::Group;
use crate::ctxt::Ctxt;
use crate::keys::StructAttrs;

#[doc = include_str!("../derive.md")]
#[proc_macro_derive(MixpanelGroup, attributes(mixpanel))]
pub fn derive(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive_group(input.into()).into()
}

fn derive_group(input: TokenStream) -> TokenStream {
    match syn::parse2(input) {
        Ok(input) => implement(&input),
        Err(error) => error.into_compile_error(),
    }
}

/// Returns the impl, or every mistake and an impl that does nothing.
fn implement(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let attrs = StructAttrs::read(&mut ctxt, &input.attrs);
    let group = Group::new(&mut ctxt, input, &attrs);
    match (ctxt.into_error(), group) {
        (None, Some(group)) => expand::expand(&group),
        (errors, _) => {
            let errors = errors.map(syn::Error::into_compile_error);
            let fallback = fallback::expand(input, &attrs);
            quote!(#errors #fallback)
        }
    }
}
