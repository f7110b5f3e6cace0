use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::expand::call_site;
use crate::keys::StructAttrs;

/// Returns an impl without properties. With it, a mistake in the struct is not reported again
/// wherever the struct is used.
pub(crate) fn expand(input: &DeriveInput, attrs: &StructAttrs) -> TokenStream {
    let krate = attrs.krate_or_default();
    let ident = call_site(&input.ident);
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::MixpanelGroup for #ident #ty_generics #where_clause {
            const GROUP_KEY: &'static #krate::__private::str = "";
            const GROUP_HEAD: &'static #krate::__private::str = "";
            const PROPERTIES: &'static [#krate::Property] = &[];

            fn group(&self) -> #krate::Group<'_> {
                #krate::Group::new("", "")
            }

            fn visit_properties<__V: #krate::__private::Visitor>(
                &self,
                _: &Self,
                _: #krate::Operation,
                _: &mut __V,
            ) -> #krate::__private::Result<(), #krate::__private::EncodeError> {
                #krate::__private::Ok(())
            }
        }
    }
}
