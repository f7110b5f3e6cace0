//! The derive macro of mixpanel-groups, which re-exports it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ast;
mod attr;
mod bound;
mod case;
mod check;
mod ctxt;
mod expand;
mod fallback;
mod keys;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::ast::Group;
use crate::attr::StructAttrs;
use crate::ctxt::Ctxt;

/// Derives.
#[proc_macro_derive(MixpanelGroup, attributes(mixpanel))]
pub fn derive(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    match syn::parse(input) {
        Ok(input) => derive_group(&input).into(),
        Err(error) => error.into_compile_error().into(),
    }
}

fn derive_group(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let attrs = StructAttrs::read(&mut ctxt, &input.attrs);
    let group = Group::new(&mut ctxt, input, &attrs);
    match (ctxt.into_error(), group) {
        (None, Some(group)) => expand::expand(&group),
        (errors, _) => {
            let errors = errors.map(syn::Error::into_compile_error);
            let fallback = fallback::expand(input, &ast::krate(&attrs));
            quote!(#errors #fallback)
        }
    }
}
